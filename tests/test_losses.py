"""Losses: values and gradients of PyTorch, values by hand, and edge cases."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from support import reference_loss

from m3jax import losses
from m3jax.config import HeadWeights, LossConfig
from m3jax.types import Scores, Targets

CONFIG = LossConfig(self_distill_start=0, mask_duplicates=False)


def make(b, g, seed=0, teacher=False, in_batch=True):
    """Scores of about M3's size, and the targets of a batch without duplicates."""
    rng = np.random.default_rng(seed)
    scores = [jnp.asarray(rng.normal(0.5, 0.05, (b, b * g)), jnp.float32) for _ in range(3)]
    # Falling, as the loader of the reference sorted them.
    sorted_ = -np.sort(-rng.normal(size=(b, g)).astype(np.float32), axis=1)
    given = jnp.asarray(sorted_) if teacher else None
    targets = Targets(jnp.full(b, in_batch), jnp.arange(b * g), given)
    return scores, targets


def run(scores, targets, config=CONFIG, distill=True):
    def total(*heads):
        logits = Scores(*(x / config.temperature for x in heads))
        return losses.m3_loss(logits, targets, config, jnp.asarray(distill))

    value_and_grad = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))
    (loss, parts), grads = value_and_grad(*map(jnp.asarray, scores))
    return loss, parts, grads


@pytest.mark.parity
@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("kind", [None, "kl_div", "m3_kd_loss"])
@pytest.mark.parametrize("group", [1, 2, 8])
def test_total_and_gradients_equal_torch(group, kind, in_batch):
    if kind == "m3_kd_loss" and not in_batch:
        pytest.skip("the reference picks columns outside the group here and fails")
    scores, targets = make(4, group, teacher=kind is not None, in_batch=in_batch)
    config = dataclasses.replace(CONFIG, teacher_loss=kind or "kl_div")
    inputs = [torch.tensor(np.array(x), requires_grad=True) for x in scores]
    given = (
        None if targets.teacher_scores is None else torch.tensor(np.array(targets.teacher_scores))
    )
    for distill in (True, False):
        want = reference_loss.total_loss(
            inputs,
            0.02,
            group,
            teacher_scores=given,
            kind=kind or "kl_div",
            in_batch=in_batch,
            self_distill=distill,
        )
        want_grads = torch.autograd.grad(want, inputs)
        loss, _, grads = run(scores, targets, config, distill)
        np.testing.assert_allclose(loss, want.detach(), rtol=1e-6, atol=1e-6)
        for ours, theirs in zip(grads, want_grads, strict=True):
            scale = max(float(theirs.abs().max()), 1e-6)
            np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale, rtol=0)


def test_info_nce_by_hand():
    logits = jnp.array([[1.0, 0.0, 2.0, -1.0], [0.5, 0.5, 3.0, 1.0]])
    e = math.exp
    first = -math.log(e(1) / (e(1) + e(0) + e(2) + e(-1)))
    second = -math.log(e(3) / (e(0.5) + e(0.5) + e(3) + e(1)))
    got = losses.info_nce(logits, jnp.ones((2, 4), bool))
    assert got == pytest.approx((first + second) / 2, rel=1e-6)
    alone = losses.valid_passages(Targets(jnp.array([True, False]), jnp.arange(4)), 2, True)
    assert alone.tolist() == [[True] * 4, [False, False, True, True]]
    second = -math.log(e(3) / (e(3) + e(1)))
    assert losses.info_nce(logits, alone) == pytest.approx((first + second) / 2, rel=1e-6)


def test_a_text_equal_to_the_positive_is_no_negative():
    # Passages: A b | A c | D e: the first two queries share their positive.
    keys = jnp.array([0, 1, 0, 2, 3, 4])
    targets = Targets(jnp.full(3, True), keys)
    assert losses.valid_passages(targets, 3, True).tolist() == [
        [True, True, False, True, True, True],
        [False, True, True, True, True, True],
        [True] * 6,
    ]
    assert losses.valid_passages(targets, 3, False).all()


