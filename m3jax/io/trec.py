"""TREC files: runs and relevance judgements (qrels).

run     six columns: query, Q0, document, rank, score, tag; one line per hit, ranks from 1
qrels   TREC's four columns: query, 0, document, grade; or BEIR's three under a header line
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from m3jax.io.atomic import replace_file
from m3jax.io.jsonl import numbered_lines

Qrels = dict[str, dict[str, int]]  # query id -> document id -> grade
Run = dict[str, dict[str, float]]  # query id -> document id -> score


def write_run(
    path: Path,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    hits: tuple[Sequence[Int[np.ndarray, " _"]], Sequence[Float[np.ndarray, " _"]]],
    tag: str,
) -> int:
    """Writes a run atomically and returns its number of lines.

    `hits` holds two lists with one array per query: positions in `document_ids`, best first, and
    their scores. Evaluators sort by score and break ties in different orders. A score
    that is not below the one before it is therefore written one float32 step lower, so that every
    evaluator sees this ranking. Raises ValueError for an id or a tag that is empty or has white
    space, which the format cannot hold.
    """
    for name in (tag, *query_ids):
        _check_word(name)
    lines = 0
    with replace_file(path) as stream:
        for query, numbers, values in zip(query_ids, *hits, strict=True):
            for rank, (number, score) in enumerate(
                zip(numbers, _strictly_falling(values), strict=True), start=1
            ):
                document = _check_word(document_ids[int(number)])
                stream.write(f"{query} Q0 {document} {rank} {float(score)!r} {tag}\n")
                lines += 1
    return lines


def read_run(path: str | Path) -> Run:
    """Reads the scores of a run; ranks in the file are ignored, as trec_eval does.

    Raises FileNotFoundError, or ValueError naming file and line.
    """
    run: Run = {}
    for number, line in numbered_lines(str(path)):
        columns = _columns(line)
        if not columns:
            continue
        if len(columns) != 6:
            raise ValueError(
                f"{path}:{number}: a TREC run has 6 columns (query Q0 document rank score tag), "
                f"got {len(columns)}"
            )
        query, document, score = columns[0], columns[2], columns[4]
        if document in run.setdefault(query, {}):
            raise ValueError(
                f"{path}:{number}: {document!r} occurs twice in the results of {query!r}"
            )
        run[query][document] = _finite(score, f"{path}:{number}")
    if not run:
        raise ValueError(f"{path} holds no result")
    return run


def read_qrels(path: str | Path) -> Qrels:
    """Reads relevance judgements, in TREC's or BEIR's form.

    Raises ValueError naming the line that cannot be read, or that judges a document of a query a
    second time with another grade.
    """
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


def _strictly_falling(scores: Float[np.ndarray, " _"]) -> Iterable[np.float32]:
    previous = np.float32(np.inf)
    for score in scores.astype(np.float32):
        previous = min(score, np.nextafter(previous, np.float32(-np.inf)))
        yield previous


def _columns(line: str) -> list[str]:
    """Columns are separated by tabs if the line has any, else by white space."""
    line = line.strip("\r\n")
    return [c.strip() for c in line.split("\t")] if "\t" in line else line.split()


def _finite(text: str, place: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{place}: a score must be a finite number, got {text!r}")
    return score


def _check_word(name: str) -> str:
    if not name or len(name.split()) != 1 or name != name.strip():
        raise ValueError(f"a TREC run cannot hold the id {name!r}: it is empty or has white space")
    return name
