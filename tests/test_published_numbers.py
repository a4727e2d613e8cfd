"""The figures that the pages tell of the model that ships are those of the measured results."""

import json

import pytest
from doc_blocks import ROOT

RESULTS = ROOT / "experiments" / "results"
CARD = ROOT / "m3jax" / "assets" / "m3-mini" / "README.md"
HEAD = "| | BM25 | mE5-small | dense | sparse | multi-vector | all |"
METHODS = ("bm25", "mE5-small", "dense", "sparse", "multivector", "all")
FAMILIES = ("xquad", "qa", "help", "xquad-x", "xqa", "help-x", "tatoeba")  # a row each


def family_means(method: str) -> dict[str, float]:
    """Mean nDCG@10 in percent of each family's tasks, as the reports average them."""
    values = {}
    for table in ("table2_multilingual", "table3_crosslingual"):
        report = json.loads((RESULTS / f"{table}.json").read_text(encoding="utf-8"))
        for family, means in report["averages"]["families"]["nDCG@10"].items():
            values[family] = 100 * means[method]["value"]
    return values


@pytest.mark.parametrize("page", [ROOT / "README.md", CARD], ids=["README", "card"])
def test_the_table_of_m3_mini_is_what_was_measured(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    first = lines.index(HEAD) + 2
    measured = [family_means(method) for method in METHODS]
    for family, line in zip(FAMILIES, lines[first : first + len(FAMILIES)], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [f"{means[family]:.1f}" for means in measured], cells[0]
