"""Batches from examples: the same for any number of processes, and packed equal to padded."""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples_in_memory import Example, in_memory, make_examples

from m3jax import pretrained, sharding
from m3jax.config import DataConfig, LossConfig
from m3jax.feed.layout import text_key
from m3jax.feed.source import BatchSource, Shard
from m3jax.train.objectives import ObjectiveOptions, objective
from m3jax.train.prefetch import host_batches, place, process_shard
from m3jax.types import TextBatch, TrainBatch

CONFIG = DataConfig(
    group_size=3,
    length_boundaries=(16, 32, 64),
    batch_sizes=(16, 8, 8),
    query_length=64,
    passage_length=64,
    row_width=64,
)
BATCHING = ("padded", "padded_to_group", "packed")


@pytest.fixture(scope="module")
def model(tiny_dir):
    return pretrained.load(tiny_dir, mesh=sharding.make_mesh(devices=jax.devices()[:1]))


def make_source(model, count=40, negatives=4, shard=None, config=CONFIG, scored=False, **more):
    made = make_examples(count, negatives, scored=scored)
    return BatchSource(
        in_memory(made, model.tokenizer),
        model.tokenizer,
        dataclasses.replace(config, **more),
        shard or Shard(),
    )


def equal(a, b) -> bool:
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(left) == len(right) and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(left, right, strict=True)
    )


def concatenated(batches):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


@pytest.mark.parametrize("batching", BATCHING)
def test_one_two_and_four_processes_see_the_same_batches(model, batching):
    single = make_source(model, shard=Shard(0, 1, 8), batching=batching)
    for processes in (2, 4):
        shards = [
            make_source(model, shard=Shard(i, processes, 8), batching=batching)
            for i in range(processes)
        ]
        for step in range(7):
            assert equal(single.batch(step), concatenated([each.batch(step) for each in shards]))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(0, 20), st.sampled_from(BATCHING), st.integers(0, 1))
def test_a_new_source_resumes_where_another_stopped(model, seed, stop, batching, process):
    options = {"count": 30, "seed": seed, "batching": batching, "shard": Shard(process, 2, 2)}
    unstopped = make_source(model, **options)
    batches = [unstopped.batch(step) for step in range(stop + 3)]
    resumed = pickle.loads(pickle.dumps(make_source(model, **options)))
    for step in range(stop, stop + 3):
        assert equal(batches[step], resumed.batch(step))


@pytest.mark.parametrize("batching", BATCHING)
def test_an_epoch_holds_every_example_with_its_own_passages(model, batching):
    source = make_source(model, count=43, batching=batching, drop_below=1)
    seen = []
    for step in range(len(source.plan(0).groups)):
        batch = source.batch(step)
        assert isinstance(batch, TrainBatch)
        is_real = np.asarray(batch.targets.is_real)
        shape = source.shape(step)
        assert batch.queries.token_ids.shape == (shape.queries, shape.query_width)
        assert batch.passages.token_ids.shape == (shape.queries * 3, shape.passage_width)
        queries = [text_of(model, row) for row in batch.queries.token_ids[is_real]]
        passages = [text_of(model, row) for row in batch.passages.token_ids]
        for query, group in zip(
            queries, np.array(passages, object).reshape(-1, 3)[is_real], strict=True
        ):
            number = query.split()[1]
            assert group[0].split()[:2] in (["a", number], ["b", number])
            assert [t.split()[:2] for t in group[1:]] == [["negative", number]] * 2
            assert group[1] != group[2]
            seen.append(int(number))
        assert not batch.queries.lengths[~is_real].any()
    assert sorted(seen) == list(range(43))


def same_gradients(got, want):
    for (path, ours), theirs in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        scale = max(float(np.abs(theirs).max()), 1e-2)  # key biases are zero but for rounding
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * scale, err_msg=str(path))


