"""The training objective: from a batch to a loss and its metrics.

    b  queries    g  passages per query    p  passages = b * g

All training stages use this function; a stage is a `LossConfig`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from m3jax import losses
from m3jax.config import ComputeConfig, LossConfig, M3Config, StepConfig
from m3jax.model.heads import normalize
from m3jax.model.m3 import PLAIN, Params, encode_batch
from m3jax.scores.colbert import colbert_scores
from m3jax.scores.dense import dense_scores
from m3jax.scores.ring import gathered_scores, ring_colbert_scores
from m3jax.scores.sparse import flops, l1, sparse_scores
from m3jax.train.unpack import unpack
from m3jax.types import Encoding, Scores, TrainBatch

DEAD_SHARE = 0.001  # of tokens with a weight above 0; below it the sparse head matches nothing

Metrics = dict[str, Float[Array, ""]]


class ObjectiveOptions(NamedTuple):
    """What the objective depends on besides parameters, batch and step; constant during a run."""

    model: M3Config
    loss: LossConfig
    step: StepConfig = StepConfig()
    compute: ComputeConfig = PLAIN
    mesh: Mesh | None = None


def objective(
    params: Params,
    batch: TrainBatch,
    options: ObjectiveOptions,
    step: Int[Array, ""] | int,
    dropout_key: jax.Array | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of one batch and its metrics. `step` counts optimizer steps from 0.

    With a mesh, rows are split over `data` and `fsdp`, and every query is scored against the
    passages of all devices. Raises ValueError for a batch without negatives.
    """
    check_batch(batch)
    if options.loss.fix_encoder:
        params = params | {"encoder": jax.lax.stop_gradient(params["encoder"])}
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    encode = functools.partial(
        encode_batch,
        config=options.model,
        compute=options.compute,
        heads=options.loss.heads,
        mesh=options.mesh,
    )
    if batch.packed is not None:
        encoding = encode(params, batch.packed.rows, dropout_key=keys[0])
        queries, passages = unpack(encoding, batch, options.mesh)
    else:
        queries = encode(params, batch.queries, dropout_key=keys[0])
        passages = encode(params, batch.passages, dropout_key=keys[1])
    return loss_of_encodings(queries, passages, batch, options.loss, step, options.mesh)


