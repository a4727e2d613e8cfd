"""In-batch scores: PyTorch's numbers and gradients, invariances, and the ring over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_loss

from m3jax import sharding
from m3jax.scores import colbert
from m3jax.scores.colbert import colbert_scores
from m3jax.scores.dense import dense_scores
from m3jax.scores.ring import gathered_scores, ring_colbert_scores
from m3jax.scores.sparse import distinct_mask, flops, l1, sparse_scores

VOCAB, SPECIAL = 40, (0, 1, 2, 3)


def tokens(rng, rows, width):
    """Ids with many repeats, special ones among them; weights 0 where a token does not count."""
    ids = rng.integers(0, 14, (rows, width)).astype(np.int32)
    ids[:, 0] = 0
    weights = np.maximum(rng.normal(0.3, 1, (rows, width)), 0).astype(np.float32)
    return ids, np.where(np.isin(ids, SPECIAL), 0, weights).astype(np.float32)


def vectors(rng, rows, width, dims=6):
    """Unit vectors and a mask: first place out, padding behind the end."""
    x = rng.normal(size=(rows, width, dims)).astype(np.float32)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    lengths = rng.integers(2, width + 1, rows)
    place = np.arange(width)
    return x, (place > 0) & (place < lengths[:, None])


def torch_grads(function, arrays, weight):
    inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    out = function(*inputs)
    (out * torch.tensor(weight)).sum().backward()
    grads = []
    for x in inputs:
        assert x.grad is not None
        grads.append(x.grad.numpy())
    return out.detach().numpy(), grads


def jax_grads(function, arrays, weight):
    def total(*inputs):
        out = function(*inputs)
        return jnp.sum(out * weight), out

    argnums = tuple(range(len(arrays)))
    grads, out = jax.jit(jax.grad(total, argnums, has_aux=True))(*map(jnp.asarray, arrays))
    return out, grads


def assert_same(ours, theirs):
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5, rtol=1e-5)
    for a, b in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()), rtol=0)


@pytest.mark.parity
def test_dense_equals_torch():
    rng = np.random.default_rng(0)
    q, p, w = (rng.normal(size=s).astype(np.float32) for s in ((3, 8), (6, 8), (3, 6)))
    ours, theirs = jax_grads(dense_scores, (q, p), w), torch_grads(reference_loss.dense, (q, p), w)
    assert_same(ours, theirs)


@pytest.mark.parity
@pytest.mark.parametrize("block", [1, 2, 16])
@pytest.mark.parametrize("shape", [(1, 1, 5, 5), (3, 6, 7, 11), (5, 40, 12, 20)])
def test_sparse_equals_torch(shape, block):
    """With repeats, special tokens, padding; the gradient reaches the largest weight's place."""
    rng = np.random.default_rng(0)
    b, p, s, t = shape
    (q_ids, q), (p_ids, x) = tokens(rng, b, s), tokens(rng, p, t)
    weight = rng.normal(size=(b, p)).astype(np.float32)
    ours = jax_grads(
        lambda a, c: sparse_scores(jnp.asarray(q_ids), a, jnp.asarray(p_ids), c, block),
        (q, x), weight,
    )  # fmt: skip
    theirs = torch_grads(
        lambda a, c: reference_loss.sparse(
            torch.tensor(q_ids).long(), a, torch.tensor(p_ids).long(), c, VOCAB, SPECIAL
        ),
        (q, x), weight,
    )  # fmt: skip
    # A weight of 0 sits behind a ReLU that passes nothing on: only positive ones are compared.
    masked = [
        [np.asarray(g) * (a > 0) for g, a in zip(side[1], (q, x), strict=True)]
        for side in (ours, theirs)
    ]
    assert_same((ours[0], masked[0]), (theirs[0], masked[1]))