def text_of(model, row) -> str:
    ids = [int(i) for i in row if i not in model.tokenizer.special_ids]
    return model.tokenizer.decode(ids).strip()


@pytest.mark.parametrize("sizes", [None, (2, 4, 1)])
def test_packed_rows_give_the_loss_and_gradients_of_padded_ones(model, sizes):
    shards = 8 if sizes else 1
    config = LossConfig(self_distill_start=0)
    mesh = sharding.make_mesh(*sizes) if sizes else None
    source = make_source(model, shard=Shard(0, 1, shards), batching="packed")
    packed = source.batch(0)
    assert isinstance(packed, TrainBatch) and packed.packed is not None
    padded = packed._replace(packed=None)

    def run(batch, mesh):
        def loss(params):
            return objective(params, batch, ObjectiveOptions(model.config, config, mesh=mesh), 0)

        params = jax.tree.map(np.asarray, model.params)  # on whichever devices the mesh has
        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (want, metrics), want_grads = run(padded, None)
    (got, packed_metrics), grads = run(packed, mesh)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(packed_metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    same_gradients(grads, want_grads)


@pytest.mark.parametrize("scored", [False, True])
def test_padding_queries_change_neither_loss_nor_gradients(model, scored):
    """A batch of 5 in a shape of 8 is a batch of 5."""
    config = LossConfig(self_distill_start=0, flops=0.1, l1=0.1, symmetric=not scored)
    full, filled = (
        make_source(
            model,
            count=5,
            scored=scored,
            length_boundaries=(64,),
            batch_sizes=(size,),
            batching="padded_to_group",
        ).batch(0)
        for size in (5, 8)
    )
    assert isinstance(full, TrainBatch) and isinstance(filled, TrainBatch)
    assert filled.targets.is_real is not None and filled.targets.is_real.sum() == 5
    assert full.targets.is_real is not None and full.targets.is_real.all()
    plain = full._replace(targets=full.targets._replace(is_real=None))

    def run(batch):
        def loss(params):
            return objective(params, batch, ObjectiveOptions(model.config, config), 0)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)

    (want, want_metrics), want_grads = run(plain)
    for batch in (full, filled):
        (got, metrics), grads = run(batch)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        for name in want_metrics:
            np.testing.assert_allclose(metrics[name], want_metrics[name], rtol=1e-5, err_msg=name)
        same_gradients(grads, want_grads)


def test_teacher_scores_go_with_their_passages(model):
    source = make_source(model, count=16, scored=True, batching="padded")
    batch = source.batch(0)
    assert isinstance(batch, TrainBatch) and batch.targets.teacher_scores is not None
    epoch, number = source.locate(0)
    for row, index in enumerate(map(int, source.plan(epoch).batch(number)[0])):
        example = source.examples[index]
        both = (*example.positive_scores, *example.negative_scores)
        want = [both[i] for i in source.selected(index, epoch)]
        np.testing.assert_allclose(batch.targets.teacher_scores[row], want, rtol=1e-6)


def test_incomplete_teacher_scores_are_ignored(model):
    examples = [
        dataclasses.replace(e, negative_scores=None) for e in make_examples(16, 4, scored=True)
    ]
    found = dataclasses.replace(in_memory(examples, model.tokenizer), flags=np.ones(16, np.uint8))
    batch = BatchSource(
        found, model.tokenizer, dataclasses.replace(CONFIG, batching="padded")
    ).batch(0)
    assert isinstance(batch, TrainBatch) and batch.targets.teacher_scores is None


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_threads_see_the_batches_of_one(model, batching):
    """Epochs differ in their number of batches, and several readers ask for plans at once."""
    more = {"batching": batching, "source_power": 0.5}
    alone, shared = make_source(model, **more), make_source(model, **more)
    want = [alone.locate(step) for step in range(60)]
    with ThreadPoolExecutor(8) as readers:
        assert list(readers.map(shared.locate, range(60))) == want
    assert shared._counts == alone._counts


