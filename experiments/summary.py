"""The family means of all reports in results/, which README and the model card show.

    python experiments/summary.py

Writes results/summary.json from results/*.json.gz (`m3jax.evaluate.report_files.read` reads these).
Every experiment that writes a report does the same at its end.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3jax.evaluate import report_files
from m3jax.evaluate.report import write_report
from m3jax.evaluate.results import Result

RESULTS = Path(__file__).parent / "results"
MEASURE = "nDCG@10"


def keep_report(folder: Path, results: Sequence[Result], name: str) -> None:
    """Writes NAME.json.gz, NAME.md, NAME.png and the summary of all reports in the folder."""
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
    """Family -> method -> mean over query sets, in percent; each set counts the same."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in report["results"]:
        methods = values.setdefault(row["family"], {})
        methods.setdefault(row["method"], []).append(100 * row["measures"][MEASURE])
    return {
        family: {method: round(sum(found) / len(found), 4) for method, found in methods.items()}
        for family, methods in values.items()
    }


if __name__ == "__main__":
    write_summary(RESULTS)