def test_equal_weights_give_the_gradient_to_the_first():
    ids, weights = jnp.array([[5, 7, 5, 5]], jnp.int32), jnp.array([[0.2, 0.5, 0.4, 0.4]])
    assert distinct_mask(ids, weights).tolist() == [[False, True, True, False]]


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
        (q, p), weight,
    )  # fmt: skip
    theirs = torch_grads(
        lambda a, c: reference_loss.colbert(
            a, torch.tensor(q_mask).float(), c, torch.tensor(p_mask).float(), padding_competes
        ),
        (q, p), weight,
    )  # fmt: skip
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
        np.pad(q_ids, wide, constant_values=1), np.pad(q, wide),
        np.pad(p_ids, wide, constant_values=1), np.pad(p, wide),
        np.pad(qv, (*wide, (0, 0))), np.pad(qm, wide),
        np.pad(pv, (*wide, (0, 0)), constant_values=9.0), np.pad(pm, wide),
    )  # fmt: skip
    twice = both(
        q_ids, q, np.tile(p_ids, 2), np.concatenate([p, p * 0.5], 1), qv, qm, pv, pm
    )  # every token again, lighter
    for i in range(2):
        np.testing.assert_allclose(moved[i], plain[i][:, order], atol=1e-5)
        np.testing.assert_allclose(padded[i], plain[i], atol=1e-5)
    np.testing.assert_allclose(twice[0], plain[0], atol=1e-5)


def test_regularisers_by_hand():
    ids = jnp.array([[5, 5, 6], [6, 7, 0]], jnp.int32)
    weights = jnp.array([[1.0, 3.0, 1.0], [2.0, 0.5, 0.0]])
    # means over the two texts: token 5: 1.5, token 6: 1.5, token 7: 0.25
    assert flops(ids, weights) == pytest.approx(1.5**2 + 1.5**2 + 0.25**2)
    assert l1(ids, weights) == pytest.approx((3 + 1 + 2 + 0.5) / 2)


MESHES = [(8, 1, 1), (4, 2, 1), (2, 2, 2)]


@pytest.mark.parametrize("sizes", MESHES)
def test_the_ring_equals_one_device(sizes):
    mesh = sharding.make_mesh(*sizes)
    rng = np.random.default_rng(2)
    (q, q_mask), (p, p_mask) = vectors(rng, 8, 5), vectors(rng, 24, 7)
    weight = rng.normal(size=(8, 24)).astype(np.float32)
    masks = jnp.asarray(q_mask), jnp.asarray(p_mask)
    plain = jax_grads(lambda a, c: colbert_scores(a, masks[0], c, masks[1]), (q, p), weight)
    ring = jax_grads(
        lambda a, c: ring_colbert_scores(a, masks[0], c, masks[1], mesh), (q, p), weight
    )
    assert_same(ring, plain)
    (q_ids, x), (p_ids, y) = tokens(rng, 8, 6), tokens(rng, 24, 9)
    ids = jnp.asarray(q_ids), jnp.asarray(p_ids)
    plain = jax_grads(lambda a, c: sparse_scores(ids[0], a, ids[1], c), (x, y), weight)
    wide = jax_grads(
        lambda a, c: gathered_scores(sparse_scores, (ids[0], a), (ids[1], c), mesh), (x, y), weight
    )
    assert_same(wide, plain)


def test_no_device_ever_holds_all_passages():
    """The compiled program of one device: no array with the vectors of all passages, no gather."""
    mesh = sharding.make_mesh(8, 1, 1)
    rows = sharding.batch_sharding(mesh)
    shapes = ((8, 4, 16), (8, 4), (64, 32, 16), (64, 32))
    q, q_mask, p, p_mask = (
        jax.ShapeDtypeStruct(s, bool if len(s) == 2 else jnp.float32, sharding=rows) for s in shapes
    )

    def loss(q, q_mask, p, p_mask):
        return jnp.sum(ring_colbert_scores(q, q_mask, p, p_mask, mesh) ** 2)

    text = jax.jit(jax.grad(loss, (0, 2))).lower(q, q_mask, p, p_mask).compile().as_text()
    assert text is not None
    assert "f32[8,32,16]" in text and "collective-permute" in text
    for shape in ("f32[64,32,16]", "f32[8,8,32,16]", "all-gather"):
        assert shape not in text
