"""Retrieval measures, computed by trec_eval (through ir-measures and pytrec_eval).

trec_eval sorts a query's documents by score in single precision and breaks ties by document id in
descending order. Rankings of this package get strictly decreasing scores (`as_run`), so that ties
do not occur; a run read from a file is measured as by trec_eval.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from m3jax.io.trec import Qrels, Run

MEASURES = ("nDCG@10", "Recall@20", "Recall@100", "MRR@10", "MAP")
# Names of the papers -> names of ir-measures, which has many more (P@5, Rprec, Success@1).
_SPELLING = {"recall": "R", "mrr": "RR", "map": "AP"}

PerQuery = dict[str, dict[str, float]]  # measure -> query -> value


def per_query(
    qrels: Qrels,
    run: Mapping[str, Mapping[str, float]],
    measures: Sequence[str] = MEASURES,
    *,
    count_missing: bool = True,
) -> PerQuery:
    """The value of each measure for each judged query.

    A judged query that is missing from the run counts 0, as with trec_eval's option -c; without
    `count_missing` it is left out, which is trec_eval's default. A query of the run without
    documents counts 0. Queries without judgements are ignored. Raises ValueError for an unknown
    measure.
    """
    parsed = {name: _parse(name) for name in measures}
    kept = [query for query in qrels if count_missing or query in run]
    values: PerQuery = {name: dict.fromkeys(kept, 0.0) for name in measures}
    answered = {query: dict(run[query]) for query in kept if run.get(query)}
    if not answered:
        return values
    evaluator = _ir_measures().pytrec_eval.evaluator(
        sorted({metric for metric, _ in parsed.values()}, key=str),
        {query: qrels[query] for query in answered},
    )
    names = {}
    for name, (metric, cutoff) in parsed.items():
        names.setdefault(metric, []).append((name, cutoff))
    for value in evaluator.iter_calc(answered):
        for name, cutoff in names[value.measure]:
            # A reciprocal rank below 1 / k belongs to a rank beyond k.
            beyond = cutoff is not None and value.value < 1 / cutoff - 1e-12
            values[name][value.query_id] = 0.0 if beyond else float(value.value)
    return values


def means(values: PerQuery) -> dict[str, float]:
    """The mean over queries of each measure; 0 without queries."""
    return {
        name: float(np.mean(list(queries.values()))) if queries else 0.0
        for name, queries in values.items()
    }


def as_run(rankings: Iterable[tuple[str, Sequence[str]]]) -> Run:
    """Rankings (query, documents best first) as a run with strictly decreasing scores."""
    return {
        query: {document: float(len(documents) - rank) for rank, document in enumerate(documents)}
        for query, documents in rankings
    }


def _parse(name: str) -> tuple[Any, int | None]:
    """The measure that trec_eval computes, and the rank at which it is cut here, or None."""
    ir_measures = _ir_measures()
    head, at, cutoff = name.partition("@")
    spelling = _SPELLING.get(head.lower(), head)
    cut = spelling == "RR" and at  # trec_eval has only the reciprocal rank without a cutoff
    try:
        measure = ir_measures.parse_measure(spelling if cut else spelling + at + cutoff)
        if cut and not re.fullmatch(r"[1-9]\d*", cutoff):
            raise ValueError(cutoff)
    except (ValueError, NameError, SyntaxError, KeyError) as error:
        raise ValueError(
            f"unknown measure {name!r}; for example {', '.join(MEASURES)}, P@5, Success@1"
        ) from error
    if not ir_measures.pytrec_eval.supports(measure):
        raise ValueError(f"measure {name!r} is not computed by trec_eval")
    return measure, int(cutoff) if cut else None


def _ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise ImportError(
            "evaluation needs ir-measures and pytrec_eval: pip install 'm3jax[evaluate]'"
        ) from error
    return ir_measures
