"""The order of training data: nothing lost, nothing twice, the same everywhere."""

import dataclasses
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples_in_memory import in_memory, make_examples

from m3jax.config import DataConfig
from m3jax.feed.plan import example_stats, plan_epoch
from m3jax.feed.sampling import hash64, pick_passages, shuffled_thirds, uniform
from m3jax.text.packing import PackShape, fill_rows, place_texts

CONFIG = DataConfig(
    group_size=1,
    length_boundaries=(8, 16, 64),
    batch_sizes=(8, 4, 2),
    query_length=64,
    passage_length=64,
)


def sizes_of(lengths, sources=None):
    """Sizes of examples of a query of 3 tokens and one positive."""
    examples = in_memory(make_examples(len(lengths)))
    names = tuple(f"s{i}" for i in range(1 + max(sources or [0])))
    return dataclasses.replace(
        examples,
        offsets=np.arange(len(lengths) + 1) * 2,
        lengths=np.array([n for length in lengths for n in (3, length)], np.int32),
        positives=np.ones(len(lengths), np.int32),
        source_ids=np.array(sources or [0] * len(lengths), np.uint16),
        flags=np.ones(len(lengths), np.uint8),
        sources=names,
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(3, 70), st.integers(0, 2)), min_size=1, max_size=80),
    st.integers(0, 3),
    st.integers(0, 2**40),
    st.integers(1, 3),
)
def test_every_example_is_once_in_a_batch_of_its_batch_key(rows, epoch, seed, drop_below):
    lengths, sources = zip(*rows, strict=True)
    sizes = sizes_of(list(lengths), list(sources))
    config = dataclasses.replace(CONFIG, seed=seed, drop_below=drop_below)
    plan = plan_epoch(example_stats(sizes, config), config, epoch)
    assert len(plan.order) + plan.dropped == len(rows)
    assert len(set(plan.order.tolist())) == len(plan.order)
    assert plan.dropped <= (drop_below - 1) * len(set(sources))
    for i, group in enumerate(plan.groups):
        (batch,) = plan.batch(i)
        size = config.batch_sizes[group]
        assert min(drop_below, size) <= len(batch) <= size
        assert len(set(sizes.source_ids[batch].tolist())) == 1
        kept = np.minimum(np.array(lengths)[batch], config.passage_length)
        assert kept.max() <= config.length_boundaries[group]


def test_groups_are_mostly_of_one_length_range():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 65, 1000).tolist()
    plan = plan_epoch(example_stats(sizes_of(lengths), CONFIG), CONFIG, 0)
    for i, group in enumerate(plan.groups):
        low = (0, *CONFIG.length_boundaries)[group]
        shorter = sum(lengths[e] <= low for e in plan.batch(i)[0])
        # Only what a shorter group left over, once a group.
        assert shorter == 0 or shorter < CONFIG.batch_sizes[max(group - 1, 0)]


def test_epochs_differ_and_repeat_by_seed():
    stats = example_stats(sizes_of(list(range(3, 60)) * 4), CONFIG)
    first, again, second = (plan_epoch(stats, CONFIG, e) for e in (0, 0, 1))
    assert np.array_equal(first.order, again.order)
    assert not np.array_equal(first.order, second.order)
    other = plan_epoch(stats, dataclasses.replace(CONFIG, seed=1), 0)
    assert not np.array_equal(first.order, other.order)


def test_a_power_below_one_draws_small_sources_more_often_and_loses_none():
    sources = [0] * 900 + [1] * 100
    config = dataclasses.replace(CONFIG, source_power=0.5, drop_below=1)
    stats = example_stats(sizes_of([10] * 1000, sources), config)
    seen = np.zeros(1000, int)
    for epoch in range(4):
        order = plan_epoch(stats, config, epoch).order
        assert (order >= 900).sum() == 250  # sqrt(100) / (sqrt(900) + sqrt(100)) of 1,000
        np.add.at(seen, order, 1)
    # 3,000 draws of 900 and 1,000 of 100: as evenly as integers allow.
    assert set(seen[:900]) == {3, 4} and set(seen[900:]) == {10}


