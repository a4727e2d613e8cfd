"""Which candidates become negatives, by hand."""

from collections import Counter

import numpy as np
import pytest

from m3jax.mine.options import MiningOptions
from m3jax.mine.selection import Constraints, Hit, select


def test_score_limits_by_hand():
    def limit(positive, **options):
        return MiningOptions(**options).score_limit(positive)

    assert limit(0.3) == np.inf
    assert limit(0.8, max_positive_ratio=0.95) == pytest.approx(0.76)
    assert limit(-0.2, max_positive_ratio=0.95) == -0.2  # 95 % of it would be above it
    assert limit(0.8, max_positive_ratio=0.95, margin=0.1) == pytest.approx(0.7)
    assert limit(0.8, max_positive_ratio=0.5, margin=0.1) == pytest.approx(0.4)


def test_a_sample_depends_only_on_texts_and_seed():
    hits = [Hit(i, 1000 + i, 1 - i / 50) for i in range(50)]
    moved = [Hit(49 - h.number, h.text_hash, h.score) for h in hits]  # another order of the corpus

    def hashes(hits, seed=0, query="query"):
        options = MiningOptions(negatives=5, first=0, last=50, near_duplicates=0.0, seed=seed)
        constraints = Constraints(query, [], {}, 2.0)
        return [h.text_hash for h in select(hits, str, constraints, options, Counter())]

    assert hashes(hits) == hashes(moved)
    assert hashes(hits) != hashes(hits, seed=1) and hashes(hits) != hashes(hits, query="other")
    assert len({h for seed in range(40) for h in hashes(hits, seed)}) > 45  # no hit is excluded
