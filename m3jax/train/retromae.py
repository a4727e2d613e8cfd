"""RetroMAE pre-training (Xiao et al. 2022, arXiv 2205.12035; [M3 app. B.1]): tokens to a loss.

    n  rows    s  tokens    k  masked tokens of a row    m  texts of a row    q  query columns

The encoder reads a lightly masked text and predicts the masked tokens. One decoder layer
reconstructs the text from the text's embedding and, for each token, a random half of the other
tokens. Masks are drawn on the device from a key.
"""

import math
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from m3jax.config import ComputeConfig, M3Config, RetroMAEConfig
from m3jax.model.attention import Visible
from m3jax.model.families import family_of
from m3jax.model.heads import lexical_mask, pool
from m3jax.model.m3 import PLAIN, Params
from m3jax.model.retromae import cross_entropy, decode, first_tokens, last_tokens
from m3jax.types import TextBatch

Metrics = dict[str, Float[Array, ""]]


class MaskedTokens(NamedTuple):
    """The encoder's input, and which tokens it predicts."""

    token_ids: Int[Array, "n s"]
    masked: Bool[Array, "n s"]


class Masks(NamedTuple):
    """The random masks of one batch."""

    tokens: MaskedTokens  # of the encoder
    visible: Visible  # of the decoder


