"""Batches larger than the memory for their activations: rows a part at a time.

    k  parts    r  rows of a part

Two ways, each equal to the plain computation. `remat` encodes the parts one after another and
encodes each again in the backward pass: the paper's split-batch [M3 sec. 3.4]. `cached` encodes all
parts without gradients, differentiates the loss with respect to the representations, and encodes
each part once more to carry that gradient on to the parameters (Gao et al. 2021, arXiv 2101.06983):
no activation outlives its part, for all heads and the teacher together.

Dropout draws a part's masks from the part's number, in every way and in both passes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from m3jax.config import ComputeConfig, LossConfig, M3Config, StepConfig
from m3jax.model.m3 import Params, encode_batch
from m3jax.sharding import BATCH_AXES, batch_shards
from m3jax.train.objectives import Metrics, check_batch, loss_of_encodings, objective
from m3jax.types import Encoding, TextBatch, TrainBatch


class Setting(NamedTuple):
    """What stays the same from step to step."""

    model: M3Config
    loss: LossConfig
    step: StepConfig
    compute: ComputeConfig
    mesh: Mesh | None


Gradients = tuple[tuple[Float[Array, ""], Metrics], Params]


def loss_and_gradients(
    trained: Params,
    join: Callable[[Params], Params],
    batch: TrainBatch,
    setting: Setting,
    step: Int[Array, ""] | int,
    dropout_key: jax.Array | None = None,
) -> Gradients:
    """((loss, metrics), gradients of `trained`), by the setting's way; `join` adds what is frozen.

    Raises ValueError for a batch without any negative, and for packed rows in the `cached` way.
    """
    if setting.step.split == "cached":
        return _cached(trained, join, batch, setting, step, dropout_key)

    def loss(trained: Params):
        if setting.step.split == "none":
            return objective(
                join(trained),
                batch,
                setting.model,
                setting.loss,
                step,
                compute=setting.compute,
                mesh=setting.mesh,
                dropout_key=dropout_key,
            )
        return split_objective(join(trained), batch, setting, step, dropout_key, remat=True)

    return jax.value_and_grad(loss, has_aux=True)(trained)


def split_objective(
    params: Params,
    batch: TrainBatch,
    setting: Setting,
    step: Int[Array, ""] | int,
    dropout_key: jax.Array | None,
    *,
    remat: bool,
) -> tuple[Float[Array, ""], Metrics]:
    """`objective` with rows encoded in parts; with `remat` a part is recomputed when needed."""
    check_batch(batch)
    if batch.packed is not None:
        raise ValueError("packed rows are encoded at once: step.split must be none")
    encode = _encoder(setting)
    encode = jax.checkpoint(encode) if remat else encode
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    sides = []
    for texts, key in zip((batch.queries, batch.passages), keys, strict=True):
        pieces, numbers = _parts(texts, setting), _numbers(texts, setting)

        def one(piece, key=key):
            return encode(params, piece[0], _fold(key, piece[1]))

        sides.append(_whole(jax.lax.map(one, (pieces, numbers)), setting))
    return loss_of_encodings(sides[0], sides[1], batch, setting.loss, step, setting.mesh)


def _cached(trained, join, batch: TrainBatch, setting: Setting, step, dropout_key) -> Gradients:
    check_batch(batch)
    if batch.packed is not None:
        raise ValueError("packed rows are encoded at once: step.split must be none")
    encode = _encoder(setting)
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    texts = (batch.queries, batch.passages)
    work = [(_parts(side, setting), _numbers(side, setting)) for side in texts]
    params = jax.lax.stop_gradient(join(trained))
    encodings = [
        _whole(
            jax.lax.map(lambda piece, key=key: encode(params, piece[0], _fold(key, piece[1])), w),
            setting,
        )
        for w, key in zip(work, keys, strict=True)
    ]

    def loss(vectors: list[Any]):
        sides = [e._replace(**v) for e, v in zip(encodings, vectors, strict=True)]
        return loss_of_encodings(sides[0], sides[1], batch, setting.loss, step, setting.mesh)

    vectors = [_vectors(encoding) for encoding in encodings]
    (value, metrics), wanted = jax.value_and_grad(loss, has_aux=True)(vectors)

    gradients = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), trained)
    for (pieces, numbers), gradient, key in zip(work, wanted, keys, strict=True):

        def add(total, piece, key=key):
            rows, number, pull = piece

            def again(trained):
                return _vectors(encode(join(trained), rows, _fold(key, number)))

            _, back = jax.vjp(again, trained)
            (more,) = back(pull)
            return jax.tree.map(lambda a, b: a + b.astype(jnp.float32), total, more), None

        pulls = {name: _split(leaf, len(numbers), setting.mesh) for name, leaf in gradient.items()}
        gradients, _ = jax.lax.scan(add, gradients, (pieces, numbers, pulls))
    return (value, metrics), gradients


def _encoder(setting: Setting) -> Callable[..., Encoding]:
    def encode(params: Params, rows: TextBatch, key: jax.Array | None) -> Encoding:
        if setting.loss.fix_encoder:
            params = params | {"encoder": jax.lax.stop_gradient(params["encoder"])}
        return encode_batch(
            params, rows, setting.model, setting.compute, setting.loss.heads, key, setting.mesh
        )

    return encode


def _vectors(encoding: Encoding) -> dict[str, Any]:
    """The representations that carry a gradient."""
    named = {"dense": encoding.dense, "sparse": encoding.sparse, "colbert": encoding.colbert}
    return {name: value for name, value in named.items() if value is not None}


def parts_of(rows: int, width: int, devices: int, sub_tokens: int) -> int:
    """Into how many parts `rows` are cut: each of at most `sub_tokens` a device, all as large.

    A row longer than `sub_tokens` is a part of its own.
    """
    local = rows // devices
    most = max(1, sub_tokens // width)
    return next(
        parts for parts in range(1, local + 1) if local % parts == 0 and local // parts <= most
    )


def _count(texts: TextBatch, setting: Setting) -> int:
    rows, width = texts.token_ids.shape
    return parts_of(rows, width, batch_shards(setting.mesh), setting.step.sub_tokens)


def _parts(texts: TextBatch, setting: Setting) -> TextBatch:
    count = _count(texts, setting)
    return jax.tree.map(lambda leaf: _split(jnp.asarray(leaf), count, setting.mesh), texts)


def _numbers(texts: TextBatch, setting: Setting) -> Int[Array, " k"]:
    return jnp.arange(_count(texts, setting), dtype=jnp.int32)


def _fold(key: jax.Array | None, number) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, number)


def _split(leaf, parts: int, mesh: Mesh | None):
    """[n, ...] to [k, r, ...], each part with rows of every device: nothing moves between them."""
    devices = batch_shards(mesh)
    rows = leaf.shape[0] // (devices * parts)
    leaf = leaf.reshape(devices, parts, rows, *leaf.shape[1:])
    leaf = jnp.moveaxis(leaf, 1, 0).reshape(parts, devices * rows, *leaf.shape[3:])
    return _placed(leaf, P(None, BATCH_AXES), mesh)


def _whole(parts: Any, setting: Setting) -> Any:
    """The inverse of `_split`, for every leaf."""
    devices = batch_shards(setting.mesh)

    def join(leaf):
        k, r = leaf.shape[0], leaf.shape[1] // devices
        leaf = jnp.moveaxis(leaf.reshape(k, devices, r, *leaf.shape[2:]), 0, 1)
        return _placed(leaf.reshape(devices * k * r, *leaf.shape[3:]), P(BATCH_AXES), setting.mesh)

    return jax.tree.map(join, parts)


def _placed(leaf, spec: P, mesh: Mesh | None):
    if mesh is None:
        return leaf
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))
