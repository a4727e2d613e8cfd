"""The figures that the pages tell of the model that ships are those of the measured results."""

import json
from collections import defaultdict
from collections.abc import Sequence

import pytest
from doc_blocks import ROOT

RESULTS = ROOT / "experiments" / "results"
CARD = ROOT / "m3jax" / "assets" / "m3-mini" / "README.md"
HEAD = "| | BM25 | mE5-small | dense | sparse | multi-vector | all |"
METHODS = ("bm25", "mE5-small", "dense", "sparse", "multivector", "all")
TABLES = ["table2_multilingual", "table3_crosslingual"]
FAMILIES = ("xquad", "qa", "help", "xquad-x", "xqa", "help-x", "tatoeba")  # a row each


def family_means(reports: Sequence[str], method: str) -> dict[str, float]:
    """Mean nDCG@10 in percent over all sets of questions of each family."""
    values = defaultdict(list)
    for report in reports:
        results = json.loads((RESULTS / f"{report}.json").read_text(encoding="utf-8"))["results"]
        for result in results:
            if result["method"] == method:
                values[result["family"]].append(100 * result["measures"]["nDCG@10"])
    return {family: sum(found) / len(found) for family, found in values.items()}


@pytest.mark.parametrize(
    ("page", "number", "reports"),
    [(ROOT / "README.md", 0, TABLES), (ROOT / "README.md", 1, ["union"]), (CARD, 0, TABLES)],
    ids=["README", "README's union", "card"],
)
def test_the_table_of_m3_mini_is_what_was_measured(page, number, reports):
    lines = page.read_text(encoding="utf-8").splitlines()
    first = [place for place, line in enumerate(lines) if line == HEAD][number] + 2
    measured = [family_means(reports, method) for method in METHODS]
    for family, line in zip(FAMILIES, lines[first : first + len(FAMILIES)], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [f"{means[family]:.1f}" for means in measured], cells[0]
