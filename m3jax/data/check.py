"""Statistics and defects of training files, in one pass and bounded memory."""

import array
import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from m3jax.data.examples import KEYS, TEXT_KEYS, Example, Paths, example_files, read_records_of
from m3jax.data.lengths import measured, texts_of
from m3jax.io.hashing import int_digest
from m3jax.text.tokenizer import Tokenizer

LENGTH_BOUNDARIES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
MAX_PLACES = 10  # places listed for each defect
MAX_NAMES = 10_000  # names with a count of their own; the rest share OTHERS
OTHERS = "(others)"


@dataclasses.dataclass
class Lengths:
    """A histogram over LENGTH_BOUNDARIES, in tokens or characters; the last bin has no end."""

    bins: list[int] = dataclasses.field(default_factory=lambda: [0] * len(LENGTH_BOUNDARIES))
    count: int = 0
    total: int = 0
    longest: int = 0

    def add(self, lengths: np.ndarray) -> None:
        """Adds lengths to the histogram."""
        bins = np.searchsorted(LENGTH_BOUNDARIES, lengths, side="right") - 1
        self.bins = (np.bincount(bins, minlength=len(LENGTH_BOUNDARIES)) + self.bins).tolist()
        self.count += len(lengths)
        self.total += int(lengths.sum(dtype=np.int64))
        self.longest = max(self.longest, int(lengths.max(initial=0)))


@dataclasses.dataclass
class DataReport:
    """The result of `check`; `bad` counts records that cannot be used, by error message."""

    unit: str  # of the lengths: "tokens" or "characters"
    files: int = 0
    examples: int = 0
    bad: Counter = dataclasses.field(default_factory=Counter)
    bad_places: list[str] = dataclasses.field(default_factory=list)
    languages: Counter = dataclasses.field(default_factory=Counter)
    sources: Counter = dataclasses.field(default_factory=Counter)
    unknown_keys: Counter = dataclasses.field(default_factory=Counter)
    empty: Counter = dataclasses.field(default_factory=Counter)  # field -> records
    positives: Counter = dataclasses.field(default_factory=Counter)  # how many -> examples
    negatives: Counter = dataclasses.field(default_factory=Counter)
    scored: int = 0  # examples with teacher scores of the positives
    not_in_batch: int = 0
    positive_is_negative: int = 0
    positive_is_negative_places: list[str] = dataclasses.field(default_factory=list)
    repeated_queries: int = 0  # examples whose query occurred before
    repeated_pairs: int = 0  # pairs (query, positive) that occurred before
    lengths: dict[str, Lengths] = dataclasses.field(
        default_factory=lambda: {name: Lengths() for name in ("query", "positive", "negative")}
    )

    def to_json(self) -> dict[str, Any]:
        """The report in plain types, with the boundaries of the histogram."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lengths = {name: dataclasses.asdict(each) for name, each in self.lengths.items()}
        return {**values, "lengths": lengths, "length_edges": list(LENGTH_BOUNDARIES)}


def check(
    paths: Paths,
    *,
    tokenizer: Tokenizer | None = None,
    record_format: str = "examples",
    progress: Callable[[int], None] | None = None,
) -> DataReport:
    """Reads all records and counts the bad ones; only damaged or missing files raise.

    Duplicates are found by 64-bit digests, which take 16 bytes of memory per example with one
    positive. `progress` is called with the number of examples read.
    """
    report = DataReport("tokens" if tokenizer else "characters", files=len(example_files(paths)))
    queries, pairs = array.array("Q"), array.array("Q")
    records = read_records_of(paths, record_format, lambda error: _bad(report, error))
    for chunk, lengths in measured(records, lambda record: texts_of(record[2]), tokenizer):
        for place, values, example in chunk:
            _count(report, values, example, KEYS if record_format == "examples" else TEXT_KEYS)
            queries.append(_digest(example.query))
            pairs.extend(_digest(example.query, text) for text in example.positives)
            if set(example.positives) & set(example.negatives):
                report.positive_is_negative += 1
                if len(report.positive_is_negative_places) < MAX_PLACES:
                    report.positive_is_negative_places.append(str(place))
        _count_lengths(report, [record[2] for record in chunk], lengths)
        if progress:
            progress(report.examples)
    report.repeated_queries = _repeated(queries)
    report.repeated_pairs = _repeated(pairs)
    return report


def _count(
    report: DataReport, values: dict[str, Any], example: Example, keys: tuple[str, ...]
) -> None:
    report.examples += 1
    _add(report.languages, example.lang or "(none)")
    _add(report.sources, example.source)
    for key in values.keys() - set(keys):
        _add(report.unknown_keys, key)
    # An optional field counts as empty only if it is present.
    for key in ("id", "_id", "lang", "source", "title", "prompt"):
        if key in values and values[key] in ("", None):
            report.empty[key] += 1
    if any(not text.strip() for text in example.negatives):
        report.empty["neg"] += 1
    report.positives[len(example.positives)] += 1
    report.negatives[len(example.negatives)] += 1
    report.scored += example.positive_scores is not None
    report.not_in_batch += not example.in_batch


def _count_lengths(report: DataReport, examples: list[Example], lengths: list[np.ndarray]) -> None:
    ends = [1 + len(example.positives) for example in examples]
    pairs = list(zip(lengths, ends, strict=True))
    report.lengths["query"].add(np.concatenate([each[:1] for each, _ in pairs]))
    report.lengths["positive"].add(np.concatenate([each[1:end] for each, end in pairs]))
    report.lengths["negative"].add(np.concatenate([each[end:] for each, end in pairs]))


def _bad(report: DataReport, error: ValueError) -> None:
    """Counts an error by its message, without the place and the numbers."""
    message = re.sub(r"^.*?:\d+: ", "", str(error), count=1)
    _add(report.bad, re.sub(r"\d[\d,]*", "N", message)[:80])
    if len(report.bad_places) < MAX_PLACES:
        report.bad_places.append(str(error))


def _add(counter: Counter, name: str) -> None:
    counter[name if name in counter or len(counter) < MAX_NAMES else OTHERS] += 1


def _digest(*texts: str) -> int:
    return int_digest("\0".join(texts))


def _repeated(digests: array.array) -> int:
    return len(digests) - len(np.unique(np.frombuffer(digests, np.uint64)))
