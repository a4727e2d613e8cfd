"""Stored TREC runs, measured against judgements and compared with each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3jax.evaluate.averages import as_json
from m3jax.evaluate.metrics import MEASURES, per_query
from m3jax.evaluate.report import format_p, grid
from m3jax.evaluate.significance import bootstrap_means, compare, interval
from m3jax.io.trec import read_qrels, read_run


def compare_runs(
    runs: Sequence[str | Path],
    qrels: str | Path,
    measures: Sequence[str] | None = None,
    count_missing: bool = True,
) -> dict[str, Any]:
    """Means with intervals of each run, and paired tests of each pair of runs.

    Runs have the names of their files. The tests are on the first measure. Judged queries that a
    run lacks count 0, or with `count_missing` False are left out; runs with different queries are
    not tested. Raises ValueError if none of a run's queries is judged.
    """
    judged = read_qrels(qrels)
    names = tuple(measures or MEASURES)
    rows: dict[str, Any] = {}
    values: dict[str, np.ndarray] = {}
    for path in runs:
        name = Path(path).name if Path(path).name not in rows else str(path)
        run = read_run(path)
        answered = sum(query in run for query in judged)
        if not answered:
            raise ValueError(f"{qrels} judges none of the {len(run)} queries of {path}")
        per_measure = per_query(judged, run, names, count_missing=count_missing)
        arrays = {m: np.array(list(per_measure[m].values()), np.float64) for m in names}
        values[name] = arrays[names[0]]
        rows[name] = {
            "queries": len(arrays[names[0]]),
            "missing": len(judged) - answered,
            "unjudged": len(run) - answered,
            "measures": {m: float(a.mean()) for m, a in arrays.items()},
            "intervals": {m: list(interval(bootstrap_means(a))) for m, a in arrays.items()},
            "per_query": per_measure,
        }
    same = len({tuple(row["per_query"][names[0]]) for row in rows.values()}) == 1
    pairs = compare(values) if same else []
    return {
        "format": "m3jax-stored-runs",
        "qrels": str(qrels),
        "missing_queries": "count 0" if count_missing else "left out",
        "ties": "as trec_eval: by document id, the greater first",
        "runs": rows,
        "comparisons": [as_json(pair) for pair in pairs],
    }


def comparison_table(comparison: dict[str, Any]) -> str:
    """The result of `compare_runs` as Markdown."""
    names = list(next(iter(comparison["runs"].values()))["measures"])
    rows = []
    for run, row in comparison["runs"].items():
        cells = [
            f"{100 * row['measures'][m]:.2f} [{100 * row['intervals'][m][0]:.1f}, "
            f"{100 * row['intervals'][m][1]:.1f}]"
            for m in names
        ]
        rows.append([run, *cells, str(row["queries"]), str(row["missing"]), str(row["unjudged"])])
    lines = grid(["run, in percent", *names, "queries", "missing", "unjudged"], rows)
    if comparison["comparisons"]:
        lines += ["", f"Paired tests on {names[0]}:", ""]
        lines += grid(
            ["runs", "difference", "p, randomisation", "p, Holm", "p, t-test"],
            [
                [
                    f"{c['a']} - {c['b']}",
                    f"{100 * c['difference']:+.2f}",
                    format_p(c["randomization_p"]),
                    format_p(c["holm_p"]),
                    format_p(c["t_p"]),
                ]
                for c in comparison["comparisons"]
            ],
        )
    lines += ["", f"Missing queries {comparison['missing_queries']}; ties {comparison['ties']}."]
    return "\n".join(lines) + "\n"
