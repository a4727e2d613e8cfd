"""The figures that the pages tell of the model that ships are those of the measured results."""

import json
from collections import defaultdict

import pytest
from doc_blocks import ROOT

RESULTS = ROOT / "experiments" / "results"
CARD = ROOT / "m3jax" / "assets" / "m3-mini" / "README.md"
HEAD = "| | BM25 | mE5-small | dense | sparse | multi-vector | all |"
METHODS = ("bm25", "mE5-small", "dense", "sparse", "multivector", "all")
FAMILIES = ("xquad", "qa", "help", "xquad-x", "xqa", "help-x", "tatoeba")  # a row each


def family_means(method: str) -> dict[str, float]:
    """Mean nDCG@10 in percent over all sets of questions of each family."""
    values = defaultdict(list)
    for table in ("table2_multilingual", "table3_crosslingual"):
        results = json.loads((RESULTS / f"{table}.json").read_text(encoding="utf-8"))["results"]
        for result in results:
            if result["method"] == method:
                values[result["family"]].append(100 * result["measures"]["nDCG@10"])
    return {family: sum(found) / len(found) for family, found in values.items()}


@pytest.mark.parametrize("page", [ROOT / "README.md", CARD], ids=["README", "card"])
def test_the_table_of_m3_mini_is_what_was_measured(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    first = lines.index(HEAD) + 2
    measured = [family_means(method) for method in METHODS]
    for family, line in zip(FAMILIES, lines[first : first + len(FAMILIES)], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [f"{means[family]:.1f}" for means in measured], cells[0]
