"""README and the model card show the numbers of experiments/results, whose files agree."""

import json
from collections import defaultdict

import pytest
from support.doc_blocks import ROOT

from m3jax.config import FORMER_NAMES
from m3jax.evaluate import report_files
from m3jax.evaluate.report import markdown

RESULTS = ROOT / "experiments" / "results"
CARD = ROOT / "m3jax" / "assets" / "m3-mini" / "README.md"
HEAD = "| | BM25 | mE5-small | dense | sparse | multi-vector | all |"
METHODS = ("bm25", "mE5-small", "dense", "sparse", "colbert", "all")
TABLES = ["table2_multilingual", "table3_crosslingual"]
FAMILIES = ("xquad", "qa", "help", "xquad-x", "xqa", "help-x", "tatoeba")  # a row each
REPORTS = [*TABLES, "union", "union_strict", "table4_longdoc", "baselines"]


def summary():
    """Report -> family -> method -> mean nDCG@10 in percent over the query sets."""
    found = json.loads((RESULTS / "summary.json").read_text(encoding="utf-8"))
    assert (found["measure"], found["unit"]) == ("nDCG@10", "percent")
    return {
        report: {
            family: {FORMER_NAMES.get(method, method): mean for method, mean in means.items()}
            for family, means in families.items()
        }
        for report, families in found["reports"].items()
    }


@pytest.mark.parametrize(
    ("page", "number", "reports"),
    [(ROOT / "README.md", 0, TABLES), (ROOT / "README.md", 1, ["union"]), (CARD, 0, TABLES)],
    ids=["README", "README's union", "card"],
)
def test_the_table_of_m3_mini_is_what_was_measured(page, number, reports):
    lines = page.read_text(encoding="utf-8").splitlines()
    first = [place for place, line in enumerate(lines) if line == HEAD][number] + 2
    means = {}
    for report in reports:
        means |= summary()[report]
    for family, line in zip(FAMILIES, lines[first : first + len(FAMILIES)], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [f"{means[family][method]:.1f}" for method in METHODS], family


def test_every_report_has_its_means_in_the_summary():
    assert sorted(summary()) == sorted(REPORTS)
    assert sorted(path.name for path in RESULTS.glob("*.json.gz")) == sorted(
        f"{name}.json.gz" for name in REPORTS
    )


@pytest.mark.parametrize("name", REPORTS)
def test_a_stored_report_gives_its_tables_and_its_means(name):
    report = report_files.read(RESULTS / f"{name}.json.gz")
    assert markdown(report) == (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    values = defaultdict(lambda: defaultdict(list))
    for row in report["results"]:
        values[row["family"]][row["method"]].append(100 * row["measures"]["nDCG@10"])
    means = {f: {m: sum(v) / len(v) for m, v in row.items()} for f, row in values.items()}
    found = summary()[name]
    assert found.keys() == means.keys()
    for family, row in means.items():
        assert found[family] == pytest.approx(row, abs=1e-4)
        for method, mean in row.items():  # rounding twice changes no published digit
            assert f"{found[family][method]:.1f}" == f"{mean:.1f}"
