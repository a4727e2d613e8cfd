"""Bidirectional attention within each text of a row, by one of the back ends of `BACKENDS`.

    n rows   s queries   t keys   h heads   k width of a head   m texts in a row

`xla` runs everywhere and is the reference of the tests; `cudnn` is NVIDIA's fused kernel.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from m3jax.config import Attention, ComputeConfig, EncoderConfig
from m3jax.types import TextBatch

# Maps the columns of queries [q] to the mask [n, q, t] of the keys that they attend to.
Visible = Callable[[Int[Array, " q"]], Bool[Array, "n q t"]]

AMPERE = 8.0  # the lowest compute capability that the fused kernel supports
WIDEST_HEAD = 128  # the largest head width that it supports on all GPUs
LONG_ROW = 1024  # tokens; in longer rows attention is computed for a block of queries at a time


class Case(NamedTuple):
    """What decides whether a back end can compute attention."""

    dtype: Any  # of queries, keys and values
    head_width: int
    packed: bool  # several texts a row
    devices: Sequence[Any] | None  # that the program is compiled for; None: unknown


class Backend(NamedTuple):
    """One implementation of attention.

    `function(query, key, value, segment_ids, lengths, query_block)` computes it; `obstacles(case)`
    lists why it cannot, and is empty where it can.
    """

    function: Callable[..., Float[Array, "n s h k"]]
    obstacles: Callable[[Case], list[str]]


def attend(
    query: Float[Array, "n s h k"],
    key: Float[Array, "n s h k"],
    value: Float[Array, "n s h k"],
    segment_ids: Int[Array, "n s"],
    lengths: Int[Array, "n m"],
    backend: str,
    query_block: int,
) -> Float[Array, "n s h k"]:
    """softmax(q k^T / sqrt(k)) v, where a token attends to the tokens of its text only.

    The devices are not known here: `auto` is `xla` (see `choose_backend`). Outputs at padding
    tokens are finite and meaningless. Raises ValueError where `backend` does not support the
    dtype, the head width or packed rows.
    """
    case = Case(query.dtype, query.shape[-1], lengths.shape[1] > 1, None)
    function = BACKENDS[resolve_backend(backend, case)].function
    return function(query, key, value, segment_ids, lengths, query_block)


def choose_backend(
    compute: ComputeConfig, encoder: EncoderConfig, batch: TextBatch, mesh: Mesh | None
) -> ComputeConfig:
    """`compute` with `auto` replaced by the back end for `batch` on the devices of `mesh`.

    The program may be compiled for devices that are not attached, so JAX's default backend is
    not consulted; without a `mesh`, `auto` is `xla`. Raises ValueError for a back end that the
    devices, the dtype, the head width or packed rows rule out.
    """
    devices = None if mesh is None else list(mesh.devices.flat)
    head_width = encoder.hidden_size // encoder.heads
    case = Case(jnp.dtype(compute.dtype), head_width, batch.lengths.shape[1] > 1, devices)
    name = cast(Attention, resolve_backend(compute.attention, case))
    return dataclasses.replace(compute, attention=name)


def resolve_backend(name: str, case: Case) -> str:
    """The back end that `name` selects: for `auto` the first of `BACKENDS` that can compute `case`.

    Where the devices are unknown `auto` is `xla`. Raises ValueError for a named one that cannot.
    """
    if name == "auto":
        if case.devices is None:
            return "xla"
        return next(other for other, backend in BACKENDS.items() if not backend.obstacles(case))
    obstacles = BACKENDS[name].obstacles(case)
    if obstacles:
        raise ValueError(
            f"attention={name!r} cannot be used: {'; '.join(obstacles)}. Use attention='auto'."
        )
    return name


def _xla_obstacles(case: Case) -> list[str]:
    return []


def _cudnn_obstacles(case: Case) -> list[str]:
    obstacles = _hardware_obstacles(case.devices or ())
    if case.dtype not in (jnp.bfloat16, jnp.float16):
        dtype = jnp.dtype(case.dtype).name
        obstacles.append(f"it computes in bfloat16 or float16, not {dtype}")
    if case.head_width % 8 or case.head_width > WIDEST_HEAD:
        obstacles.append(
            f"the head width {case.head_width} is no multiple of 8 up to {WIDEST_HEAD}"
        )
    if case.packed:
        # The kernel takes one length a row, so packed texts would attend to each other.
        obstacles.append("several texts are packed into a row")
    return obstacles


def _hardware_obstacles(devices: Sequence[Any]) -> list[str]:
    """Why the first unsupported device cannot run cuDNN's kernel; empty where all can."""
    for device in devices:
        if device.platform not in ("gpu", "cuda", "rocm"):
            return [f"the device is a {device.platform.upper()}, not an NVIDIA GPU"]
        generation = str(getattr(device, "compute_capability", ""))  # "9.0"; AMD: "gfx90a"
        try:
            old = float(generation) < AMPERE
        except ValueError:
            known = generation or "it reports no compute capability"
            return [f"the device is no NVIDIA GPU ({known})"]
        if old:
            return [f"the GPU's compute capability is {generation}, not {AMPERE} or more"]
    return []


