"""Random inputs of the scores, and their values and gradients in PyTorch and JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

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