def test_distillation_by_hand_and_constant_teacher():
    student, teacher = jnp.array([[0.0, 1.0]]), jnp.array([[2.0, 1.0]])
    p = math.exp(2) / (math.exp(2) + math.exp(1))
    q = 1 / (1 + math.exp(1))
    want = -(p * math.log(q) + (1 - p) * math.log(1 - q))
    valid = jnp.ones((1, 2), bool)
    assert losses.distillation(student, teacher, valid) == pytest.approx(want, rel=1e-6)
    grad = jax.grad(lambda t: losses.distillation(student, t, valid))(teacher)
    assert (grad == 0).all()


def test_m3_kd_does_not_depend_on_the_order_of_the_group():
    scores, targets = make(3, 4, teacher=True)
    logits, valid = jnp.asarray(scores[0]), jnp.ones((3, 12), bool)
    assert targets.teacher_scores is not None
    sorted_ = losses.m3_kd_loss(logits, jnp.asarray(targets.teacher_scores), valid)
    order = np.array([2, 0, 3, 1])
    columns = (np.arange(3)[:, None] * 4 + order).reshape(-1)
    teacher = jnp.asarray(targets.teacher_scores)[:, order]
    shuffled = losses.m3_kd_loss(logits[:, columns], teacher, valid)
    assert shuffled == pytest.approx(float(sorted_), rel=1e-6)


def test_m3_kd_within_the_group_by_hand():
    """No in-batch negatives: two of a group, then the weaker one alone, which costs nothing."""
    logits = jnp.array([[1.0, 2.0, 9.0, 9.0], [9.0, 9.0, 0.0, 3.0]])
    teacher = jnp.array([[1.0, 0.0], [0.0, 2.0]])  # the second query's stronger one stands last
    targets = Targets(jnp.array([False, False]), jnp.arange(4), teacher)
    valid = losses.valid_passages(targets, 2, True)
    e = math.exp
    first = e(1) / (e(1) + 1) * -math.log(e(1) / (e(1) + e(2)))
    second = e(2) / (e(2) + 1) * -math.log(e(3) / (e(0) + e(3)))
    got = losses.m3_kd_loss(logits, teacher, valid)
    assert got == pytest.approx((first + second) / 2, rel=1e-5)


def test_v1_is_a_configuration():
    """The paper's first version: plain sums, up to the divisors."""
    scores, targets = make(4, 2)
    ones = HeadWeights(dense=1.0, sparse=1.0, colbert=1.0)
    config = dataclasses.replace(CONFIG, fusion=ones, weights=ones)
    loss, parts, _ = run(scores, targets, config)
    hard = sum(parts[f"nce/{h}"] for h in ("dense", "sparse", "colbert", "fused")) / 4
    soft = sum(parts[f"kd/{h}"] for h in ("dense", "sparse", "colbert")) / 3
    assert loss == pytest.approx(float((hard + soft) / 2), rel=1e-6)
    fused = losses.info_nce(sum(scores[1:], scores[0]) / 0.02, jnp.ones((4, 8), bool))
    assert parts["nce/fused"] == pytest.approx(float(fused), rel=1e-5)


@pytest.mark.parametrize("heads", [("dense",), ("dense", "sparse"), ("sparse", "colbert")])
def test_heads_that_do_not_train_have_no_part(heads):
    scores, targets = make(4, 2)
    config = dataclasses.replace(CONFIG, heads=heads)
    logits = Scores(
        *(x / 0.02 if n in heads else None for n, x in zip(Scores._fields, scores, strict=True))
    )
    loss, parts = losses.m3_loss(logits, targets, config, jnp.asarray(True))
    assert {name for name in parts if name.startswith("nce/")} - {"nce/fused"} == {
        f"nce/{head}" for head in heads
    }
    if len(heads) == 1:
        assert loss == parts["nce/dense"] and "kd/dense" not in parts
    weight = {"dense": 1.0, "sparse": 0.1, "colbert": 1.0}
    hard = sum(weight[h] * parts[f"nce/{h}"] for h in heads) + parts.get("nce/fused", 0.0)
    if len(heads) > 1:
        soft = sum(weight[h] * parts[f"kd/{h}"] for h in heads) / len(heads)
        assert loss == pytest.approx(float((hard / (len(heads) + 1) + soft) / 2), rel=1e-6)


