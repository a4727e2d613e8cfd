"""Objectives: from token ids to loss and gradients, against PyTorch and across devices."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from support.torch_objective import torch_model, torch_scores_loss
from support.train_batches import CONTRASTIVE, FINETUNE, HEAD_ONLY, make_batch, value_and_grad

from m3jax import pretrained, sharding
from m3jax.config import ComputeConfig, LossConfig, OptimizerConfig
from m3jax.convert.names import to_torch
from m3jax.model.heads import HEAD_PARAMETERS
from m3jax.model.xlm_roberta import XLM_ROBERTA
from m3jax.train.objectives import (
    ObjectiveOptions,
    TrainBatch,
    dead_heads,
    objective,
)
from m3jax.train.optimizer import (
    join_params,
    make_optimizer,
    param_labels,
    split_params,
    training_compute,
)


def torch_loss(directory, batch: TrainBatch, group, kind, in_batch):
    """Loss and all parameters, with gradients."""
    encoder, heads = torch_model(directory)
    given = batch.targets.teacher_scores
    loss = torch_scores_loss(
        encoder,
        heads,
        batch,
        group,
        kind=kind,
        in_batch=in_batch,
        teacher_scores=None if given is None else torch.tensor(given),
    )
    loss.backward()
    named = dict(encoder.named_parameters())
    for stem, linear in heads.items():
        named |= {f"{stem}.{name}": p for name, p in linear.named_parameters()}
    return loss, named


@pytest.mark.parity
@pytest.mark.parametrize(
    ("group", "kind", "in_batch", "teacher"),
    [
        (1, "kl_div", True, False),
        (2, "kl_div", True, False),
        (8, "kl_div", True, True),
        (2, "m3_kd_loss", True, True),
        (2, "kl_div", False, False),
        (8, "kl_div", False, True),
    ],
)
def test_loss_and_every_gradient_equal_torch(tiny_dir, model, group, kind, in_batch, teacher):
    batch = make_batch(model, 4, group, teacher, in_batch)
    config = dataclasses.replace(FINETUNE, teacher_loss=kind)
    (loss, _), grads = value_and_grad(model, batch, config)
    want, named = torch_loss(tiny_dir, batch, group, kind, in_batch)
    # The loss of equal scores agrees within 1e-6 (test_losses.py). Here scores carry the rounding
    # of the encoder, about 1e-7, and a temperature of 0.02 multiplies it by 50.
    np.testing.assert_allclose(loss, want.detach(), rtol=1e-6, atol=5e-6)
    for name, ours in to_torch(grads, (*XLM_ROBERTA.parameters, *HEAD_PARAMETERS), 3):
        theirs = named[name].grad
        assert theirs is not None
        if name.endswith("key.bias"):
            continue  # zero but for rounding: softmax does not see a shift of all scores
        scale = float(theirs.abs().max())
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale, rtol=0, err_msg=name)


FEW = [((8, 1, 1), True), ((2, 2, 2), False)]
MANY = [((8, 1, 1), False), ((4, 2, 1), True), ((4, 2, 1), False), ((2, 2, 2), True)]


@pytest.mark.parametrize(
    ("sizes", "teacher"), [*FEW, *(pytest.param(*c, marks=pytest.mark.slow) for c in MANY)]
)
def test_eight_devices_give_the_loss_and_gradients_of_one(model, tiny_dir, sizes, teacher):
    """All heads and the teacher see the negatives of every device."""
    batch = make_batch(model, 8, 2, teacher)
    config = dataclasses.replace(FINETUNE, padding_competes=False, flops=0.01)
    (want, want_metrics), want_grads = value_and_grad(model, batch, config)
    mesh = sharding.make_mesh(*sizes)
    spread = pretrained.load(tiny_dir, mesh=mesh)
    rows = sharding.batch_sharding(mesh)
    (loss, metrics), grads = value_and_grad(spread, jax.device_put(batch, rows), config, mesh=mesh)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    for name, value in want_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    flat, other = sharding.flatten(want_grads), sharding.flatten(grads)
    for path, gradient in flat.items():
        if not path.endswith("key/bias"):
            scale = float(jnp.abs(gradient).max())
            np.testing.assert_allclose(other[path], gradient, atol=1e-4 * scale, err_msg=path)


@pytest.mark.parametrize("head", ["dense", "sparse", "colbert"])
def test_every_head_sees_the_negatives_of_other_devices(tiny_dir, head):
    """Another text on device 7 changes the loss of a query on device 0, whatever the head."""
    mesh = sharding.make_mesh(8, 1, 1)
    model = pretrained.load(tiny_dir, mesh=mesh)
    batch = make_batch(model, 8, 1)
    config = LossConfig(heads=(head,), mask_duplicates=False)

    def first_query(passages):
        spread = jax.device_put(batch._replace(passages=passages), sharding.batch_sharding(mesh))
        # Only query 0 takes negatives from others: the mean loss is its own, divided by 8.
        in_batch = jnp.arange(8) == 0
        targets = spread.targets._replace(in_batch=in_batch)
        return value_and_grad(model, spread._replace(targets=targets), config, mesh=mesh)[0][0]

    arrays = [np.array(x) for x in batch.passages]
    for array in arrays:
        array[7] = array[0]  # the last passage now reads as query 0's positive
    before, after = first_query(batch.passages), first_query(type(batch.passages)(*arrays))
    assert abs(after - before) > 1e-5


def test_contrastive_trains_the_dense_head_only(model):
    (loss, metrics), grads = value_and_grad(model, make_batch(model), CONTRASTIVE)
    assert loss == metrics["nce/dense"] and "nce/sparse" not in metrics
    assert all((g == 0).all() for g in jax.tree.leaves(grads["heads"]))
    assert any((g != 0).any() for g in jax.tree.leaves(grads["encoder"]))


def test_head_only_leaves_the_encoder_alone(model):
    _, grads = value_and_grad(model, make_batch(model), HEAD_ONLY)
    assert all((g == 0).all() for g in jax.tree.leaves(grads["encoder"]))
    assert all((g != 0).any() for g in jax.tree.leaves(grads["heads"]))


def test_distillation_starts_at_its_step(model):
    batch = make_batch(model)
    config = LossConfig(self_distill_start=5)
    before, after = (
        objective(model.params, batch, ObjectiveOptions(model.config, config), s) for s in (4, 5)
    )
    assert before[0] != after[0]
    never = dataclasses.replace(config, self_distill=False)
    assert before[0] == objective(model.params, batch, ObjectiveOptions(model.config, never), 5)[0]


def test_values_of_metrics(model):
    batch = make_batch(model)
    _, metrics = objective(model.params, batch, ObjectiveOptions(model.config, FINETUNE), 0)
    for head in ("dense", "sparse", "colbert"):
        assert 0 <= metrics[f"accuracy/{head}"] <= 1
        assert {f"nce/{head}", f"kd/{head}", f"positive/{head}", f"negative/{head}"} <= set(metrics)
    assert 0 <= metrics["teacher_entropy"] <= np.log(8) + 1e-6
    assert 0 < metrics["sparse_active"] <= 1


def test_a_dying_sparse_head_is_reported(model):
    bias = {"bias": jnp.full(1, -1e3), "kernel": model.params["heads"]["sparse"]["kernel"]}
    params = model.params | {"heads": model.params["heads"] | {"sparse": bias}}
    _, metrics = objective(params, make_batch(model), ObjectiveOptions(model.config, FINETUNE), 0)
    (message,) = dead_heads({name: float(value) for name, value in metrics.items()})
    assert "0.00% of tokens" in message and "sparse head is dying" in message
    assert dead_heads({"sparse_active": 0.4}) == dead_heads({"loss": 1.0}) == []


def test_bfloat16_at_a_temperature_of_0_01_stays_finite(model):
    config = dataclasses.replace(FINETUNE, temperature=0.01)
    (loss, metrics), grads = value_and_grad(
        model, make_batch(model, 4, 8), config, compute=ComputeConfig(dtype="bfloat16")
    )
    assert jnp.isfinite(loss) and all(jnp.isfinite(m) for m in metrics.values())
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_regularisers_join_the_loss(model):
    batch = make_batch(model)
    plain = objective(model.params, batch, ObjectiveOptions(model.config, FINETUNE), 0)[0]
    for name in ("flops", "l1"):
        config = dataclasses.replace(FINETUNE, **{name: 0.5})
        assert objective(model.params, batch, ObjectiveOptions(model.config, config), 0)[0] > plain
    config = dataclasses.replace(FINETUNE, matryoshka=(8, 16))
    shorter = objective(model.params, batch, ObjectiveOptions(model.config, config), 0)[1]
    assert shorter["nce/dense"] != plain and jnp.isfinite(shorter["nce/dense"])


def test_a_narrower_multi_vector_head_trains(tmp_path):
    from support.tiny import write_tiny_model

    write_tiny_model(tmp_path / "narrow", colbert_dim=8)
    narrow = pretrained.load(tmp_path / "narrow")
    (loss, _), grads = value_and_grad(narrow, make_batch(narrow), FINETUNE)
    assert jnp.isfinite(loss) and grads["heads"]["colbert"]["kernel"].shape == (32, 8)


def test_degenerate_batches_are_refused(model):
    with pytest.raises(ValueError, match="has no negatives"):
        objective(
            model.params, make_batch(model, 1, 1), ObjectiveOptions(model.config, FINETUNE), 0
        )
    batch = make_batch(model, 4, 2)
    short = batch._replace(passages=type(batch.passages)(*(x[:7] for x in batch.passages)))
    with pytest.raises(ValueError, match="not a multiple"):
        objective(model.params, short, ObjectiveOptions(model.config, FINETUNE), 0)


def test_each_label_has_its_learning_rate(model):
    grads = jax.tree.map(jnp.ones_like, model.params)
    config = OptimizerConfig(
        learning_rate=1e-3, sparse_rate=10.0, colbert_rate=0.0, weight_decay=0.0, clip_norm=0.0
    )
    optimizer = make_optimizer(config)
    updates, _ = optimizer.update(grads, optimizer.init(model.params), model.params)
    sizes = {p: float(jnp.abs(u).max()) for p, u in sharding.flatten(cast(dict, updates)).items()}
    for path, label in sharding.flatten(param_labels(model.params)).items():
        want = {"other": 1e-3, "sparse": 1e-2, "colbert": 0.0}[label]
        assert sizes[path] == pytest.approx(want, rel=1e-4), path


def test_frozen_parameters_do_not_change_and_biases_do_not_decay(model):
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.1)
    trained, frozen = split_params(model.params, config, HEAD_ONLY)
    assert set(frozen) == {"encoder"} and set(trained) == {"heads"}
    zero = jax.tree.map(jnp.zeros_like, trained)
    optimizer = make_optimizer(config)
    updates, _ = optimizer.update(zero, optimizer.init(trained), trained)
    for path, update in sharding.flatten(cast(dict, updates)).items():
        decays = path in ("heads/colbert/kernel", "heads/sparse/kernel")
        assert bool((update != 0).any()) == decays, path
    joined = sharding.flatten(join_params(trained, frozen))
    assert joined.keys() == sharding.flatten(model.params).keys()


def backward_lengths(jaxpr) -> set[int]:
    """The lengths of all scans that run backward, at any depth."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan" and equation.params["reverse"]:
            found.add(equation.params["length"])
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= backward_lengths(inner)
    return found


