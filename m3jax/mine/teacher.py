"""Fill `pos_scores` and `neg_scores` of training files, for distillation.

Scores are kept in the work directory chunk by chunk: a job that was killed goes on, and gives what
an unbroken one does.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.data.examples import Example, read_records_of
from m3jax.io.atomic import new_file
from m3jax.io.jsonl import BadRecords
from m3jax.mine.rerankers import Reranker
from m3jax.mine.resume import digest_of, resumable

CHUNK = 128  # examples; within one each distinct pair is scored once
DIGITS = 6  # after the point


class Scored(NamedTuple):
    """What was done."""

    examples: int
    pairs: int  # in the file
    kept: int  # examples whose scores stayed


def score_teacher(
    inputs: list[str],
    output: Path,
    reranker: Reranker,
    work: Path,
    *,
    keep: bool = False,
    with_prompt: bool = False,
    skip_bad: int = 0,
    tell: Callable[[int], None] = lambda done: None,
) -> Scored:
    """Writes the records with the teacher's scores to one file, in order.

    keep         records that have both scores keep them
    with_prompt  the teacher reads prompt and query, as the student does

    Raises FileExistsError where `output` is, ValueError for a score that is not finite.
    """
    if output.exists():
        raise FileExistsError(f"{output} already exists; name a new file or remove it first")
    bad = BadRecords(skip_bad)

    def records() -> Iterator[tuple[dict[str, Any], Example]]:
        for _, values, example in read_records_of(inputs, "examples", bad):
            yield values, example

    def score(chunk: list[tuple[dict[str, Any], Example]]) -> list[list[float] | None]:
        examples = [example for _, example in chunk]
        some = [None if keep and _has_scores(e) else _pairs(e, with_prompt) for e in examples]
        distinct = list(dict.fromkeys(pair for pairs in some for pair in pairs or ()))
        if not distinct:
            return [None] * len(chunk)
        known = dict(zip(distinct, map(_finite, reranker.score(distinct)), strict=True))
        return [None if pairs is None else [known[pair] for pair in pairs] for pairs in some]

    folder = work / f"scores-{digest_of([reranker.name, keep, with_prompt])}"
    chunks = resumable(records(), CHUNK, folder, lambda record: record[0], score)
    examples = pairs = kept = 0
    with new_file(output) as write:
        for chunk, scores in chunks:
            for (values, example), some in zip(chunk, scores, strict=True):
                line = _record(values, example, some)
                write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
                examples += 1
                pairs += len(some or ())
                kept += some is None
            tell(examples)
        if not examples:
            raise ValueError(f"{', '.join(inputs)}: there is no example to score")
    return Scored(examples, pairs, kept)


def _has_scores(example: Example) -> bool:
    negatives = example.negative_scores is not None or not example.negatives
    return example.positive_scores is not None and negatives


def _pairs(example: Example, with_prompt: bool) -> list[tuple[str, str]]:
    query = example.prompt + example.query if with_prompt else example.query
    return [(query, text) for text in (*example.positives, *example.negatives)]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the teacher gave {value} to a pair: damaged weights, or too few bits")
    return round(value, DIGITS)


def _record(values: dict[str, Any], example: Example, scores: list[float] | None) -> dict[str, Any]:
    values = dict(values)
    if scores is not None:
        count = len(example.positives)
        values |= {"pos_scores": scores[:count], "neg_scores": scores[count:]}
    # One file holds what several did: what their names said goes into the records.
    if example.source:
        values["source"] = example.source
    if not example.in_batch:
        values["in_batch"] = False
    return values
