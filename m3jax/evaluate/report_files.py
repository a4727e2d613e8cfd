"""Reports as JSON files, readable or packed.

    NAME.json       the report as `report.report_of` returns it, indented
    NAME.json.gz    packed, about 14 times smaller: for reports under version control

A packed report is compact JSON in gzip without name or time, so that equal reports are equal files.
It omits what repeats, and `read` restores it:

    protocols       each protocol once, without the fields of the query set; a result refers to it
                    by its position (`number`) and holds these fields itself
    by_language     null in a result of one language: its measures
    averages        of a query set, the interval alone: value and count are those of the result;
                    of a task with one query set, null: the level of that set
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m3jax.config import FORMER_NAMES
from m3jax.io.atomic import new_file
from m3jax.io.streams import open_chunks

READABLE, PACKED = "m3jax-results", "m3jax-results-packed"
OF_SET = ("corpus", "queries")  # protocol fields of the query set

Row = dict[str, Any]  # method -> level
Table = dict[str, dict[str, Any]]  # measure -> name -> row, or what is packed in its stead


def write(path: Path, report: dict[str, Any]) -> None:
    """Writes a report, packed where the name ends in .gz; replaces an older file."""
    if path.suffix == ".gz":
        text = json.dumps(pack(report), ensure_ascii=False, separators=(",", ":"))
    else:
        text = json.dumps(report, ensure_ascii=False, indent=1)
    with new_file(path, replace=True) as add:
        add(text + "\n")


def read(path: str | Path) -> dict[str, Any]:
    """The report of a file in either form.

    Raises FileNotFoundError, EOFError for damaged compression, ValueError for other contents.
    """
    report = json.loads(b"".join(open_chunks(str(path))))
    form = report.get("format") if isinstance(report, dict) else None
    if form not in (READABLE, PACKED):
        raise ValueError(f"{path} is not a report of `m3jax evaluate`")
    return _current_names(unpack(report) if form == PACKED else report)


def _current_names(value: Any) -> Any:
    """A report with the current names of methods in place of former ones, in keys and values."""
    if isinstance(value, dict):
        return {FORMER_NAMES.get(k, k): _current_names(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_current_names(item) for item in value]
    return FORMER_NAMES.get(value, value) if isinstance(value, str) else value


def pack(report: dict[str, Any]) -> dict[str, Any]:
    """The report without its repetitions; `unpack` is the inverse."""
    numbers: dict[str, int] = {}  # protocol as JSON -> position
    results = []
    for result in report["results"]:
        shared = {k: v for k, v in result["protocol"].items() if k not in OF_SET}
        number = numbers.setdefault(json.dumps(shared), len(numbers))
        of_set = {k: v for k, v in result["protocol"].items() if k in OF_SET}
        languages = result["by_language"]
        results.append(
            result
            | {"by_language": None if languages == _one_language(result) else languages}
            | {"protocol": of_set | {"number": number}}
        )
    of_results, levels = _by_set(report["results"]), report["averages"]

    def short(measure: str, name: str, method: str, level: Any) -> Any:
        same = level == _level(of_results[name, method], measure, level["interval"])
        return level["interval"] if same else level

    def short_task(measure: str, name: str, row: Row) -> Row | None:
        return None if row == _one_set(levels["sets"][measure].get(name, {})) else row

    sets = _map_levels(levels["sets"], short)
    return report | {
        "format": PACKED,
        "protocols": [json.loads(protocol) for protocol in numbers],
        "results": results,
        "averages": levels | {"sets": sets, "tasks": _map_rows(levels["tasks"], short_task)},
    }


def unpack(packed: dict[str, Any]) -> dict[str, Any]:
    """The report that was packed."""
    report = {k: v for k, v in packed.items() if k != "protocols"} | {"format": READABLE}
    report["results"] = []
    for result in packed["results"]:
        of_set = {k: v for k, v in result["protocol"].items() if k != "number"}
        shared = packed["protocols"][result["protocol"]["number"]]
        restored = result | {"protocol": of_set | shared}
        if result["by_language"] is None:
            restored["by_language"] = _one_language(result)
        report["results"].append(restored)
    of_results, levels = _by_set(report["results"]), packed["averages"]

    def full(measure: str, name: str, method: str, level: Any) -> Any:
        is_interval = isinstance(level, list)
        return _level(of_results[name, method], measure, level) if is_interval else level

    sets = _map_levels(levels["sets"], full)

    def full_task(measure: str, name: str, row: Row | None) -> Row:
        return _one_set(sets[measure][name]) if row is None else row

    report["averages"] = levels | {"sets": sets, "tasks": _map_rows(levels["tasks"], full_task)}
    return report


def _one_language(result: dict[str, Any]) -> dict[str, Any]:
    return {result["language"]: result["measures"]}


def _by_set(results: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Results by (set name, method), as `EvaluationResult.name` and `method`."""
    return {
        (":".join(part for part in (r["task"], r["query_set"]) if part), r["method"]): r
        for r in results
    }


def _level(result: dict[str, Any], measure: str, interval: list[float]) -> dict[str, Any]:
    """The average of a query set."""
    value = result["measures"][measure]
    return {"value": value, "interval": interval, "parts": result["queries"]}


def _one_set(row: Row) -> Row:
    """The averages of a task with one query set."""
    return {method: level | {"parts": 1} for method, level in row.items()}


def _map_rows(table: Table, change: Callable[[str, str, Any], Any]) -> Table:
    return {
        measure: {name: change(measure, name, row) for name, row in rows.items()}
        for measure, rows in table.items()
    }


def _map_levels(table: Table, change: Callable[[str, str, str, Any], Any]) -> Table:
    def change_row(measure: str, name: str, row: Row) -> Row:
        return {method: change(measure, name, method, level) for method, level in row.items()}

    return _map_rows(table, change_row)
