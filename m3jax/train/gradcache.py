"""Loss and gradients of batches whose activations exceed the memory, by micro-batches.

    n  rows    k  micro-batches    r  rows of a micro-batch

Both methods equal the plain computation. `remat` encodes the micro-batches in turn and encodes each
again in the backward pass: the split-batch of the paper [M3 sec. 3.4]. `cached` encodes all
micro-batches without gradients, differentiates the loss with respect to the representations, and
encodes each micro-batch once more to propagate that gradient to the parameters (Gao et al. 2021,
arXiv 2101.06983). Its memory for activations is that of one micro-batch, for all heads and the
self-distillation teacher together.

The dropout masks of a micro-batch depend on its number, and are the same in both passes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from m3jax.model.m3 import Params, encode_batch
from m3jax.sharding import BATCH_AXES, batch_shards
from m3jax.train.objectives import (
    Metrics,
    ObjectiveOptions,
    check_batch,
    loss_of_encodings,
    objective,
)
from m3jax.types import Encoding, TextBatch, TrainBatch

Gradients = tuple[tuple[Float[Array, ""], Metrics], Params]


def loss_and_gradients(
    options: ObjectiveOptions,
    trained: Params,
    join: Callable[[Params], Params],
    batch: TrainBatch,
    step: Int[Array, ""] | int,
    dropout_key: jax.Array | None = None,
) -> Gradients:
    """((loss, metrics), gradients of `trained`), computed as `options.step.split` says.

    `join` adds the frozen parameters. Raises ValueError for a batch without negatives, and for
    packed rows unless `split` is "none".
    """
    if not options.model.encoder.dropout:
        dropout_key = None
    if options.step.split == "cached":
        return _cached(options, trained, join, batch, step, dropout_key)
    loss_of = objective if options.step.split == "none" else split_objective

    def loss(trained: Params):
        return loss_of(join(trained), batch, options, step, dropout_key)

    return jax.value_and_grad(loss, has_aux=True)(trained)


def split_objective(
    params: Params,
    batch: TrainBatch,
    options: ObjectiveOptions,
    step: Int[Array, ""] | int,
    dropout_key: jax.Array | None = None,
    *,
    remat: bool = True,
) -> tuple[Float[Array, ""], Metrics]:
    """`objective` with rows encoded by micro-batches, each recomputed when needed if `remat`."""
    _check(batch)
    encode = _encoder(options)
    encode = jax.checkpoint(encode) if remat else encode
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    sides = []
    for texts, key in zip((batch.queries, batch.passages), keys, strict=True):

        def encode_one(microbatch, key=key):
            return encode(params, microbatch[0], _fold(key, microbatch[1]))

        encodings = jax.lax.map(encode_one, _microbatches(texts, options))
        sides.append(_merge(encodings, options.mesh))
    return loss_of_encodings(sides[0], sides[1], batch, options.loss, step, options.mesh)


def _cached(
    options: ObjectiveOptions, trained: Params, join, batch: TrainBatch, step, dropout_key
) -> Gradients:
    _check(batch)
    encode = _encoder(options)
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    work = [_microbatches(texts, options) for texts in (batch.queries, batch.passages)]
    params = jax.lax.stop_gradient(join(trained))
    encodings = [
        _merge(
            jax.lax.map(lambda mb, key=key: encode(params, mb[0], _fold(key, mb[1])), microbatches),
            options.mesh,
        )
        for microbatches, key in zip(work, keys, strict=True)
    ]

    def loss(vectors: list[Any]):
        sides = [e._replace(**v) for e, v in zip(encodings, vectors, strict=True)]
        return loss_of_encodings(sides[0], sides[1], batch, options.loss, step, options.mesh)

    vectors = [_vectors(encoding) for encoding in encodings]
    (value, metrics), cotangents = jax.value_and_grad(loss, has_aux=True)(vectors)

    gradients = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), trained)
    for (rows, numbers), cotangent, key in zip(work, cotangents, keys, strict=True):

        def add(total, microbatch, key=key):
            rows, number, cotangent = microbatch

            def encode_again(trained):
                return _vectors(encode(join(trained), rows, _fold(key, number)))

            _, pull_back = jax.vjp(encode_again, trained)
            (more,) = pull_back(cotangent)
            return jax.tree.map(lambda a, b: a + b.astype(jnp.float32), total, more), None

        split = {name: _split(leaf, len(numbers), options.mesh) for name, leaf in cotangent.items()}
        gradients, _ = jax.lax.scan(add, gradients, (rows, numbers, split))
    return (value, metrics), gradients


def _check(batch: TrainBatch) -> None:
    check_batch(batch)
    if batch.packed is not None:
        raise ValueError("packed rows cannot be split into micro-batches: set step.split to none")


def _encoder(options: ObjectiveOptions) -> Callable[..., Encoding]:
    def encode(params: Params, rows: TextBatch, key: jax.Array | None) -> Encoding:
        if options.loss.fix_encoder:
            params = params | {"encoder": jax.lax.stop_gradient(params["encoder"])}
        return encode_batch(
            params,
            rows,
            options.model,
            options.compute,
            options.loss.heads,
            dropout_key=key,
            mesh=options.mesh,
        )

    return encode


def _vectors(encoding: Encoding) -> dict[str, Any]:
    """The representations that the loss is differentiated with respect to."""
    named = {"dense": encoding.dense, "sparse": encoding.sparse, "colbert": encoding.colbert}
    return {name: value for name, value in named.items() if value is not None}


def num_microbatches(rows: int, width: int, devices: int, sub_tokens: int) -> int:
    """The number of equal micro-batches of `rows` rows of `width` tokens.

    A micro-batch has at most `sub_tokens` tokens per device, but at least one row.
    """
    local = rows // devices
    limit = max(1, sub_tokens // width)
    candidates = range(1, local + 1)
    return next(k for k in candidates if local % k == 0 and local // k <= limit)


def _microbatches(
    texts: TextBatch, options: ObjectiveOptions
) -> tuple[TextBatch, Int[Array, " k"]]:
    """The rows of `texts` by micro-batch, [k, r, ...], and the numbers of the micro-batches."""
    rows, width = texts.token_ids.shape
    count = num_microbatches(rows, width, batch_shards(options.mesh), options.step.sub_tokens)
    split = jax.tree.map(lambda leaf: _split(jnp.asarray(leaf), count, options.mesh), texts)
    return split, jnp.arange(count, dtype=jnp.int32)


def _fold(key: jax.Array | None, number) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, number)


def _split(leaf: Shaped[Array, "n ..."], count: int, mesh: Mesh | None):
    """[n, ...] to [k, r, ...]. Every micro-batch has rows of every device: nothing is moved."""
    devices = batch_shards(mesh)
    rows = leaf.shape[0] // (devices * count)
    leaf = leaf.reshape(devices, count, rows, *leaf.shape[1:])
    leaf = jnp.moveaxis(leaf, 1, 0).reshape(count, devices * rows, *leaf.shape[3:])
    return _constrain(leaf, P(None, BATCH_AXES), mesh)


def _merge(microbatches: Any, mesh: Mesh | None) -> Any:
    """The inverse of `_split`, for every leaf."""
    devices = batch_shards(mesh)

    def merge(leaf):
        k, r = leaf.shape[0], leaf.shape[1] // devices
        leaf = jnp.moveaxis(leaf.reshape(k, devices, r, *leaf.shape[2:]), 0, 1)
        return _constrain(leaf.reshape(devices * k * r, *leaf.shape[3:]), P(BATCH_AXES), mesh)

    return jax.tree.map(merge, microbatches)


def _constrain(leaf, spec: P, mesh: Mesh | None):
    if mesh is None:
        return leaf
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))
