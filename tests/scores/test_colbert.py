"""Late interaction: PyTorch's numbers and gradients, chunks, padding, order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_loss
from support.score_inputs import assert_same, jax_grads, tokens, torch_grads, vectors

from m3jax.scores import colbert
from m3jax.scores.colbert import colbert_scores
from m3jax.scores.sparse import sparse_scores


@pytest.mark.parity
@pytest.mark.parametrize("padding_competes", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_colbert_equals_torch(chunk, padding_competes):
    rng = np.random.default_rng(1)
    (q, q_mask), (p, p_mask) = vectors(rng, 4, 5), vectors(rng, 9, 7)
    weight = rng.normal(size=(4, 9)).astype(np.float32)
    ours = jax_grads(
        lambda a, c: colbert_scores(
            a, jnp.asarray(q_mask), c, jnp.asarray(p_mask), chunk, padding_competes
        ),
        (q, p),
        weight,
    )
    theirs = torch_grads(
        lambda a, c: reference_loss.colbert(
            a, torch.tensor(q_mask).float(), c, torch.tensor(p_mask).float(), padding_competes
        ),
        (q, p),
        weight,
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("competes", [False, True])
def test_few_similarities_at_a_time_change_nothing(monkeypatch, competes):
    """Down to one passage against a chunk of the query vectors."""
    rng = np.random.default_rng(3)
    (q, q_mask), (p, p_mask) = vectors(rng, 5, 7), vectors(rng, 4, 9)
    weight = rng.normal(size=(5, 4)).astype(np.float32)

    def scores(queries, passages):
        masks = jnp.asarray(q_mask), jnp.asarray(p_mask)
        return colbert_scores(queries, masks[0], passages, masks[1], padding_competes=competes)

    plain = jax_grads(scores, (q, p), weight)
    for most in (9 * 4, 9 * 5 * 7, 1):
        monkeypatch.setitem(colbert.SIMILARITIES, "cpu", most)
        assert_same(jax_grads(scores, (q, p), weight), plain)


def test_the_quirk_of_padding_shows_only_below_zero():
    """A passage that points away from the query: -1 when masked, 0 when padding competes."""
    q, p = jnp.array([[[1.0, 0.0]]]), jnp.array([[[-1.0, 0.0], [0.0, 0.0]]])
    masks = jnp.array([[True]]), jnp.array([[True, False]])
    assert colbert_scores(q, masks[0], p, masks[1], 8, False).item() == -1
    assert colbert_scores(q, masks[0], p, masks[1], 8, True).item() == 0


def test_a_text_without_vectors_scores_zero_and_has_a_finite_gradient():
    q, p = jnp.ones((1, 2, 3)), jnp.ones((2, 2, 3))
    none, all_ = jnp.zeros((1, 2), bool), jnp.array([[True, True], [False, False]])
    grad = jax.grad(lambda a, c: colbert_scores(a, ~none, c, all_).sum(), (0, 1))(q, p)
    assert all(jnp.isfinite(g).all() for g in grad)
    assert colbert_scores(q, none, p, all_).tolist() == [[0, 0]]
    assert colbert_scores(q, ~none, p, all_).tolist() == [[3, 0]]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_order_padding_and_repeats_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    (q_ids, q), (p_ids, p) = tokens(rng, 3, 6), tokens(rng, 5, 6)
    (qv, qm), (pv, pm) = vectors(rng, 3, 6), vectors(rng, 5, 6)
    order = rng.permutation(5)
    wide = ((0, 0), (0, 3))

    def both(q_ids, q, p_ids, p, qv, qm, pv, pm):
        arrays = map(jnp.asarray, (q_ids, q, p_ids, p, qv, qm, pv, pm))
        q_ids, q, p_ids, p, qv, qm, pv, pm = arrays
        return (
            np.asarray(sparse_scores(q_ids, q, p_ids, p)),
            np.asarray(colbert_scores(qv, qm, pv, pm, 2, False)),
        )

    plain = both(q_ids, q, p_ids, p, qv, qm, pv, pm)
    moved = both(q_ids, q, p_ids[order], p[order], qv, qm, pv[order], pm[order])
    padded = both(
        np.pad(q_ids, wide, constant_values=1),
        np.pad(q, wide),
        np.pad(p_ids, wide, constant_values=1),
        np.pad(p, wide),
        np.pad(qv, (*wide, (0, 0))),
        np.pad(qm, wide),
        np.pad(pv, (*wide, (0, 0)), constant_values=9.0),
        np.pad(pm, wide),
    )
    twice = both(
        q_ids, q, np.tile(p_ids, 2), np.concatenate([p, p * 0.5], 1), qv, qm, pv, pm
    )  # every token again, lighter
    for i in range(2):
        np.testing.assert_allclose(moved[i], plain[i][:, order], atol=1e-5)
        np.testing.assert_allclose(padded[i], plain[i], atol=1e-5)
    np.testing.assert_allclose(twice[0], plain[0], atol=1e-5)