def test_packed_texts_fill_the_rows_that_they_need(model):
    """Rows are as wide as a text may be, and no more of them than the batch size fills."""
    texts = [Example(f"{e.query} {e.positives[0]}", ()) for e in make_examples(64)]
    config = DataConfig(
        batching="packed", length_boundaries=(64,), batch_sizes=(16,), query_length=64, row_width=64
    )
    source = BatchSource(in_memory(texts, model.tokenizer), model.tokenizer, config, Shard(0, 1, 8))
    shape = source.pack_shapes[0]
    tokens = np.minimum(source.examples.lengths, 64).mean()
    assert (shape.num_rows, shape.width) == (max(1, round(2 * tokens / 64)), 64)


def test_a_source_without_in_batch_negatives(model):
    batch = make_source(model, no_in_batch=("one",)).batch(0)
    assert isinstance(batch, TrainBatch)
    assert not batch.targets.in_batch[batch.targets.is_real].any()


def test_plain_texts_have_no_passages(model):
    texts = [Example(e.query + " " + e.positives[0], ()) for e in make_examples(64)]
    for batching in BATCHING:
        config = dataclasses.replace(CONFIG, batching=batching, batch_sizes=(32, 16, 16))
        source = BatchSource(in_memory(texts, model.tokenizer), model.tokenizer, config)
        batch = source.batch(0)
        assert isinstance(batch, TextBatch)
        steps = range(len(source.plan(0).groups))
        total = sum(int(source.batch(step).lengths.sum()) for step in steps)  # pyright: ignore
        assert total == sum(min(n, 64) for n in source.examples.lengths)


def test_long_texts_are_cut_and_keep_their_end(model):
    long = Example("short", (" ".join(["word"] * 300),))
    source = BatchSource(in_memory([long] * 8, model.tokenizer), model.tokenizer, CONFIG)
    batch = source.batch(0)
    assert isinstance(batch, TrainBatch)
    assert batch.passages.token_ids.shape[1] == 64
    assert (batch.passages.token_ids[0, 63], batch.passages.lengths[0, 0]) == (2, 64)


def test_equal_texts_share_a_key():
    assert text_key("a") == text_key("a") != text_key("b")
    keys = {text_key(f"text {i}") for i in range(20_000)}
    assert len(keys) >= 19_998 and 0 <= min(keys) and max(keys) < 2**31


def test_batch_sizes_must_be_divisible_by_the_devices(model):
    with pytest.raises(ValueError, match="not divisible by the 3 devices"):
        make_source(model, shard=Shard(0, 1, 3))
    with pytest.raises(ValueError, match="no examples"):
        BatchSource(in_memory([], model.tokenizer), model.tokenizer, CONFIG)


def test_number_of_shapes(model):
    source = make_source(model, count=400)
    shapes = {source.shape(step) for step in range(len(source.plan(0).groups))}
    assert len(shapes) <= 3 * 4
    grouped = make_source(model, count=400, batching="padded_to_group")
    assert len({grouped.shape(step) for step in range(len(grouped.plan(0).groups))}) <= 3


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_in_order_from_any_step(model, workers):
    source = make_source(model, count=30)
    want = [source.batch(step) for step in range(2, 6)]
    got = list(host_batches(source, 2, 6, workers=workers))
    assert len(got) == 4 and all(map(equal, want, got))


def test_rows_are_split_over_the_mesh(model):
    mesh = sharding.make_mesh(2, 2, 2)
    source = make_source(model, shard=process_shard(mesh))
    host = list(host_batches(source, 0, 3))
    for want, batch in zip(host, [place(each, mesh) for each in host], strict=True):
        assert equal(want, jax.tree.map(np.asarray, batch))
        ids = batch.queries.token_ids
        assert {s.data.shape[0] for s in ids.addressable_shards} == {ids.shape[0] // 4}
