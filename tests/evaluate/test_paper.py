"""The paper's published numbers agree with their averages and languages."""

import numpy as np
import pytest

from m3jax.evaluate import paper
from m3jax.evaluate.benchmarks import LANGUAGES


def test_the_papers_figures_agree_with_their_averages():
    for method in paper.METHODS[1:]:
        figures = [paper.of_task(f"miracl/{c}", "nDCG@10", method) for c in LANGUAGES["miracl"]]
        assert np.mean([f for f in figures if f is not None]) == pytest.approx(
            paper.average("miracl", "nDCG@10", method), abs=0.06
        )
    assert paper.of_task("narrativeqa", "nDCG@10", "all") == 61.7
    assert paper.of_task("mldr/de", "nDCG@10", "all") is None  # only its average is here
    assert paper.average("xquad", "nDCG@10", "all") is None


def test_all_languages_of_the_paper_are_listed():
    assert {name: len(codes) for name, codes in LANGUAGES.items()} == {
        "miracl": 18,
        "mkqa": 26,
        "mldr": 13,
    }
