"""Which candidates become negatives, by hand."""

from collections import Counter

import numpy as np
import pytest

from m3jax.mine.selection import Hit, Rules, choose


def test_limits_by_hand():
    assert Rules().limit(0.3) == np.inf
    assert Rules(max_share=0.95).limit(0.8) == pytest.approx(0.76)
    assert Rules(max_share=0.95).limit(-0.2) == -0.2  # 95 % of it would be above it
    assert Rules(max_share=0.95, margin=0.1).limit(0.8) == pytest.approx(0.7)
    assert Rules(max_share=0.5, margin=0.1).limit(0.8) == pytest.approx(0.4)


def test_a_sample_depends_on_texts_and_seed_alone():
    hits = [Hit(i, 1000 + i, 1 - i / 50) for i in range(50)]
    moved = [Hit(49 - h.number, h.key, h.score) for h in hits]  # another order of the corpus

    def keys(some, seed=0, salt="query"):
        rules = Rules(negatives=5, first=0, last=50, near_duplicates=0.0, seed=seed)
        return [h.key for h in choose(some, str, [], {}, 2.0, rules, salt, Counter())]

    assert keys(hits) == keys(moved)
    assert keys(hits) != keys(hits, seed=1) and keys(hits) != keys(hits, salt="other")
    assert len({k for seed in range(40) for k in keys(hits, seed)}) > 45  # all have their chance
