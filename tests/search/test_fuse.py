"""Weighted sums, reciprocal ranks and normalised scores by hand."""

import numpy as np
import pytest

from m3jax.config import HeadWeights
from m3jax.search import fuse


def test_weighted_sums_and_presets_by_hand():
    scores = {"dense": np.array([0.5, 0.2]), "sparse": np.array([1.0, 3.0])}
    weights = HeadWeights(dense=2.0, sparse=0.5, colbert=9.0)
    np.testing.assert_allclose(fuse.weighted_sum(scores, weights), [1.5, 1.9])
    assert fuse.preset("miracl", "all") == HeadWeights(dense=1.0, sparse=0.3, colbert=1.0)
    assert fuse.preset("mkqa", "dense+sparse") == HeadWeights(dense=1.0, sparse=0.3, colbert=0.0)
    assert fuse.preset("mldr", "all") == HeadWeights(dense=0.15, sparse=0.5, colbert=0.35)
    assert fuse.preset("narrativeqa", "dense+sparse").sparse == 0.8
    with pytest.raises(ValueError, match="no weights named 'beir'"):
        fuse.preset("beir", "all")


def test_reciprocal_ranks_by_hand():
    documents, scores = fuse.reciprocal_ranks([np.array([7, 2, 9]), np.array([2, 5])])
    assert documents.tolist() == [2, 5, 7, 9]
    np.testing.assert_allclose(scores, [1 / 62 + 1 / 61, 1 / 62, 1 / 61, 1 / 63], rtol=1e-15)
    _, scores = fuse.reciprocal_ranks([np.array([1]), np.array([1])], [2.0, 0.5], k=1)
    np.testing.assert_allclose(scores, [2.5 / 2])


def test_normalised_scores_by_hand():
    np.testing.assert_allclose(fuse.normalised(np.array([2.0, 4.0, 3.0]), "minmax"), [0, 1, 0.5])
    np.testing.assert_allclose(fuse.normalised(np.array([1.0, 3.0]), "zscore"), [-1, 1])
    assert fuse.normalised(np.array([3.0, 3.0]), "zscore").tolist() == [0, 0]
    assert fuse.normalised(np.zeros(0), "minmax").tolist() == []
