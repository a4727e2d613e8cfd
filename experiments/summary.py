"""The means by family of all reports in results/, shown in README and the model card.

    python experiments/summary.py

Writes results/summary.json from results/*.json.gz (read by `m3jax.evaluate.report_files.read`).
Every experiment that writes a report also updates the summary.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from settings import RESULTS

from m3jax.evaluate import report_files
from m3jax.evaluate.report import write_report
from m3jax.evaluate.results import EvaluationResult

MEASURE = "nDCG@10"


def keep_report(folder: Path, results: Sequence[EvaluationResult], name: str) -> None:
    """Writes NAME.json.gz, NAME.md, NAME.png and the summary of all reports in `folder`."""
    write_report(folder, results, name, packed=True)
    write_summary(folder)


def write_summary(folder: Path) -> None:
    """Writes summary.json: report -> family -> method -> mean over the family's query sets."""
    means = {
        path.name.removesuffix(".json.gz"): family_means(report_files.read(path))
        for path in sorted(folder.glob("*.json.gz"))
    }
    text = json.dumps({"measure": MEASURE, "unit": "percent", "reports": means}, indent=1)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def family_means(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Family -> method -> mean over query sets, in percent."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in report["results"]:
        methods = values.setdefault(row["family"], {})
        methods.setdefault(row["method"], []).append(100 * row["measures"][MEASURE])
    return {
        family: {method: round(sum(row) / len(row), 4) for method, row in methods.items()}
        for family, methods in values.items()
    }


if __name__ == "__main__":
    write_summary(RESULTS)
