"""Training examples on disk with random access, and the token lengths of all their texts.

The examples are a TensorFlow Datasets data set in ArrayRecord format (TensorFlow is not needed).
NumPy arrays beside it are memory-mapped:

    offsets.npy    int64  [n + 1]  lengths[offsets[i] : offsets[i + 1]] belong to example i
    lengths.npy    int32  [sum]    tokens of prompt + query, of each positive, of each negative
    positives.npy  int32  [n]      number of positives
    sources.npy    uint16 [n]      position in m3jax_data.json's list of sources
    flags.npy      uint8  [n]      bit 0: in_batch, bit 1: has a teacher score for every passage
"""

import contextlib
import dataclasses
import functools
import json
import logging
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from m3jax.data.examples import Example, Paths, read_records_of
from m3jax.data.lengths import measured, texts_of
from m3jax.io.atomic import new_directory
from m3jax.io.jsonl import BadRecords
from m3jax.io.npy import NpyWriter
from m3jax.text.tokenizer import Tokenizer
from m3jax.types import HAS_SCORES, IN_BATCH

METADATA = "m3jax_data.json"
FORMAT = "m3jax-examples"
VERSION = 1
NAME = "m3jax_examples"
SPLIT = "train"
SHARD_SIZE = 50_000
ARRAYS: dict[str, type[np.generic]] = {
    "offsets": np.int64,
    "lengths": np.int32,
    "positives": np.int32,
    "sources": np.uint16,
    "flags": np.uint8,
}


