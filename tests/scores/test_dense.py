"""Dense scores: PyTorch's numbers and gradients."""

import numpy as np
import pytest
from support import reference_loss
from support.score_inputs import assert_same, jax_grads, torch_grads

from m3jax.scores.dense import dense_scores


@pytest.mark.parity
def test_dense_equals_torch():
    rng = np.random.default_rng(0)
    q, p, w = (rng.normal(size=s).astype(np.float32) for s in ((3, 8), (6, 8), (3, 6)))
    ours, theirs = jax_grads(dense_scores, (q, p), w), torch_grads(reference_loss.dense, (q, p), w)
    assert_same(ours, theirs)