def loss_of_encodings(
    queries: Encoding,
    passages: Encoding,
    batch: TrainBatch,
    config: LossConfig,
    step: Int[Array, ""] | int,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """`objective` from encodings. Gradient caching differentiates this function alone."""
    batch = jax.tree.map(jnp.asarray, batch)
    scores = all_scores(queries, passages, batch, config, mesh)
    logits = Scores(*(None if x is None else x / config.temperature for x in scores))
    distill = jnp.asarray(step) >= config.self_distill_start
    prefixes = _dense_prefixes(queries, passages, config)
    loss, metrics = losses.m3_loss(logits, batch.targets, config, distill, prefixes)
    valid = losses.valid_passages(
        batch.targets, len(batch.targets.in_batch), config.mask_duplicates
    )
    for name in config.heads:
        metrics |= _describe(name, getattr(scores, name), valid)
    if queries.sparse is not None and passages.sparse is not None:
        loss = loss + _regularizer(queries, passages, batch, config)
        metrics["sparse_active"] = _active_share(queries, passages, batch)
    return loss, metrics | {"loss": loss}


def all_scores(
    queries: Encoding,
    passages: Encoding,
    batch: TrainBatch,
    config: LossConfig,
    mesh: Mesh | None = None,
) -> Scores:
    """The scores of all query-passage pairs by each trained head."""
    dense = sparse = colbert = None
    if queries.dense is not None and passages.dense is not None:
        pair = (queries.dense[:, 0],), (passages.dense[:, 0],)
        dense = _all_devices(dense_scores, *pair, mesh)
    if queries.sparse is not None and passages.sparse is not None:
        pair = (
            (jnp.asarray(batch.queries.token_ids), queries.sparse),
            (jnp.asarray(batch.passages.token_ids), passages.sparse),
        )
        sparse = _all_devices(sparse_scores, *pair, mesh)
    if queries.colbert is not None and passages.colbert is not None:
        arrays = queries.colbert, queries.mask, passages.colbert, passages.mask
        if mesh is None:
            colbert = colbert_scores(*arrays, padding_competes=config.padding_competes)
        else:
            colbert = ring_colbert_scores(*arrays, mesh, padding_competes=config.padding_competes)
    return Scores(dense, sparse, colbert)


def dead_heads(metrics: dict[str, float]) -> list[str]:
    """Warnings about heads that have stopped learning."""
    share = metrics.get("sparse_active")
    if share is None or share >= DEAD_SHARE:
        return []
    return [
        f"only {share:.2%} of tokens have a sparse weight above 0: the sparse head is dying. Lower "
        "optimizer.sparse_rate, train the heads first with loss.fix_encoder, or raise the bias of "
        "the sparse head."
    ]


def _all_devices(function, queries, passages, mesh: Mesh | None):
    """The scores of all queries against the passages of all devices."""
    if mesh is None:
        return function(*queries, *passages)
    return gathered_scores(function, queries, passages, mesh)


def check_batch(batch: TrainBatch) -> None:
    """Raises ValueError for a batch without negatives or of an invalid shape."""
    queries, passages = len(batch.queries.token_ids), len(batch.passages.token_ids)
    if passages % queries:
        raise ValueError(f"{passages} passages are not a multiple of {queries} queries")
    if passages == 1:
        raise ValueError("a batch of one query and one passage has no negatives")
    if batch.queries.lengths.shape[1] > 1 or batch.passages.lengths.shape[1] > 1:
        raise ValueError("queries and passages have one text per row; packed rows go in `packed`")


def _describe(name: str, scores: Float[Array, "b p"], valid: Bool[Array, "b p"]) -> Metrics:
    """In-batch accuracy, and mean scores of positives and negatives, not divided by temperature."""
    scores = jax.lax.stop_gradient(scores)
    b, p = scores.shape
    column = jnp.arange(b) * (p // b)
    positive = jnp.take_along_axis(scores, column[:, None], axis=1)[:, 0]
    others = valid & (jnp.arange(p)[None] != column[:, None])
    best = jnp.where(others, scores, -jnp.inf).max(axis=1)
    count = jnp.maximum(others.sum(), 1).astype(jnp.float32)
    return {
        f"accuracy/{name}": losses.query_mean((positive > best).astype(jnp.float32), valid),
        f"positive/{name}": losses.query_mean(positive, valid),
        f"negative/{name}": jnp.where(others, scores, 0.0).sum() / count,
    }


def _dense_prefixes(queries: Encoding, passages: Encoding, config: LossConfig):
    """The dense logits of the first `width` dimensions, normalized again, per Matryoshka width."""
    if not config.matryoshka:
        return ()
    assert queries.dense is not None and passages.dense is not None
    both = queries.dense[:, 0], passages.dense[:, 0]
    return tuple(
        dense_scores(*(normalize(x[:, :width]) for x in both)) / config.temperature
        for width in config.matryoshka
    )


def _regularizer(queries: Encoding, passages: Encoding, batch: TrainBatch, config: LossConfig):
    total = jnp.zeros(())
    sides = ((batch.queries, queries.sparse), (batch.passages, passages.sparse))
    for weight, function in ((config.flops, flops), (config.l1, l1)):
        if weight:
            for texts, weights in sides:
                assert weights is not None
                count = jnp.sum((jnp.asarray(texts.lengths) > 0).astype(jnp.float32))
                count = jnp.maximum(count, 1.0)
                total = total + weight * function(jnp.asarray(texts.token_ids), weights, count)
    return total


def _active_share(queries: Encoding, passages: Encoding, batch: TrainBatch) -> Float[Array, ""]:
    """The share of tokens, without [CLS], end of sentence and padding, whose weight exceeds 0."""
    active = total = jnp.zeros(())
    for texts, weights in ((batch.queries, queries.sparse), (batch.passages, passages.sparse)):
        assert weights is not None
        lengths = jnp.maximum(jnp.asarray(texts.lengths) - 2, 0)
        active = active + jnp.sum((weights > 0).astype(jnp.float32))
        total = total + jnp.sum(lengths).astype(jnp.float32)
    return jax.lax.stop_gradient(active) / jnp.maximum(total, 1.0)
