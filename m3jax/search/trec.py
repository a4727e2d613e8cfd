"""Runs and relevance judgements as files.

A run: `query Q0 document rank score tag`, one line a hit, ranks from 1. Judgements: TREC's
`query 0 document grade`, or BEIR's three tab-separated columns under a header.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from m3jax.search.hits import Hits
from m3jax.text.records import numbered_lines

Qrels = dict[str, dict[str, int]]


def write_run(
    path: Path, query_ids: Sequence[str], document_ids: Sequence[str], hits: Hits, tag: str
) -> int:
    """Writes a run, whole or not at all; returns the number of lines.

    Evaluators sort by score and break ties in orders of their own: where a score does not fall
    below the one before, it is written one float32 step lower, so that every one of them keeps
    this ranking. Raises ValueError for an id or a tag with white space, which the format lacks.
    """
    for name in (tag, *query_ids):
        _one_word(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    lines = 0
    try:
        with open(scratch, "w", encoding="utf-8") as stream:
            for query, documents, scores in zip(
                query_ids, hits.documents, hits.scores, strict=True
            ):
                for rank, (number, score) in enumerate(
                    zip(documents, _falling(scores), strict=True), 1
                ):
                    document = _one_word(document_ids[int(number)])
                    stream.write(f"{query} Q0 {document} {rank} {float(score)!r} {tag}\n")
                    lines += 1
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return lines


def read_qrels(path: str | Path) -> Qrels:
    """query id -> document id -> grade; ValueError names the line that cannot be read
    or that judges a document a second time, and differently."""
    grades: Qrels = {}
    for number, line in numbered_lines(str(path)):
        row = line.rstrip("\r\n")
        if not row.strip():
            continue
        columns = row.split("\t") if "\t" in row else row.split()
        if len(columns) == 4:
            columns = [columns[0], columns[2], columns[3]]
        try:
            query, document, grade = columns
            value = float(grade)
            if not math.isfinite(value) or value != int(value):
                raise ValueError
        except ValueError:
            if number == 1 and len(columns) == 3:  # BEIR's header
                continue
            raise ValueError(
                f"{path}:{number}: expected `query document grade` or `query 0 document grade`, "
                f"grades whole numbers, got {row!r}"
            ) from None
        if grades.setdefault(query, {}).setdefault(document, int(value)) != int(value):
            raise ValueError(
                f"{path}:{number}: {document!r} is judged twice for query {query!r}, as "
                f"{grades[query][document]} and {grade}"
            )
    if not grades:
        raise ValueError(f"{path} holds no judgements")
    return grades


def _falling(scores: np.ndarray) -> Iterable[np.float32]:
    before = np.float32(np.inf)
    for score in scores.astype(np.float32):
        before = min(score, np.nextafter(before, np.float32(-np.inf)))
        yield before


def _one_word(name: str) -> str:
    if not name or len(name.split()) != 1 or name != name.strip():
        raise ValueError(f"a TREC run cannot hold the id {name!r}: it is empty or has white space")
    return name
