"""Results as JSON, as Markdown tables with the paper's beside them, and as a plot."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3jax.evaluate import averages, paper
from m3jax.evaluate.averages import Summary
from m3jax.evaluate.plots import draw
from m3jax.evaluate.protocol import METHOD_NAMES
from m3jax.evaluate.results import Result
from m3jax.evaluate.trec import writing

SHARED = ("model", "model_hash", "pooling", "query_prefix", "passage_prefix", "query_tokens",
          "passage_tokens", "cls_every", "compute_dtype", "stored_dtype", "top_k", "remove_self",
          "translations", "missing_queries", "ties", "title_join", "judged_by", "depths", "fusion",
          "compat", "versions", "machine")  # fmt: skip


def write_report(output: Path, results: Sequence[Result], name: str = "results") -> Summary:
    """Writes NAME.json, NAME.md and NAME.png to `output` and returns the averages.

    Where tasks differ in their first measure, every other one has a plot NAME.MEASURE.png.
    """
    if not results:
        raise ValueError("no result to report")
    summary = averages.summarise(results)
    tests = averages.comparisons(results)
    with writing(output / f"{name}.json") as stream:
        json.dump(_document(results, summary, tests), stream, indent=1, ensure_ascii=False)
        stream.write("\n")
    with writing(output / f"{name}.md") as stream:
        stream.write(markdown(results, summary, tests))
    for number, measure in enumerate(primaries(results)):
        draw(output / (f"{name}.{measure}.png" if number else f"{name}.png"), summary, measure)
    return summary


def markdown(results: Sequence[Result], summary: Summary, tests: dict[str, Any]) -> str:
    """Tables of the primary measure by task, family and over all; of the other measures; notes."""
    lines = ["# Retrieval results", ""]
    for measure in primaries(results):
        lines += [f"## {measure}, in percent", ""]
        lines += _table(summary, measure, with_intervals=True)
        lines += _beside_paper(summary, measure)
    others = [m for m in summary.tasks if m not in primaries(results)]
    if others:
        lines += ["## Other measures, in percent", ""]
        for measure in others:
            lines += [f"### {measure}", "", *_table(summary, measure, with_intervals=False)]
            lines += _beside_paper(summary, measure)
    lines += _tests(tests)
    lines += _notes(results)
    return "\n".join(lines) + "\n"


def primaries(results: Sequence[Result]) -> list[str]:
    """The first measures of the tasks, each once."""
    return list(dict.fromkeys(result.primary for result in results))


def _table(summary: Summary, measure: str, with_intervals: bool) -> list[str]:
    methods = _methods(summary.sets[measure])
    head = ["task", *(METHOD_NAMES.get(m, m) for m in methods)]
    rows = []
    for family, average in summary.families[measure].items():
        tasks = {
            name: row
            for name, row in summary.tasks[measure].items()
            if name == family or name.startswith(f"{family}/")
        }
        for task, row in tasks.items():
            sets = {n: r for n, r in summary.sets[measure].items() if n.startswith(f"{task}:")}
            if len(sets) > 1:
                rows += [[n, *_cells(r, methods, with_intervals)] for n, r in sets.items()]
            name = f"{task}, mean of {len(sets)} sets" if len(sets) > 1 else task
            rows.append([name, *_cells(row, methods, with_intervals)])
        if len(tasks) > 1:
            name = f"**{family}, mean of {len(tasks)} tasks**"
            rows.append([name, *_cells(average, methods, with_intervals)])
    if len(summary.families[measure]) > 1:
        name = f"**mean of {len(summary.families[measure])} families**"
        rows.append([name, *_cells(summary.overall[measure]["all"], methods, with_intervals)])
    return [*grid(head, rows), ""]


def _beside_paper(summary: Summary, measure: str) -> list[str]:
    """Ours and the paper's figures, where a task is one of the paper's benchmarks."""
    methods = _methods(summary.sets[measure])
    figures = {name: (row, functools.partial(paper.of_task, name), name)
               for name, row in summary.tasks[measure].items()}  # fmt: skip
    for name, row in summary.families[measure].items():
        tasks = [task for task in summary.tasks[measure] if task.startswith(f"{name}/")]
        theirs = functools.partial(paper.mean, name, tasks)
        figures.setdefault(name, (row, theirs, f"{name}, mean of {len(tasks)} tasks"))
    rows = []
    for row, figure, label in figures.values():
        for method in methods:
            theirs = figure(measure, method)
            if theirs is not None and method in row:
                ours = 100 * row[method].value
                rows.append([label, METHOD_NAMES.get(method, method), f"{ours:.1f}",
                             f"{theirs:.1f}", f"{ours - theirs:+.1f}"])  # fmt: skip
    if not rows:
        return []
    head = ["benchmark", "method", "ours", "paper", "difference"]
    return [f"Beside the paper ({paper.CITATION}):", "", *grid(head, rows), ""]


def _tests(tests: dict[str, dict[str, Any]]) -> list[str]:
    rows = [
        [name, f"{METHOD_NAMES.get(t['a'], t['a'])} - {METHOD_NAMES.get(t['b'], t['b'])}",
         f"{100 * t['difference']:+.2f}", format_p(t["randomization_p"]), format_p(t["holm_p"]),
         format_p(t["t_p"])]
        for name, pairs in tests["families"].items() for t in pairs
    ]  # fmt: skip
    if not rows:
        return []
    head = ["family", "methods", "difference", "p, randomisation", "p, Holm", "p, t-test"]
    note = "Over the queries of all tasks of a family; by query set in the JSON file."
    return ["## Paired tests on the first measure", "", note, "", *grid(head, rows), ""]


def _notes(results: Sequence[Result]) -> list[str]:
    """The protocol: what all results share, what differs, and what went amiss."""
    lines = ["## Protocol", ""]
    for key in SHARED:
        values = {json.dumps(r.protocol[key], ensure_ascii=False): 1 for r in results
                  if key in r.protocol}  # fmt: skip
        if values:
            lines.append(f"- {key}: {'; '.join(values)}")
    for key in ("bm25", "weights"):
        seen: dict[str, list[str]] = {}
        for result in results:
            if key in result.protocol:
                text = json.dumps(result.protocol[key])
                seen.setdefault(text, []).append(f"{result.family} {result.method}")
        for text, where in seen.items():
            lines.append(f"- {key}: {text} ({', '.join(dict.fromkeys(where))})")
    sampled = sum(r.protocol["queries"]["sampled_from"] is not None for r in results)
    if sampled:
        lines.append(f"- queries: {sampled} of {len(results)} results are on a fixed random sample")
    lines.append(
        "- intervals: 95 % percentile bootstrap over queries, 1,000 resamplings, sets independent"
    )
    warnings = dict.fromkeys(w for result in results for w in result.protocol["warnings"])
    lines += [f"- warning: {warning}" for warning in warnings]
    return [*lines, "", "## The paper's averages, in percent", "", *_paper_table()]


def _paper_table() -> list[str]:
    head = ["benchmark", *(METHOD_NAMES[m] for m in paper.METHODS)]
    rows = [
        [f"{benchmark} {measure}", *("-" if v is None else f"{v:.1f}" for v in values)]
        for (benchmark, measure), values in paper.AVERAGES.items()
    ]
    return [*grid(head, rows), "", f"{paper.CITATION}. BM25 over the tokens of XLM-R."]


def _document(results: Sequence[Result], summary: Summary, tests: dict[str, Any]) -> dict[str, Any]:
    levels = {"sets": summary.sets, "tasks": summary.tasks, "families": summary.families,
              "overall": summary.overall}  # fmt: skip
    return {
        "format": "m3jax-results",
        "version": 1,
        "results": [
            {"task": r.task, "family": r.family, "query_set": r.query_set, "language": r.language,
             "method": r.method, "primary": r.primary, "queries": len(r.queries),
             "measures": r.measures, "by_language": r.by_language, "seconds": r.seconds,
             "protocol": r.protocol}
            for r in results
        ],
        "averages": {
            name: {
                measure: {part: {m: v.as_json() for m, v in row.items()}
                          for part, row in rows.items()}
                for measure, rows in table.items()
            }
            for name, table in levels.items()
        },
        "by_language": averages.by_language(results),
        "comparisons": tests,
        "paper": {
            "citation": paper.CITATION,
            "averages": [{"benchmark": b, "measure": m, **dict(zip(paper.METHODS, v, strict=True))}
                         for (b, m), v in paper.AVERAGES.items()],
        },
    }  # fmt: skip


def _methods(table: dict[str, dict[str, Any]]) -> list[str]:
    found = dict.fromkeys(method for row in table.values() for method in row)
    return sorted(found, key=lambda m: paper.METHODS.index(m) if m in paper.METHODS else 99)


def _cells(row: dict[str, Any], methods: list[str], with_intervals: bool) -> list[str]:
    cells = []
    for method in methods:
        if method not in row:
            cells.append("-")
            continue
        level = row[method].as_json()
        low, high = level["interval"]
        around = f" [{100 * low:.1f}, {100 * high:.1f}]" if with_intervals else ""
        cells.append(f"{100 * level['value']:.1f}{around}")
    return cells


def grid(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def format_p(value: float | None) -> str:
    """A p-value with three digits; "-" where the test is not defined."""
    return "-" if value is None else ("< 0.001" if value < 0.001 else f"{value:.3f}")
