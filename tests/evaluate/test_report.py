"""The report in Markdown beside the paper's numbers."""

from m3jax.evaluate.report import write_report
from m3jax.evaluate.results import Result


def test_the_paper_stands_beside_its_benchmarks(tmp_path):
    results = [
        Result(
            task=f"miracl/{language}", family="miracl", query_set="", language=language,
            method="dense", primary="nDCG@10", queries=["q1", "q2"], languages=[language] * 2,
            values={"nDCG@10": [0.5, 0.7], "Recall@100": [1.0, 0.9]},
            protocol={"warnings": ["beware"], "queries": {"sampled_from": None}}, seconds=0.0,
        )
        for language in ("ar", "de")
    ]  # fmt: skip
    write_report(tmp_path, results)
    text = (tmp_path / "results.md").read_text()
    assert "| miracl/ar | Dense | 60.0 | 78.4 | -18.4 |" in text
    theirs = (78.4 + 56.7) / 2  # of these two languages, not the paper's average of all
    assert f"| miracl, mean of 2 tasks | Dense | 60.0 | {theirs:.1f} | {60 - theirs:+.1f} |" in text
    assert "| 95.0 | 95.5 |" not in text  # Recall@100 is published over all languages only
    assert "- warning: beware" in text
