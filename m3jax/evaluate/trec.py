"""Runs and relevance judgements on disk, in the formats that every evaluation tool reads.

run     TREC, six columns: query, Q0, document, rank, score, tag
qrels   TREC, four columns: query, 0, document, grade; or BEIR's three with a header line
"""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from m3jax.text.records import numbered_lines

Qrels = dict[str, dict[str, int]]  # query -> document -> grade; relevant from 1
Run = dict[str, dict[str, float]]  # query -> document -> score
Ranking = Sequence[tuple[str, float]]  # (document, score), best first


def read_qrels(path: str | Path) -> Qrels:
    """Grades by query and document, from a TREC file (4 columns) or BEIR's tsv (3, header line).

    Raises FileNotFoundError, or ValueError naming file and line: another number of columns, a
    grade that is no whole number, a pair judged twice with different grades.
    """
    qrels: Qrels = {}
    for number, line in numbered_lines(str(path)):
        fields = _fields(line)
        if not fields or (number == 1 and len(fields) == 3 and not _is_whole(fields[2])):
            continue
        if len(fields) not in (3, 4):
            raise ValueError(
                f"{path}:{number}: expected 3 columns (query, document, grade) or TREC's 4, "
                f"got {len(fields)}"
            )
        query, document, grade = fields[0], fields[-2], fields[-1]
        if not _is_whole(grade):
            raise ValueError(f"{path}:{number}: a grade must be a whole number, got {grade!r}")
        known = qrels.setdefault(query, {})
        if known.setdefault(document, int(float(grade))) != int(float(grade)):
            raise ValueError(
                f"{path}:{number}: {document!r} is judged twice for query {query!r}, as "
                f"{known[document]} and {grade}"
            )
    if not qrels:
        raise ValueError(f"{path} holds no judgement")
    return qrels


def read_run(path: str | Path) -> Run:
    """Scores by query and document; ranks in the file are ignored, as trec_eval does.

    Raises FileNotFoundError, or ValueError naming file and line.
    """
    run: Run = {}
    for number, line in numbered_lines(str(path)):
        fields = _fields(line)
        if not fields:
            continue
        if len(fields) != 6:
            raise ValueError(
                f"{path}:{number}: a TREC run has 6 columns (query Q0 document rank score tag), "
                f"got {len(fields)}"
            )
        query, document, score = fields[0], fields[2], fields[4]
        if document in run.setdefault(query, {}):
            raise ValueError(
                f"{path}:{number}: {document!r} stands twice in the results of {query!r}"
            )
        run[query][document] = _score(score, f"{path}:{number}")
    if not run:
        raise ValueError(f"{path} holds no result")
    return run


def write_run(path: str | Path, rankings: Iterable[tuple[str, Ranking]], tag: str) -> None:
    """Writes (query, ranking) pairs as a TREC run, whole or not at all."""
    tag = _word(tag or "m3jax", "a run's tag")
    with writing(path) as stream:
        for query, ranking in rankings:
            _word(query, "a query's id")
            for rank, (document, score) in enumerate(ranking, start=1):
                _word(document, "a document's id")
                stream.write(f"{query} Q0 {document} {rank} {score:.9g} {tag}\n")


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Writes judgements in TREC's four columns, whole or not at all."""
    with writing(path) as stream:
        for query, documents in qrels.items():
            for document, grade in documents.items():
                stream.write(f"{_word(query, 'a query')}\t0\t{_word(document, 'a document')}\t")
                stream.write(f"{grade}\n")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[TextIO]:
    """A text stream that becomes `path` when the block ends well, and nothing otherwise."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(scratch, "w", encoding="utf-8") as stream:
            yield stream
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def _fields(line: str) -> list[str]:
    """Columns are set apart by tabs where there are any, else by white space."""
    line = line.strip("\r\n")
    return [f.strip() for f in line.split("\t")] if "\t" in line else line.split()


def _is_whole(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False


def _score(text: str, place: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{place}: a score must be a finite number, got {text!r}")
    return score


def _word(text: str, what: str) -> str:
    if not text or text.split() != [text]:
        raise ValueError(f"{what} may not be empty or hold white space in a TREC file: {text!r}")
    return text
