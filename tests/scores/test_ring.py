"""Scores over several devices equal those of one, without gathering passages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.score_inputs import assert_same, jax_grads, tokens, vectors

from m3jax import sharding
from m3jax.scores.colbert import colbert_scores
from m3jax.scores.ring import gathered_scores, ring_colbert_scores
from m3jax.scores.sparse import sparse_scores

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