def build(
    inputs: Paths,
    output: Path | str,
    tokenizer: Tokenizer,
    *,
    record_format: str = "examples",
    skip_bad: int = 0,
    shard_size: int = SHARD_SIZE,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Builds a data set from files in bounded memory; returns the contents of m3jax_data.json.

    `output` appears when it is complete. `record_format` is "examples" or "texts". `progress` is
    called with the number of examples written. Raises FileExistsError if `output` exists, the
    errors of `examples.read_examples`, and ValueError if there is no example.
    """
    bad = BadRecords(skip_bad)
    records = read_records_of(inputs, record_format, bad)
    names = [str(path) for path in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    with new_directory(output) as scratch:
        counts = _write(scratch, (record[2] for record in records), tokenizer, shard_size, progress)
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "kind": record_format,
            "tokenizer": tokenizer.fingerprint(),
            **counts,
            "inputs": names,
            "skipped": bad.count,
            "files": {f.name: f.stat().st_size for f in sorted(scratch.iterdir())},
        }
        text = json.dumps(metadata, indent=2, ensure_ascii=False)
        # A lone surrogate in a name is written as its JSON escape.
        (scratch / METADATA).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return metadata


def _write(
    directory: Path,
    examples: Iterable[Example],
    tokenizer: Tokenizer,
    shard_size: int,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Writes records and arrays; returns counts."""
    writer = _record_writer(directory, shard_size)
    with contextlib.ExitStack() as stack:
        arrays = {
            name: stack.enter_context(
                contextlib.closing(NpyWriter(directory / f"{name}.npy", dtype))
            )
            for name, dtype in ARRAYS.items()
        }
        counts = _stream(writer, arrays, measured(examples, texts_of, tokenizer), progress)
    writer.close_all()
    return counts


def _stream(
    writer: tfds.core.SequentialWriter,
    arrays: dict[str, NpyWriter],
    chunks: Iterable[tuple[list[Example], list[np.ndarray]]],
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    sources: dict[str, list[int]] = {}  # name -> [number, examples]
    arrays["offsets"].append([0])
    done = tokens = longest = 0
    for chunk, lengths in chunks:
        writer.add_examples({SPLIT: [_encode(example) for example in chunk]})
        flat = np.concatenate(lengths)
        ends = arrays["lengths"].size + np.cumsum([len(each) for each in lengths])
        arrays["offsets"].append(ends)
        arrays["lengths"].append(flat)
        arrays["positives"].append([len(example.positives) for example in chunk])
        arrays["sources"].append([_number(sources, example.source) for example in chunk])
        arrays["flags"].append([_flags(example) for example in chunk])
        done += len(chunk)
        tokens += int(flat.sum(dtype=np.int64))
        longest = max(longest, int(flat.max()))
        if progress:
            progress(done)
    if not done:
        raise ValueError("the inputs hold no example: nothing to build")
    return {
        "examples": done,
        "texts": arrays["lengths"].size,
        "tokens": tokens,
        "longest": longest,
        "sources": [{"name": name, "examples": count} for name, (_, count) in sources.items()],
    }


def _number(sources: dict[str, list[int]], name: str) -> int:
    entry = sources.setdefault(name, [len(sources), 0])
    if entry[0] > np.iinfo(np.uint16).max:
        raise ValueError(f"more than 65,536 sources; the first that does not fit is {name!r}")
    entry[1] += 1
    return entry[0]


def _flags(example: Example) -> int:
    scored = example.positive_scores is not None and (
        example.negative_scores is not None or not example.negatives
    )
    return IN_BATCH * example.in_batch + HAS_SCORES * scored


def _record_writer(directory: Path, shard_size: int) -> tfds.core.SequentialWriter:
    """TFDS's streaming writer; for ArrayRecord it does not need TensorFlow."""
    text, strings = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    # As bytes, since tf.train.Example stores numbers as float32.
    scores = tfds.features.Tensor(shape=(None,), dtype=np.float64, encoding="bytes")
    features = {
        "query": text,
        "positives": strings,
        "negatives": strings,
        "positive_scores": scores,
        "negative_scores": scores,
        "has_positive_scores": np.bool_,
        "has_negative_scores": np.bool_,
        **dict.fromkeys(("prompt", "id", "lang", "source"), text),
        "in_batch": np.bool_,
    }
    identity = DatasetIdentity(
        name=NAME,
        version=tfds.core.Version(f"{VERSION}.0.0"),
        data_dir=str(directory),
        module_name=NAME,
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, shard_size, file_format="array_record")
    writer.initialize_splits([SPLIT])
    return writer


def _encode(example: Example) -> dict[str, Any]:
    """The TFDS features of an example; lone surrogates, which UTF-8 excludes, are kept."""

    def raw(text: str) -> bytes:
        return text.encode("utf-8", "surrogatepass")

    return {
        "query": raw(example.query),
        "positives": [raw(text) for text in example.positives],
        "negatives": [raw(text) for text in example.negatives],
        "positive_scores": np.array(example.positive_scores or (), np.float64),
        "negative_scores": np.array(example.negative_scores or (), np.float64),
        "has_positive_scores": example.positive_scores is not None,
        "has_negative_scores": example.negative_scores is not None,
        "in_batch": example.in_batch,
        **{key: raw(getattr(example, key)) for key in ("prompt", "id", "lang", "source")},
    }


def _decode(item: dict[str, Any]) -> Example:
    def text(raw: bytes) -> str:
        return raw.decode("utf-8", "surrogatepass")

    def scores(side: str) -> tuple[float, ...] | None:
        has = item[f"has_{side}_scores"]
        return tuple(float(score) for score in item[f"{side}_scores"]) if has else None

    return Example(
        text(item["query"]),
        tuple(map(text, item["positives"])),
        tuple(map(text, item["negatives"])),
        scores("positive"),
        scores("negative"),
        in_batch=bool(item["in_batch"]),
        **{key: text(item[key]) for key in ("prompt", "id", "lang", "source")},
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleSet:
    """An opened data set of `build`: memory-mapped arrays, and examples read by index.

    It is pickled as its directory, so that a worker process opens the files itself.
    """

    directory: Path
    record_format: str  # "examples" or "texts"
    tokenizer: str  # fingerprint
    sources: tuple[str, ...]
    offsets: Int[np.ndarray, " ends"]
    lengths: Int[np.ndarray, " texts"]
    positives: Int[np.ndarray, " n"]
    source_ids: UInt[np.ndarray, " n"]
    flags: UInt[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.positives)

    def __getitem__(self, index: SupportsIndex) -> Example:
        return _decode(self._records[self._number(index)])

    def __reduce__(self):
        return open_examples, (self.directory,)

    def lengths_of(self, index: SupportsIndex) -> Int[np.ndarray, " t"]:
        """Tokens of prompt + query, of each positive and of each negative of an example."""
        number = self._number(index)
        return self.lengths[self.offsets[number] : self.offsets[number + 1]]

    def _number(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"example {number} of {len(self)} in {self.directory}")
        return number % len(self)

    @functools.cached_property
    def _records(self) -> Any:
        splits: Any = tfds.builder_from_directory(str(self.directory)).as_data_source()
        return splits[SPLIT]


def open_examples(directory: Path | str) -> ExampleSet:
    """Opens a data set that `build` wrote.

    Raises FileNotFoundError or ValueError naming the file that is missing, truncated, or of another
    version.
    """
    directory = Path(directory).absolute()
    metadata = _read_metadata(directory)
    for name, size in metadata["files"].items():
        path = directory / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; build the data set again")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes, not the {size:,} that were written; "
                "build the data set again"
            )
    arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    sources = tuple(source["name"] for source in metadata["sources"])
    return ExampleSet(
        directory,
        metadata["kind"],
        metadata["tokenizer"],
        sources,
        arrays["offsets"],
        arrays["lengths"],
        arrays["positives"],
        arrays["sources"],
        arrays["flags"],
    )


def _read_metadata(directory: Path) -> dict[str, Any]:
    path = directory / METADATA
    if not path.is_file():
        missing = "no such directory" if not directory.is_dir() else f"it has no {METADATA}"
        raise FileNotFoundError(f"{directory} is not a data set of `m3jax data build`: {missing}")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    identity = (metadata.get("format"), metadata.get("version"))
    if identity != (FORMAT, VERSION):
        raise ValueError(
            f"{path} is of format {identity[0]!r} version {identity[1]!r}; this release reads "
            f"{FORMAT!r} version {VERSION}: build the data set again"
        )
    return metadata


def check_tokenizer(examples: ExampleSet, tokenizer: Tokenizer, sample: int = 64) -> None:
    """Raises ValueError if `tokenizer` gives other lengths than those stored.

    If its file differs but the lengths of `sample` evenly spaced examples agree, a warning is
    logged: the same tokenizer may have been saved again.
    """
    if tokenizer.fingerprint() == examples.tokenizer:
        return
    for index in np.unique(np.linspace(0, len(examples) - 1, sample).astype(int)).tolist():
        if (
            tokenizer.count(texts_of(examples[index])).tolist()
            != examples.lengths_of(index).tolist()
        ):
            raise ValueError(
                f"{examples.directory} was built with another tokenizer than "
                f"{tokenizer.directory}: example {index} has other lengths; build it again"
            )
    logging.getLogger(__name__).warning(
        "%s was built with another tokenizer.json than that of %s; the lengths of %d agree",
        examples.directory,
        tokenizer.directory,
        min(sample, len(examples)),
    )
