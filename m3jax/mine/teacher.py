"""Fills `pos_scores` and `neg_scores` of training files with a teacher's scores, for distillation.

Scores are stored chunk by chunk in the working directory: an interrupted run resumes and gives the
same output as an uninterrupted one.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.data.examples import Example, Paths, example_files, read_records_of
from m3jax.io.atomic import new_file
from m3jax.io.jsonl import BadRecords
from m3jax.mine.records import record_line
from m3jax.mine.rerankers import Reranker
from m3jax.mine.resume import json_digest, resumable

CHUNK = 128  # examples; within a chunk each distinct pair is scored once
DECIMALS = 6  # of a score

ScoredRecord = tuple[dict[str, Any], Example]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """Which pairs are scored, and how."""

    keep_scores: bool = False  # records that have both scores keep them
    with_prompt: bool = False  # the teacher reads prompt and query, as the student does
    skip_bad: int = 0  # invalid records that are skipped before one is an error


class TeacherResult(NamedTuple):
    """Number of examples, of scored pairs, and of examples that kept their scores."""

    examples: int
    pairs: int
    kept: int


def score_teacher(
    inputs: Paths,
    output: Path | str,
    reranker: Reranker,
    options: TeacherOptions | None = None,
    *,
    workdir: Path | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> TeacherResult:
    """Writes the records of training files, in order, to one file with the teacher's scores.

    inputs    files, directories and globs of {"query", "pos", "neg"} records
    output    a new JSON Lines file, compressed if its name ends in .gz or .zst
    workdir   finished chunks (default: OUTPUT.work)
    progress  called with the number of finished examples

    Raises FileExistsError if `output` exists, ValueError for an invalid record, for inputs without
    examples and for a score that is not finite.
    """
    options, output = options or TeacherOptions(), Path(output)
    if output.exists():
        raise FileExistsError(f"{output} already exists; name a new file or remove it first")
    workdir = Path(f"{output}.work" if workdir is None else workdir)
    files = example_files(inputs)
    settings = [reranker.name, options.keep_scores, options.with_prompt]
    chunks = resumable(
        _records(files, BadRecords(options.skip_bad)),
        CHUNK,
        workdir / f"scores-{json_digest(settings)}",
        identity=lambda record: record[0],
        compute=lambda chunk: _score_chunk(chunk, reranker, options),
    )
    examples = pairs = kept = 0
    with new_file(output) as write:
        for chunk, scores in chunks:
            for (record, example), values in zip(chunk, scores, strict=True):
                write(record_line(_with_scores(record, example, values), example))
                examples += 1
                pairs += len(values or ())
                kept += values is None
            if progress:
                progress(examples)
        if not examples:
            raise ValueError(f"{', '.join(map(str, files))}: there is no example to score")
    return TeacherResult(examples, pairs, kept)


def _records(files: list[Path], bad: BadRecords) -> Iterator[ScoredRecord]:
    for _, record, example in read_records_of(files, "examples", bad):
        yield record, example


def _score_chunk(
    chunk: list[ScoredRecord], reranker: Reranker, options: TeacherOptions
) -> list[list[float] | None]:
    """The scores of each example's pairs; None for examples that keep theirs."""
    pairs = [
        None
        if options.keep_scores and _has_scores(example)
        else _pairs(example, options.with_prompt)
        for _, example in chunk
    ]
    distinct = list(dict.fromkeys(pair for group in pairs for pair in group or ()))
    if not distinct:
        return [None] * len(chunk)
    score_of = dict(zip(distinct, map(_rounded, reranker.score(distinct)), strict=True))
    return [None if group is None else [score_of[pair] for pair in group] for group in pairs]


def _has_scores(example: Example) -> bool:
    negatives = example.negative_scores is not None or not example.negatives
    return example.positive_scores is not None and negatives


def _pairs(example: Example, with_prompt: bool) -> list[tuple[str, str]]:
    query = example.prompt + example.query if with_prompt else example.query
    return [(query, text) for text in (*example.positives, *example.negatives)]


def _rounded(score: float) -> float:
    if not math.isfinite(score):
        raise ValueError(
            f"the teacher gave the score {score}: its weights are damaged, or its dtype overflows"
        )
    return round(score, DECIMALS)


def _with_scores(
    record: dict[str, Any], example: Example, scores: list[float] | None
) -> dict[str, Any]:
    if scores is None:
        return record
    count = len(example.positives)
    return record | {"pos_scores": scores[:count], "neg_scores": scores[count:]}