def test_symmetric_adds_the_way_back():
    scores, targets = make(3, 2)
    config = dataclasses.replace(CONFIG, heads=("dense",), symmetric=True)
    logits = jnp.asarray(scores[0]) / 0.02
    loss, _ = losses.m3_loss(Scores(logits, None, None), targets, config, jnp.asarray(False))
    valid = jnp.ones((3, 6), bool)
    back = losses.info_nce(logits[:, ::2].T, valid[:, ::2].T)
    want = (losses.info_nce(logits, valid) + back) / 2
    assert loss == pytest.approx(float(want), rel=1e-6)


def test_matryoshka_averages_the_widths():
    scores, targets = make(3, 2)
    config = dataclasses.replace(CONFIG, heads=("dense",))
    logits = [jnp.asarray(x) / 0.02 for x in scores]
    valid = jnp.ones((3, 6), bool)
    loss, _ = losses.m3_loss(
        Scores(logits[0], None, None), targets, config, jnp.asarray(False), tuple(logits[1:])
    )
    want = sum(losses.info_nce(x, valid) for x in logits) / 3
    assert loss == pytest.approx(float(want), rel=1e-6)


def test_a_normalised_teacher_does_not_follow_the_scale_of_one_head():
    """Scores of one head times 50: the plain teacher follows it, the normalised one does not."""
    scores, targets = make(4, 2)
    config = dataclasses.replace(CONFIG, normalize_teacher=True)
    large = [scores[0], scores[1] * 50, scores[2]]
    valid = jnp.ones((4, 8), bool)

    def direction(heads, config):
        logits = Scores(*(jnp.asarray(x) / 0.02 for x in heads))
        fused = losses.fuse(logits, config.fusion)
        teacher = losses._standardized(logits, fused, valid, config)
        return losses._unit(teacher, valid)[0]

    np.testing.assert_allclose(direction(large, config), direction(scores, config), atol=1e-3)
    assert jnp.isfinite(run(large, targets, config)[0])


def test_loss_falls_when_the_positive_rises():
    scores, targets = make(4, 3)
    before = run(scores, targets, distill=False)[0]
    for head in range(3):
        higher = list(scores)
        higher[head] = scores[head].at[jnp.arange(4), jnp.arange(4) * 3].add(0.05)
        assert run(higher, targets, distill=False)[0] < before


@pytest.mark.parametrize("size", [1e4, 3e37])
def test_extreme_logits_stay_finite(size):
    scores, targets = make(3, 2)
    huge = [x * size for x in scores]
    loss, _, grads = run(huge, targets, dataclasses.replace(CONFIG, temperature=1.0))
    assert not jnp.isnan(loss) and all(not jnp.isnan(g).any() for g in grads)


def test_a_query_without_negatives_costs_nothing():
    targets = Targets(jnp.array([False, False]), jnp.array([0, 1]))
    scores = [jnp.eye(2)] * 3
    loss, _, grads = run(scores, targets)
    assert loss == 0 and all((g == 0).all() for g in grads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"heads": ("dense", "psychic")}, "heads"),
        ({"heads": ()}, "heads"),
        ({"heads": ("dense",), "fix_encoder": True}, "nothing to train"),
        ({"heads": ("sparse",), "matryoshka": (8,)}, "matryoshka"),
        ({"flops": -1.0}, "flops"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)
