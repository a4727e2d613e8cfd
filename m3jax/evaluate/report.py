"""Reports of results: JSON, Markdown tables with the paper's figures, and plots."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3jax.evaluate import averages, paper, report_files
from m3jax.evaluate.averages import Summary
from m3jax.evaluate.plots import draw
from m3jax.evaluate.results import EvaluationResult
from m3jax.io.atomic import replace_file
from m3jax.search.options import method_label

# Protocol fields listed at the end of a report, in this order.
SHARED = (
    *("model", "model_hash", "pooling", "query_prefix", "passage_prefix", "query_tokens"),
    *("passage_tokens", "cls_every", "compute_dtype", "stored_dtype", "top_k", "remove_self"),
    *("translations", "missing_queries", "ties", "title_join", "judged_by", "depths", "fusion"),
    *("compat", "versions", "machine"),
)


def write_report(
    output: Path,
    results: Sequence[EvaluationResult],
    name: str = "results",
    *,
    packed: bool = False,
) -> Summary:
    """Writes NAME.json, NAME.md and NAME.png to the directory `output`; returns the averages.

    With `packed` the JSON file is NAME.json.gz in the packed form of `report_files`. If tasks have
    different primary measures, those after the first are plotted to NAME.MEASURE.png. Raises
    ValueError without results.
    """
    if not results:
        raise ValueError("no results to report")
    summary = averages.summarise(results)
    report = report_of(results, summary)
    report_files.write(output / (f"{name}.json.gz" if packed else f"{name}.json"), report)
    with replace_file(output / f"{name}.md") as stream:
        stream.write(markdown(report))
    for number, measure in enumerate(primaries(results)):
        draw(output / (f"{name}.{measure}.png" if number else f"{name}.png"), summary, measure)
    return summary


def markdown(report: dict[str, Any]) -> str:
    """Tables of the primary measures and of the others, paired tests, and the protocol."""
    levels = report["averages"]
    first = list(dict.fromkeys(row["primary"] for row in report["results"]))
    lines = ["# Retrieval results", ""]
    for measure in first:
        lines += [f"## {measure}, in percent", ""]
        lines += _table(levels, measure, with_intervals=True)
        lines += _paper_comparison(levels, measure)
    others = [measure for measure in levels["tasks"] if measure not in first]
    if others:
        lines += ["## Other measures, in percent", ""]
        for measure in others:
            lines += [f"### {measure}", "", *_table(levels, measure, with_intervals=False)]
            lines += _paper_comparison(levels, measure)
    lines += _tests(report["comparisons"])
    lines += _notes(report["results"])
    return "\n".join(lines) + "\n"


def primaries(results: Sequence[EvaluationResult]) -> list[str]:
    """The distinct primary measures of the tasks."""
    return list(dict.fromkeys(result.primary for result in results))


def _table(levels: dict[str, Any], measure: str, with_intervals: bool) -> list[str]:
    all_sets, all_tasks = levels["sets"][measure], levels["tasks"][measure]
    families = levels["families"][measure]
    methods = _methods(all_sets)
    head = ["task", *(method_label(m) for m in methods)]
    rows = []
    for family, average in families.items():
        tasks = {
            name: row
            for name, row in all_tasks.items()
            if name == family or name.startswith(f"{family}/")
        }
        for task, row in tasks.items():
            sets = {n: r for n, r in all_sets.items() if n.startswith(f"{task}:")}
            if len(sets) > 1:
                rows += [[n, *_cells(r, methods, with_intervals)] for n, r in sets.items()]
            name = f"{task}, mean of {len(sets)} sets" if len(sets) > 1 else task
            rows.append([name, *_cells(row, methods, with_intervals)])
        if len(tasks) > 1:
            name = f"**{family}, mean of {len(tasks)} tasks**"
            rows.append([name, *_cells(average, methods, with_intervals)])
    if len(families) > 1:
        name = f"**mean of {len(families)} families**"
        rows.append([name, *_cells(levels["overall"][measure]["all"], methods, with_intervals)])
    return [*grid(head, rows), ""]


def _paper_comparison(levels: dict[str, Any], measure: str) -> list[str]:
    """These results and the paper's, for tasks that are benchmarks of the paper."""
    methods = _methods(levels["sets"][measure])
    all_tasks = levels["tasks"][measure]
    figures = {
        name: (row, functools.partial(paper.of_task, name), name) for name, row in all_tasks.items()
    }
    for name, row in levels["families"][measure].items():
        tasks = [task for task in all_tasks if task.startswith(f"{name}/")]
        theirs = functools.partial(paper.mean, name, tasks)
        figures.setdefault(name, (row, theirs, f"{name}, mean of {len(tasks)} tasks"))
    rows = []
    for row, figure, label in figures.values():
        for method in methods:
            theirs = figure(measure, method)
            if theirs is not None and method in row:
                ours = 100 * row[method]["value"]
                numbers = [f"{ours:.1f}", f"{theirs:.1f}", f"{ours - theirs:+.1f}"]
                rows.append([label, method_label(method), *numbers])
    if not rows:
        return []
    head = ["benchmark", "method", "ours", "paper", "difference"]
    return [f"Compared with the paper ({paper.CITATION}):", "", *grid(head, rows), ""]