def test_mixed_sources_share_batches_only_when_asked():
    sizes = sizes_of([10] * 40, [0, 1] * 20)
    config = dataclasses.replace(CONFIG, one_source=False)
    plan = plan_epoch(example_stats(sizes, config), config, 0)
    assert any(len(set(sizes.source_ids[plan.batch(i)[0]])) == 2 for i in range(len(plan.groups)))


def test_picks_are_spread_and_without_repetition():
    for index in range(50):
        positive, negatives = pick_passages(7, 0, index, 3, 10, 8)
        assert 0 <= positive < 3 and len(set(negatives)) == 7 and max(negatives) < 10
    _, few = pick_passages(7, 0, 1, 1, 3, 8)
    assert sorted(few) == [0, 0, 0, 1, 1, 2, 2] or sorted(set(few)) == [0, 1, 2]
    firsts = np.array([pick_passages(0, 0, i, 4, 9, 2) for i in range(2000)], object)
    assert np.bincount(firsts[:, 0].astype(int)).min() > 400
    assert np.bincount([n[0] for n in firsts[:, 1]]).min() > 150
    assert {pick_passages(0, epoch, 5, 4, 9, 2)[0] for epoch in range(40)} == {0, 1, 2, 3}


def test_hashes_are_uniform_and_depend_on_every_number():
    values = uniform(1, 2, np.arange(10_000))
    assert abs(values.mean() - 0.5) < 0.01 and abs(np.quantile(values, 0.1) - 0.1) < 0.01
    assert len({int(hash64(*key)) for key in [(1, 2), (2, 1), (1, 2, 0), (1,), (0, 1, 2)]}) == 5


def test_thirds_are_shuffled_at_the_ratio_and_lose_nothing():
    text = "".join(chr(97 + i % 26) for i in range(301))
    changed = [shuffled_thirds(text, 0.3, 0, 0, i) for i in range(1000)]
    moved = [t for t in changed if t != text]
    assert 200 < len(moved) < 320  # 0.3, and a sixth of all orders is the old one with blanks
    assert all(sorted(t.replace(" ", "")) == sorted(text) for t in changed)
    assert shuffled_thirds("short", 1.0, 0, 0, 0) == "short"


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=4), max_size=60),
    st.integers(4, 8),
    st.integers(4, 12),
)
def test_packed_shards_hold_every_example_once_and_fit(examples, rows, most):
    shape = PackShape(rows, 20, 6, most)
    pools = [deque(range(0, len(examples), 2)), deque(range(1, len(examples), 2))]
    shards = []
    while any(pools):
        shards.append(fill_rows(pools, lambda i: examples[i], shape))
    assert sorted(i for shard in shards for i in shard) == list(range(len(examples)))
    for shard in shards:
        assert 0 < len(shard) <= most
        room, count = [20] * rows, [0] * rows
        for lengths, places in zip(
            [examples[i] for i in shard],
            place_texts([examples[i] for i in shard], shape),
            strict=True,
        ):
            for length, row in zip(lengths, places, strict=True):
                room[row] -= length
                count[row] += 1
        assert min(room) >= 0 and max(count) <= 6


def test_an_example_too_big_for_the_rows_is_named():
    with pytest.raises(ValueError, match="does not fit 2 rows of 20"):
        fill_rows([deque([0, 1])], lambda i: [19, 19, 19], PackShape(2, 20, 6, 4))


def test_config_errors():
    with pytest.raises(ValueError, match="the same length"):
        DataConfig(length_boundaries=(10, 20), batch_sizes=(1,))
    with pytest.raises(ValueError, match="must increase"):
        DataConfig(length_boundaries=(20, 10), batch_sizes=(1, 1))
    with pytest.raises(ValueError, match="source_power"):
        DataConfig(source_power=2.0)
