"""The Markdown report, compared with the paper's numbers."""

from m3jax.evaluate.report import write_report
from m3jax.evaluate.results import EvaluationResult


def test_benchmarks_are_compared_with_the_paper(tmp_path):
    results = [
        EvaluationResult(
            task=f"miracl/{language}",
            family="miracl",
            query_set="",
            language=language,
            method="dense",
            primary="nDCG@10",
            queries=["q1", "q2"],
            languages=[language] * 2,
            values={"nDCG@10": [0.5, 0.7], "Recall@100": [1.0, 0.9]},
            protocol={"warnings": ["beware"], "queries": {"sampled_from": None}},
            seconds=0.0,
        )
        for language in ("ar", "de")
    ]
    write_report(tmp_path, results)
    text = (tmp_path / "results.md").read_text()
    assert "| miracl/ar | Dense | 60.0 | 78.4 | -18.4 |" in text
    theirs = (78.4 + 56.7) / 2  # of these two languages, not the paper's average of all
    assert f"| miracl, mean of 2 tasks | Dense | 60.0 | {theirs:.1f} | {60 - theirs:+.1f} |" in text
    assert "| 95.0 | 95.5 |" not in text  # Recall@100 is published over all languages only
    assert "- warning: beware" in text
