"""Bidirectional attention within each text of a row, by one of two back ends.

    n rows   s queries   t keys   h heads   k width of a head   m texts in a row

`xla` runs everywhere and is the oracle of the tests; `cudnn` is NVIDIA's fused kernel.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# The keys that some queries may see: columns of the queries [q] to a mask [n, q, t].
Visible = Callable[[Int[Array, " q"]], Bool[Array, "n q t"]]

AMPERE = 8.0  # the first compute capability that the fused kernel runs on
WIDEST_HEAD = 128  # of that kernel on all of them
LONG_ROW = 1024  # tokens; above this the scores of all pairs of tokens are never held at once


def attend(
    query: Float[Array, "n s h k"],
    key: Float[Array, "n s h k"],
    value: Float[Array, "n s h k"],
    segment_ids: Int[Array, "n s"],
    lengths: Int[Array, "n m"],
    backend: str,
    query_block: int,
) -> Float[Array, "n s h k"]:
    """softmax(q k^T / sqrt(k)) v, where a token sees only the tokens of its own text.

    Rows of padding hold finite numbers of no meaning. Raises ValueError where `backend` cannot
    compute what is asked.
    """
    packed = lengths.shape[1] > 1
    if resolve_backend(backend, query.dtype, query.shape[-1], packed) == "cudnn":
        return _cudnn(query, key, value, lengths)
    # In a padded row every real token sees the same keys, so the mask has no query axis.
    segments = segment_ids if packed else jnp.minimum(segment_ids, 1)
    query_segments = segments if packed else jnp.ones_like(segments)
    if query.shape[1] > LONG_ROW:
        return _blocked(query, key, value, query_segments, segments, query_block)
    return _plain(query, key, value, _mask(query_segments, segments, packed))


def resolve_backend(backend: str, dtype: Any, head_width: int, packed: bool) -> str:
    """The back end that `auto` stands for here; a named one that cannot serve raises ValueError."""
    half = dtype in (jnp.bfloat16, jnp.float16)
    reasons = _missing_hardware()
    if not half:
        reasons.append(f"it computes in bfloat16 or float16, not {jnp.dtype(dtype).name}")
    if head_width % 8 or head_width > WIDEST_HEAD:
        reasons.append(f"the head width {head_width} is no multiple of 8 up to {WIDEST_HEAD}")
    if packed:
        # The kernel takes one length a row. It would let packed texts see each other.
        reasons.append("several texts are packed into a row")
    if backend == "cudnn" and reasons:
        raise ValueError(
            f"attention='cudnn' cannot be used: {'; '.join(reasons)}. Use attention='auto'."
        )
    if backend == "auto":
        return "xla" if reasons else "cudnn"
    return backend


def _missing_hardware() -> list[str]:
    """Why the device at hand cannot run cuDNN's kernel; empty where it can."""
    if jax.default_backend() != "gpu":
        return [f"the device is a {jax.default_backend().upper()}, not an NVIDIA GPU"]
    generation = str(getattr(jax.devices()[0], "compute_capability", ""))  # "9.0"; AMD: "gfx90a"
    try:
        old = float(generation) < AMPERE
    except ValueError:
        return [f"the device is no NVIDIA GPU ({generation or 'it tells no compute capability'})"]
    return [f"the GPU's compute capability is {generation}, not {AMPERE} or more"] if old else []


def attend_in_blocks(
    query: Float[Array, "n s h k"],
    key: Float[Array, "n s h k"],
    value: Float[Array, "n s h k"],
    visible: Visible,
    block: int,
) -> Float[Array, "n s h k"]:
    """softmax(q k^T / sqrt(k)) v over the keys that `visible` names, `block` queries at a time.

    The backward pass recomputes each block, its part of the mask included: no array ever holds
    all pairs of tokens.
    """
    n, s, h, k = query.shape
    block = min(block, s)
    blocks = -(-s // block)
    query = jnp.pad(query, ((0, 0), (0, blocks * block - s), (0, 0), (0, 0)))
    columns = jnp.minimum(jnp.arange(blocks * block, dtype=jnp.int32), s - 1)

    @jax.checkpoint
    def one(piece):
        queries, columns = piece
        return _plain(queries, key, value, visible(columns)[:, None])

    pieces = jnp.moveaxis(query.reshape(n, blocks, block, h, k), 1, 0)
    out = jax.lax.map(one, (pieces, columns.reshape(blocks, block)))
    return jnp.moveaxis(out, 0, 1).reshape(n, blocks * block, h, k)[:, :s]


def _mask(query_segments, key_segments, packed: bool):
    """[n, 1, s or 1, t]: True where the key may be seen."""
    if packed:
        return (query_segments[:, :, None] == key_segments[:, None, :])[:, None]
    return (key_segments > 0)[:, None, None, :]


def _plain(query, key, value, mask):
    """Attention with all scores at once, in float32 from the scores to the weights."""
    with jax.named_scope("attention"):
        scale = query.shape[-1] ** -0.5
        scores = jnp.einsum("nshk,nthk->nhst", query, key, preferred_element_type=jnp.float32)
        # The lowest finite number, not -inf: a row of padding must not become NaN. exp() of it is
        # exactly 0 as soon as one key is seen.
        scores = jnp.where(mask, scores * scale, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("nhst,nthk->nshk", weights, value)


def _blocked(query, key, value, query_segments, key_segments, block: int):
    """The same for a block of queries at a time."""

    def visible(columns):
        return query_segments[:, columns][:, :, None] == key_segments[:, None, :]

    return attend_in_blocks(query, key, value, visible, block)


def _cudnn(query, key, value, lengths):
    """The fused kernel of cuDNN: padded rows only, one length a row."""
    row_lengths = jnp.maximum(lengths[:, 0], 1).astype(jnp.int32)  # a length of 0 is undefined
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        query_seq_lengths=row_lengths,
        key_value_seq_lengths=row_lengths,
        implementation="cudnn",
    )
