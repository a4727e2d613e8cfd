"""Ranks of the source paragraph."""

import numpy as np

from m3jax.synthesize.articles import (
    Article,
    SourceParagraph,
)
from m3jax.synthesize.consistency import source_ranks


def test_ranks_count_better_paragraphs_of_this_article_and_of_others():
    vectors = {
        "q": [1.0, 0.0],
        "own": [0.6, 0.8],
        "better": [0.9, 0.1],
        "worse": [0.1, 0.9],
        "other": [0.7, 0.7],
        "far": [0.0, 1.0],
        "q2": [0.0, 1.0],
    }

    def embed(texts):
        return np.array([vectors[text] for text in texts], np.float32)

    first = Article("1", "", "text 1", "en", "s")
    second = Article("2", "", "text 2", "en", "s")
    sources = [
        SourceParagraph(first, ("own", "better", "worse"), 0),
        SourceParagraph(second, ("other", "far"), 0),
        SourceParagraph(first, ("own", "better", "worse"), 2),
    ]
    # q: behind "better" and the other article's "other".
    # q2, whose source is "other": behind "far", "own" and "worse".
    ranks = source_ranks(["q", "q2", "q"], sources, sources, embed, embed)
    assert list(ranks) == [3, 4, 4]
