"""Runs and relevance judgements on disk, in the formats that every evaluation tool reads.

run     TREC, six columns: query, Q0, document, rank, score, tag
qrels   TREC, four columns: query, 0, document, grade; or BEIR's three with a header line
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from m3jax.search.trec import Qrels
from m3jax.text.records import numbered_lines

Run = dict[str, dict[str, float]]  # query -> document -> score


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