def _tests(tests: dict[str, dict[str, Any]]) -> list[str]:
    rows = []
    for name, pairs in tests["families"].items():
        for test in pairs:
            a, b = (method_label(test[side]) for side in ("a", "b"))
            values = [format_p(test[p]) for p in ("randomization_p", "holm_p", "t_p")]
            rows.append([name, f"{a} - {b}", f"{100 * test['difference']:+.2f}", *values])
    if not rows:
        return []
    head = ["family", "methods", "difference", "p, randomisation", "p, Holm", "p, t-test"]
    note = "Each test pools the queries of a family; the JSON file has the tests of each query set."
    return ["## Paired tests on the primary measure", "", note, "", *grid(head, rows), ""]


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """The fields of the protocols with their distinct values, and the warnings."""
    lines = ["## Protocol", ""]
    protocols = [row["protocol"] for row in rows]
    for key in SHARED:
        values = dict.fromkeys(
            json.dumps(protocol[key], ensure_ascii=False)
            for protocol in protocols
            if key in protocol
        )
        if values:
            lines.append(f"- {key}: {'; '.join(values)}")
    for key in ("bm25", "weights"):
        seen: dict[str, list[str]] = {}
        for row in rows:
            if key in row["protocol"]:
                text = json.dumps(row["protocol"][key])
                seen.setdefault(text, []).append(f"{row['family']} {row['method']}")
        for text, where in seen.items():
            lines.append(f"- {key}: {text} ({', '.join(dict.fromkeys(where))})")
    sampled = sum(protocol["queries"]["sampled_from"] is not None for protocol in protocols)
    if sampled:
        lines.append(f"- queries: {sampled} of {len(rows)} results are on a fixed random sample")
    lines.append(
        "- intervals: 95 % percentile bootstrap over queries, 1,000 resamplings, sets independent"
    )
    warnings = dict.fromkeys(w for protocol in protocols for w in protocol["warnings"])
    lines += [f"- warning: {warning}" for warning in warnings]
    return [*lines, "", "## The paper's averages, in percent", "", *_paper_table()]


def _paper_table() -> list[str]:
    head = ["benchmark", *(method_label(m) for m in paper.METHODS)]
    rows = [
        [f"{benchmark} {measure}", *("-" if v is None else f"{v:.1f}" for v in values)]
        for (benchmark, measure), values in paper.AVERAGES.items()
    ]
    return [*grid(head, rows), "", f"{paper.CITATION}. BM25 over the tokens of XLM-R."]


def report_of(results: Sequence[EvaluationResult], summary: Summary) -> dict[str, Any]:
    """The report as a JSON value: results, averages, means by language, paired tests."""
    levels = {
        "sets": summary.sets,
        "tasks": summary.tasks,
        "families": summary.families,
        "overall": summary.overall,
    }
    published = [
        {"benchmark": benchmark, "measure": measure} | dict(zip(paper.METHODS, values, strict=True))
        for (benchmark, measure), values in paper.AVERAGES.items()
    ]
    return {
        "format": report_files.READABLE,
        "version": 1,
        "results": [_row_of(result) for result in results],
        "averages": {name: _table_of(table) for name, table in levels.items()},
        "by_language": averages.by_language(results),
        "comparisons": averages.comparisons(results),
        "paper": {"citation": paper.CITATION, "averages": published},
    }


def _row_of(result: EvaluationResult) -> dict[str, Any]:
    return {
        "task": result.task,
        "family": result.family,
        "query_set": result.query_set,
        "language": result.language,
        "method": result.method,
        "primary": result.primary,
        "queries": len(result.queries),
        "measures": result.measures,
        "by_language": result.by_language,
        "seconds": result.seconds,
        "protocol": result.protocol,
    }


def _table_of(table: averages.Table) -> dict[str, Any]:
    return {
        measure: {
            name: {method: level.as_json() for method, level in row.items()}
            for name, row in rows.items()
        }
        for measure, rows in table.items()
    }


def _methods(table: dict[str, dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(method for row in table.values() for method in row)
    return sorted(names, key=lambda m: paper.METHODS.index(m) if m in paper.METHODS else 99)


def _cells(row: dict[str, Any], methods: list[str], with_intervals: bool) -> list[str]:
    cells = []
    for method in methods:
        if method not in row:
            cells.append("-")
            continue
        level = row[method]
        low, high = level["interval"]
        around = f" [{100 * low:.1f}, {100 * high:.1f}]" if with_intervals else ""
        cells.append(f"{100 * level['value']:.1f}{around}")
    return cells


def grid(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table; columns after the first are right-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def format_p(value: float | None) -> str:
    """A p-value with three digits; "-" for None."""
    return "-" if value is None else ("< 0.001" if value < 0.001 else f"{value:.3f}")