def retromae_loss(
    params: Params,
    batch: TextBatch,
    model: M3Config,
    config: RetroMAEConfig,
    key: jax.Array,
    *,
    compute: ComputeConfig = PLAIN,
    dropout_key: jax.Array | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Encoder loss + decoder loss of a batch of texts, padded or packed, and the metrics.

    `params` are the parameters of an M3 model together with those of `init_retromae`; `key` draws
    the masks. Raises ValueError if `config.mask_id` is not in the vocabulary.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    keys = jax.random.split(key)
    tokens = mask_tokens(batch, model, config, keys[0])
    visible = visible_context(jnp.asarray(batch.segment_ids), config.decoder_mask, keys[1])
    masks = Masks(tokens, visible)
    return loss_of_masks(params, batch, masks, model, config, compute, dropout_key)


def loss_of_masks(
    params: Params,
    batch: TextBatch,
    masks: Masks,
    model: M3Config,
    config: RetroMAEConfig,
    compute: ComputeConfig = PLAIN,
    dropout_key: jax.Array | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """`retromae_loss` with given masks. Each loss is a mean over its tokens in the batch."""
    tokens, visible = masks
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    encoder = family_of(model.encoder).encoder(model.encoder, compute)
    encoded = encoder.apply(
        {"params": params["encoder"]},
        batch._replace(token_ids=tokens.token_ids),
        deterministic=dropout_key is None,
        rngs=None if keys[0] is None else {"dropout": keys[0]},
    )
    hidden = cast(jax.Array, encoded)
    labels = jnp.asarray(batch.token_ids)

    # Logits of masked tokens only: a static bound on their number per row drops none of them and
    # saves two thirds of the encoder's logits.
    columns, predicted = _masked_columns(tokens.masked, most_masked(batch, config))
    encoder_loss, encoder_accuracy = cross_entropy(
        params,
        jnp.take_along_axis(hidden, columns[..., None], axis=1),
        jnp.take_along_axis(labels, columns, axis=1),
        predicted,
        model.encoder,
        config.logits_chunk,
    )

    sentences = pool(hidden, batch, model.pooling)
    decoded = decode(params, batch, sentences, visible, model.encoder, compute, keys[1])
    segments = jnp.asarray(batch.segment_ids)
    reconstructed = (segments > 0) & ~first_tokens(segments) & ~last_tokens(segments)
    decoder_loss, decoder_accuracy = cross_entropy(
        params, decoded, labels, reconstructed, model.encoder, config.logits_chunk
    )

    loss = encoder_loss + decoder_loss
    return loss, {
        "loss": loss,
        "encoder_loss": encoder_loss,
        "decoder_loss": decoder_loss,
        "encoder_accuracy": encoder_accuracy,
        "decoder_accuracy": decoder_accuracy,
    }


def mask_tokens(
    batch: TextBatch, model: M3Config, config: RetroMAEConfig, key: jax.Array
) -> MaskedTokens:
    """Masks max(1, round(ratio * N)) random tokens of the N ordinary tokens of each text.

    Ordinary tokens are not special, not <mask>, and not first. Of the masked tokens 80% become
    <mask>, 10% a random token of the vocabulary, 10% are unchanged (`mask_share`, `random_share`).
    A text of special tokens only is unchanged.
    """
    token_ids = jnp.asarray(batch.token_ids)
    order_key, action_key, token_key = jax.random.split(key, 3)
    mask_id = _mask_id(config, model)
    ordinary = lexical_mask(batch, (*model.special_ids, mask_id))
    ordinary = ordinary & ~jnp.asarray(batch.is_cls)
    masked = _choose(batch, ordinary, config.encoder_mask, order_key)

    action = jax.random.uniform(action_key, token_ids.shape)
    random_ids = jax.random.randint(
        token_key, token_ids.shape, 0, model.encoder.vocab_size, token_ids.dtype
    )
    hidden = masked & (action < config.mask_share)
    swapped = masked & ~hidden & (action < config.mask_share + config.random_share)
    replaced = jnp.where(hidden, jnp.array(mask_id, token_ids.dtype), token_ids)
    return MaskedTokens(jnp.where(swapped, random_ids, replaced), masked)


def visible_context(segment_ids: Int[Array, "n s"], ratio: float, key: jax.Array) -> Visible:
    """The decoder's attention mask as a function of query columns: [q] -> [n, q, s].

    A query always attends to the first token of its text, which holds the text's embedding; never
    to itself; and to any other token of its text with probability 1 - ratio. The random numbers of
    a query depend on its column only, so the mask does not depend on the block size.
    """
    n, s = segment_ids.shape
    first = first_tokens(segment_ids)

    def row(column):
        return jax.random.bernoulli(jax.random.fold_in(key, column), 1 - ratio, (n, s))

    def visible(columns):
        drawn = jnp.moveaxis(jax.vmap(row)(columns), 0, 1)
        itself = columns[:, None] == jnp.arange(s, dtype=columns.dtype)[None]
        seen = (drawn & ~itself[None]) | first[:, None, :]
        query_segments = segment_ids[:, columns][:, :, None]
        return seen & (query_segments == segment_ids[:, None, :]) & (query_segments > 0)

    return visible


def most_masked(batch: TextBatch, config: RetroMAEConfig) -> int:
    """Upper bound on the masked tokens of a row: rounding adds at most one per text."""
    width = batch.token_ids.shape[1]
    return min(width, math.ceil(config.encoder_mask * width) + batch.lengths.shape[1])


def _masked_columns(masked: Bool[Array, "n s"], count: int):
    """(columns [n, k], whether each is masked [n, k]), masked columns first."""
    order = jnp.argsort(~masked, axis=1, stable=True)[:, :count]
    return order, jnp.take_along_axis(masked, order, axis=1)


def _mask_id(config: RetroMAEConfig, model: M3Config) -> int:
    if config.mask_id is None or config.mask_id >= model.encoder.vocab_size:
        raise ValueError(
            f"retromae.mask_id {config.mask_id} is not in the vocabulary of "
            f"{model.encoder.vocab_size} tokens: set it to the id of the tokenizer's <mask>"
        )
    return config.mask_id


def _choose(batch: TextBatch, candidates: Bool[Array, "n s"], ratio: float, key: jax.Array):
    """Selects max(1, round(ratio * N)) random candidates of the N candidates of each text."""
    n, s = candidates.shape
    segments = jnp.asarray(batch.segment_ids)
    texts = jnp.arange(1, batch.lengths.shape[1] + 1, dtype=segments.dtype)
    member = (segments[:, None, :] == texts[None, :, None]) & candidates[:, None, :]
    quota = jnp.round(ratio * member.astype(jnp.float32).sum(axis=2))
    quota = jnp.maximum(quota, 1.0).astype(jnp.int32)

    # Sorted by text, then by random number: a token's rank is its distance to the text's start.
    text = jnp.where(candidates, segments - 1, texts.size).astype(jnp.int32)
    columns = jnp.broadcast_to(jnp.arange(s, dtype=jnp.int32)[None], (n, s))
    draws = jax.random.bits(key, (n, s))
    text, _, columns = jax.lax.sort((text, draws, columns), dimension=1, num_keys=2)
    position = jnp.arange(s, dtype=jnp.int32)[None]
    starts = first_tokens(text + 1)
    rank = position - jax.lax.cummax(jnp.where(starts, position, 0), axis=1)
    quota = jnp.take_along_axis(jnp.pad(quota, ((0, 0), (0, 1))), text, axis=1)
    _, selected = jax.lax.sort((columns, rank < quota), dimension=1, num_keys=1)
    return selected