def attend_in_blocks(
    query: Float[Array, "n s h k"],
    key: Float[Array, "n s h k"],
    value: Float[Array, "n s h k"],
    visible: Visible,
    block: int,
) -> Float[Array, "n s h k"]:
    """softmax(q k^T / sqrt(k)) v over the keys that `visible` marks, `block` queries at a time.

    The backward pass recomputes each block and its mask, so that no array has a value for each pair
    of tokens of a row.
    """
    n, s, h, k = query.shape
    block = min(block, s)
    blocks = -(-s // block)
    query = jnp.pad(query, ((0, 0), (0, blocks * block - s), (0, 0), (0, 0)))
    columns = jnp.minimum(jnp.arange(blocks * block, dtype=jnp.int32), s - 1)

    @jax.checkpoint
    def attend_block(queries_and_columns):
        queries, columns = queries_and_columns
        return _plain(queries, key, value, visible(columns)[:, None])

    query_blocks = jnp.moveaxis(query.reshape(n, blocks, block, h, k), 1, 0)
    out = jax.lax.map(attend_block, (query_blocks, columns.reshape(blocks, block)))
    return jnp.moveaxis(out, 0, 1).reshape(n, blocks * block, h, k)[:, :s]


def _mask(query_segments, key_segments, packed: bool):
    """[n, 1, s or 1, t]: True where a query attends to a key."""
    if packed:
        return (query_segments[:, :, None] == key_segments[:, None, :])[:, None]
    return (key_segments > 0)[:, None, None, :]


def _plain(query, key, value, mask):
    """Attention with the scores of all pairs at once; scores and softmax in float32."""
    with jax.named_scope("attention"):
        scale = query.shape[-1] ** -0.5
        scores = jnp.einsum("nshk,nthk->nhst", query, key, preferred_element_type=jnp.float32)
        # The lowest finite number, not -inf, which would give NaN in rows of padding. Its exp() is
        # exactly 0 if any key is unmasked.
        scores = jnp.where(mask, scores * scale, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("nhst,nthk->nshk", weights, value)


def _blocked(query, key, value, query_segments, key_segments, block: int):
    """`_plain` for `block` queries at a time."""

    def visible(columns):
        return query_segments[:, columns][:, :, None] == key_segments[:, None, :]

    return attend_in_blocks(query, key, value, visible, block)


def _xla(query, key, value, segment_ids, lengths, query_block: int):
    """Attention in plain JAX; in long rows for `query_block` queries at a time."""
    packed = lengths.shape[1] > 1
    # In a padded row all tokens attend to the same keys, so the mask has no query axis.
    segments = segment_ids if packed else jnp.minimum(segment_ids, 1)
    query_segments = segments if packed else jnp.ones_like(segments)
    if query.shape[1] > LONG_ROW:
        return _blocked(query, key, value, query_segments, segments, query_block)
    return _plain(query, key, value, _mask(query_segments, segments, packed))


def _cudnn(query, key, value, segment_ids, lengths, query_block: int):
    """The fused kernel of cuDNN: padded rows only, one length a row."""
    del segment_ids, query_block
    row_lengths = jnp.maximum(lengths[:, 0], 1).astype(jnp.int32)  # a length of 0 is undefined
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        query_seq_lengths=row_lengths,
        key_value_seq_lengths=row_lengths,
        implementation="cudnn",
    )


# In the order in which `auto` tries them.
BACKENDS: dict[str, Backend] = {
    "cudnn": Backend(_cudnn, _cudnn_obstacles),
    "xla": Backend(_xla, _xla_obstacles),
}
