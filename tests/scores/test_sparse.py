"""Sparse scores: PyTorch's numbers and gradients; regularisers by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from support import reference_loss
from support.score_inputs import SPECIAL, VOCAB, assert_same, jax_grads, tokens, torch_grads

from m3jax.scores.sparse import distinct_mask, flops, l1, sparse_scores


@pytest.mark.parity
@pytest.mark.parametrize("block", [1, 2, 16])
@pytest.mark.parametrize("shape", [(1, 1, 5, 5), (3, 6, 7, 11), (5, 40, 12, 20)])
def test_sparse_equals_torch(shape, block):
    """With repeats, special tokens, padding; only the largest weight gets a gradient."""
    rng = np.random.default_rng(0)
    b, p, s, t = shape
    (q_ids, q), (p_ids, x) = tokens(rng, b, s), tokens(rng, p, t)
    weight = rng.normal(size=(b, p)).astype(np.float32)
    ours = jax_grads(
        lambda a, c: sparse_scores(jnp.asarray(q_ids), a, jnp.asarray(p_ids), c, block),
        (q, x),
        weight,
    )
    theirs = torch_grads(
        lambda a, c: reference_loss.sparse(
            torch.tensor(q_ids).long(), a, torch.tensor(p_ids).long(), c, VOCAB, SPECIAL
        ),
        (q, x),
        weight,
    )
    # A weight of 0 sits behind a ReLU that passes nothing on: only positive ones are compared.
    masked = [
        [np.asarray(g) * (a > 0) for g, a in zip(side[1], (q, x), strict=True)]
        for side in (ours, theirs)
    ]
    assert_same((ours[0], masked[0]), (theirs[0], masked[1]))


def test_equal_weights_give_the_gradient_to_the_first():
    ids, weights = jnp.array([[5, 7, 5, 5]], jnp.int32), jnp.array([[0.2, 0.5, 0.4, 0.4]])
    assert distinct_mask(ids, weights).tolist() == [[False, True, True, False]]


def test_regularisers_by_hand():
    ids = jnp.array([[5, 5, 6], [6, 7, 0]], jnp.int32)
    weights = jnp.array([[1.0, 3.0, 1.0], [2.0, 0.5, 0.0]])
    # means over the two texts: token 5: 1.5, token 6: 1.5, token 7: 0.25
    assert flops(ids, weights) == pytest.approx(1.5**2 + 1.5**2 + 0.25**2)
    assert l1(ids, weights) == pytest.approx((3 + 1 + 2 + 0.5) / 2)
