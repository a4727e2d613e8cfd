"""RetroMAE pre-training (Xiao et al. 2022, arXiv 2205.12035; [M3 app. B.1]): tokens to a loss.

    n  rows    s  tokens    k  places for masked tokens    m  texts in a row    q  some columns

The encoder reads a lightly masked text and guesses the masked tokens; one decoder layer rebuilds
the whole text from the text's embedding and, for each token, a random half of the other tokens.
Masks are drawn on the device and are functions of a key.
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
    """What the encoder reads, and where it has to guess."""

    token_ids: Int[Array, "n s"]
    masked: Bool[Array, "n s"]


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

    `params` are an M3 model's joined with `init_retromae`'s; `key` draws the masks. ValueError
    where `config.mask_id` is no token of the model.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    keys = jax.random.split(key)
    tokens = mask_tokens(batch, model, config, keys[0])
    visible = visible_context(jnp.asarray(batch.segment_ids), config.decoder_mask, keys[1])
    return loss_of_masks(
        params, batch, tokens, visible, model, config, compute=compute, dropout_key=dropout_key
    )


def loss_of_masks(
    params: Params,
    batch: TextBatch,
    tokens: MaskedTokens,
    visible: Visible,
    model: M3Config,
    config: RetroMAEConfig,
    *,
    compute: ComputeConfig = PLAIN,
    dropout_key: jax.Array | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The same with given masks. Each loss is a mean over its tokens of the whole batch."""
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    encoded = (
        family_of(model.encoder)
        .encoder(model.encoder, compute)
        .apply(
            {"params": params["encoder"]},
            batch._replace(token_ids=tokens.token_ids),
            deterministic=dropout_key is None,
            rngs=None if keys[0] is None else {"dropout": keys[0]},
        )
    )
    hidden = cast(jax.Array, encoded)
    labels = jnp.asarray(batch.token_ids)

    # Logits of masked tokens only. Their number a row has a tight bound, so that nothing is lost
    # by a static shape, and two thirds of the encoder's logits are never computed.
    columns, guessed = _masked_columns(tokens.masked, most_masked(batch, config))
    encoder_loss, encoder_accuracy = cross_entropy(
        params,
        jnp.take_along_axis(hidden, columns[..., None], axis=1),
        jnp.take_along_axis(labels, columns, axis=1),
        guessed,
        model.encoder,
        config.logits_chunk,
    )

    sentences = pool(hidden, batch, model.pooling)
    decoded = decode(params, batch, sentences, visible, model.encoder, compute, keys[1])
    segments = jnp.asarray(batch.segment_ids)
    rebuilt = (segments > 0) & ~first_tokens(segments) & ~last_tokens(segments)
    decoder_loss, decoder_accuracy = cross_entropy(
        params, decoded, labels, rebuilt, model.encoder, config.logits_chunk
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
    """Masks max(1, round(ratio * N)) of the N ordinary tokens of each text, by chance.

    Ordinary: no special id, no <mask>, not the first token. Of the masked ones 80% become <mask>,
    10% any token of the vocabulary, 10% stay (`mask_share`, `random_share`). A text of special
    tokens only stays whole.
    """
    token_ids = jnp.asarray(batch.token_ids)
    order_key, kind_key, token_key = jax.random.split(key, 3)
    mask_id = _mask_id(config, model)
    ordinary = lexical_mask(batch, (*model.special_ids, mask_id))
    ordinary = ordinary & ~jnp.asarray(batch.is_cls)
    masked = _choose(batch, ordinary, config.encoder_mask, order_key)

    kind = jax.random.uniform(kind_key, token_ids.shape)
    anything = jax.random.randint(
        token_key, token_ids.shape, 0, model.encoder.vocab_size, token_ids.dtype
    )
    hidden = masked & (kind < config.mask_share)
    swapped = masked & ~hidden & (kind < config.mask_share + config.random_share)
    replaced = jnp.where(hidden, jnp.array(mask_id, token_ids.dtype), token_ids)
    return MaskedTokens(jnp.where(swapped, anything, replaced), masked)


def visible_context(segment_ids: Int[Array, "n s"], ratio: float, key: jax.Array) -> Visible:
    """The decoder's mask, some rows at a time: columns [q] -> [n, q, s].

    Row i sees the first place of its text, where the embedding stands, always; itself never; any
    other token of its text with probability 1 - ratio. The draw of a row depends on its column, so
    the mask is the same however the rows are cut into blocks.
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
    """The most tokens of a row that `mask_tokens` masks: every text rounds up by at most one."""
    width = batch.token_ids.shape[1]
    return min(width, math.ceil(config.encoder_mask * width) + batch.lengths.shape[1])


def _masked_columns(masked: Bool[Array, "n s"], count: int):
    """(columns [n, k], is there a masked token [n, k]), masked columns first."""
    order = jnp.argsort(~masked, axis=1, stable=True)[:, :count]
    return order, jnp.take_along_axis(masked, order, axis=1)


def _mask_id(config: RetroMAEConfig, model: M3Config) -> int:
    if config.mask_id is None or config.mask_id >= model.encoder.vocab_size:
        raise ValueError(
            f"retromae.mask_id {config.mask_id} is no token of a vocabulary of "
            f"{model.encoder.vocab_size}: give the tokenizer's <mask>"
        )
    return config.mask_id


def _choose(batch: TextBatch, candidates: Bool[Array, "n s"], ratio: float, key: jax.Array):
    """max(1, round(ratio * N)) of the N candidates of each text: those with the lowest draws."""
    n, s = candidates.shape
    segments = jnp.asarray(batch.segment_ids)
    texts = jnp.arange(1, batch.lengths.shape[1] + 1, dtype=segments.dtype)
    member = (segments[:, None, :] == texts[None, :, None]) & candidates[:, None, :]
    wanted = jnp.round(ratio * member.astype(jnp.float32).sum(axis=2))
    wanted = jnp.maximum(wanted, 1.0).astype(jnp.int32)

    # Text by text, in the order of the draws: a token's rank is its distance to the text's start.
    text = jnp.where(candidates, segments - 1, texts.size).astype(jnp.int32)
    columns = jnp.broadcast_to(jnp.arange(s, dtype=jnp.int32)[None], (n, s))
    draws = jax.random.bits(key, (n, s))
    text, _, columns = jax.lax.sort((text, draws, columns), dimension=1, num_keys=2)
    place = jnp.arange(s, dtype=jnp.int32)[None]
    starts = first_tokens(text + 1)
    rank = place - jax.lax.cummax(jnp.where(starts, place, 0), axis=1)
    quota = jnp.take_along_axis(jnp.pad(wanted, ((0, 0), (0, 1))), text, axis=1)
    _, chosen = jax.lax.sort((columns, rank < quota), dimension=1, num_keys=1)
    return chosen