@pytest.mark.parametrize("dropout", [False, True])
def test_frozen_layers_cost_no_gradient_and_change_none(model, dropout):
    """Loss and the gradients of what trains are those of the plain step; one layer of three is
    gone through backward."""
    config = OptimizerConfig(freeze_embeddings=True, freeze_layers=2)
    batch, plain = make_batch(model), ComputeConfig()
    trained, frozen = split_params(model.params, config, FINETUNE)
    shape = model.config.encoder
    noisy = dataclasses.replace(
        model.config, encoder=dataclasses.replace(shape, dropout=0.1 if dropout else 0.0)
    )

    def step(compute):
        def loss(trained):
            key = jax.random.key(0) if dropout else None
            return objective(
                join_params(trained, frozen),
                batch,
                ObjectiveOptions(noisy, FINETUNE, compute=compute),
                0,
                key,
            )[0]

        return jax.jit(jax.value_and_grad(loss))

    steps = step(plain), step(training_compute(plain, config))
    assert [max(backward_lengths(f.trace(trained).jaxpr.jaxpr)) for f in steps] == [3, 1]
    (want, wanted), (got, found) = (f(trained) for f in steps)
    if dropout:  # other masks
        assert np.isfinite(got) and got != want
        return
    assert got == pytest.approx(float(want), rel=1e-5)
    wanted, found = sharding.flatten(cast(dict, wanted)), sharding.flatten(cast(dict, found))
    for path, leaf in found.items():
        full = wanted[path]
        if path.startswith("encoder/layers/"):
            assert not leaf[:2].any() and leaf[2:].any()
            leaf, full = leaf[2:], full[2:]
        np.testing.assert_allclose(leaf, full, rtol=2e-4, atol=1e-6, err_msg=path)
    assert training_compute(plain, OptimizerConfig(freeze_layers=2)) == plain  # words still train


def test_a_few_steps_lower_the_loss(model):
    batch = make_batch(model, 4, 2)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3))

    @jax.jit
    def step(params, state, number):
        (loss, _), grads = jax.value_and_grad(objective, has_aux=True)(
            params, batch, ObjectiveOptions(model.config, FINETUNE), number
        )
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    params, state, seen = model.params, optimizer.init(model.params), []
    for number in range(8):
        params, state, loss = step(params, state, jnp.asarray(number))
        seen.append(float(loss))
    assert seen[-1] < 0.8 * seen[0]
