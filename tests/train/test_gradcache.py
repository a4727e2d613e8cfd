"""Micro-batches give the loss, metrics and gradients of the batch."""

import functools

import jax
import numpy as np
import pytest
from support.train_batches import make_batch

from m3jax import sharding
from m3jax.config import ComputeConfig, LossConfig, OptimizerConfig, StepConfig
from m3jax.model.families import param_sharding
from m3jax.sharding import flatten
from m3jax.train.gradcache import loss_and_gradients, num_microbatches, split_objective
from m3jax.train.objectives import ObjectiveOptions
from m3jax.train.optimizer import join_params, split_params
from m3jax.train.prefetch import place

FINETUNE = LossConfig(self_distill_start=0)


def run(model, batch, split, loss=FINETUNE, mesh=None, key=None, sub_tokens=130):
    """Loss, metrics and gradients.

    "microbatches" is the plain computation with the dropout masks of the micro-batches.
    """
    step = StepConfig(split="none" if split == "microbatches" else split, sub_tokens=sub_tokens)
    options = ObjectiveOptions(model.config, loss, step, ComputeConfig(), mesh)
    params = jax.tree.map(np.asarray, model.params)
    if mesh is not None:
        params = sharding.map_params(
            lambda path, leaf: sharding.shard_array(leaf, param_sharding(path, leaf.shape, mesh)),
            params,
        )
        batch = place(batch, mesh)
    trained, frozen = split_params(params, OptimizerConfig(), loss)

    @jax.jit
    def compute(trained, frozen, batch):
        join = functools.partial(join_params, frozen=frozen)
        if split == "microbatches":
            return jax.value_and_grad(
                lambda t: split_objective(join(t), batch, options, 0, key, remat=False),
                has_aux=True,
            )(trained)
        return loss_and_gradients(options, trained, join, batch, 0, key)

    return compute(trained, frozen, batch)


def same(got, want):
    (loss, metrics), grads = got
    (want_loss, want_metrics), want_grads = want
    np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
    assert metrics.keys() == want_metrics.keys()
    for name, value in want_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    flat, want_flat = flatten(grads), flatten(want_grads)
    assert flat.keys() == want_flat.keys()
    for path, theirs in want_flat.items():
        scale = max(float(np.abs(theirs).max()), 1e-2)  # key biases are zero but for rounding
        np.testing.assert_allclose(flat[path], theirs, rtol=0, atol=2e-5 * scale, err_msg=path)


@pytest.mark.parametrize(("teacher", "dropout"), [(False, True), (True, False)])
def test_remat_and_cached_equal_the_plain_step(model, teacher, dropout):
    batch = make_batch(model, 4, 2, teacher)
    key = jax.random.key(3) if dropout else None
    want = run(model, batch, "microbatches" if dropout else "none", key=key)
    for split in ("remat", "cached"):
        same(run(model, batch, split, key=key), want)


def test_dropout_follows_the_key(model):
    batch = make_batch(model)
    losses = [float(run(model, batch, "cached", key=jax.random.key(k))[0][0]) for k in (0, 1)]
    assert losses[0] != losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1)])
def test_on_other_meshes(model, sizes):
    test_on_a_mesh(model, sizes)


def test_on_a_mesh(model, sizes=(2, 2, 2)):
    batch = make_batch(model, 8, 2)
    want = run(model, batch, "none")
    for split in ("remat", "cached"):
        same(run(model, batch, split, mesh=sharding.make_mesh(*sizes)), want)


@pytest.mark.parametrize(
    "loss",
    [
        LossConfig(heads=("dense",), self_distill=False),
        LossConfig(heads=("sparse", "colbert"), fix_encoder=True, self_distill_start=0),
    ],
)
def test_every_objective(model, loss):
    batch = make_batch(model)
    same(run(model, batch, "cached", loss), run(model, batch, "none", loss))


def test_number_of_micro_batches():
    assert num_microbatches(64, 512, 1, 16_384) == 2  # 32 rows of 512
    assert num_microbatches(64, 512, 8, 16_384) == 1
    assert num_microbatches(6, 8192, 1, 1000) == 6  # a row is never cut
    assert num_microbatches(10, 100, 1, 300) == 5  # 3 rows would do, but 10 divides by 2


def test_packed_rows_are_refused(model):
    batch = make_batch(model)
    packed = batch._replace(packed=(batch.queries,))
    with pytest.raises(ValueError, match="set step.split to none"):
        run(model, packed, "cached")
