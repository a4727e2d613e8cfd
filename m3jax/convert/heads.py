"""Heads for an encoder that has none: something to train from, or something to search with."""

import functools
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from m3jax.config import M3Config
from m3jax.model.heads import lexical_mask
from m3jax.model.m3 import hidden_states
from m3jax.text.batches import plan_padded, rows_of_tokens
from m3jax.text.tokenizer import Tokenizer

LARGEST_WEIGHT = 0.3  # about what BGE-M3 gives the rarest words of a text
RIDGE = 1.0
TEMPERATURE = 0.02
LADDER = (32, 64, 128, 256, 512)  # tokens of a row: few shapes, as this encodes little
_encode = jax.jit(hidden_states, static_argnums=2)


def fresh_heads(config: M3Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Multi-vector: the identity (its first `colbert_dim` columns). Sparse: N(0, 0.02), bias 0."""
    d, c = config.encoder.hidden_size, config.colbert_dim
    random = np.random.default_rng(seed).normal(0.0, 0.02, (d, 1))
    return {
        "heads/colbert/kernel": np.eye(d, c, dtype=np.float32),
        "heads/colbert/bias": np.zeros(c, np.float32),
        "heads/sparse/kernel": random.astype(np.float32),
        "heads/sparse/bias": np.zeros(1, np.float32),
    }


def fit_sparse_head(
    params: dict, config: M3Config, tokenizer: Tokenizer, texts: Sequence[str]
) -> dict:
    """`params` with a sparse head that weighs a token by its rarity in `texts`, no training.

    Least squares from a token's hidden state to idf(t) = log((N + 1) / (df(t) + 1)), scaled so
    that the rarest token's target is 0.3, with a small ridge; ReLU then drops the common ones.
    """
    token_ids = tokenizer.encode(texts, min(LADDER[-1], config.encoder.max_length))
    frequency = Counter(t for ids in token_ids for t in set(ids.tolist()))
    target = {t: np.log((len(texts) + 1) / (df + 1)) for t, df in frequency.items()}
    most = max(target.values())
    d = config.encoder.hidden_size
    gram, moment = np.zeros((d + 1, d + 1)), np.zeros(d + 1)
    for _, tokens, states in _token_states(params, config, token_ids):
        x = np.concatenate([states.astype(np.float64), np.ones((len(states), 1))], axis=1)
        y = np.array([target[t] for t in tokens.tolist()]) * LARGEST_WEIGHT / most
        gram += x.T @ x
        moment += x.T @ y
    ridge = RIDGE * np.trace(gram) / (d + 1) * 1e-4
    solved = np.linalg.solve(gram + ridge * np.eye(d + 1), moment).astype(np.float32)
    heads = params["heads"] | {"sparse": {"kernel": solved[:d, None], "bias": solved[d:]}}
    return params | {"heads": jax.tree.map(jnp.asarray, heads)}


def warm_up_sparse_head(
    params: dict,
    config: M3Config,
    tokenizer: Tokenizer,
    groups: Sequence[Sequence[tuple[str, str]]],
    *,
    lengths: tuple[int, int] = (48, 160),
    epochs: int = 6,
    learning_rate: float = 3e-3,
) -> dict:
    """`params` with its sparse head trained alone: every hidden state is computed once.

    groups: (query, passage) pairs of one language each; a query's negatives are all other passages
    of its group. Loss: -log softmax(s_lex / 0.02) of the right passage, s_lex as in [M3 eq. 3];
    Adam, cosine decay. Hidden states stand in memory, 2 bytes a value.
    """
    import optax

    ready = [
        _lexical_group(params, config, tokenizer, list(group), lengths)
        for group in groups
        if len(group) > 1
    ]
    if not ready:
        raise ValueError("no group of two pairs or more: nothing to train a sparse head on")
    rates = 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, epochs * len(ready), endpoint=False))
    optimizer = optax.scale_by_adam()
    head = jax.tree.map(jnp.asarray, params["heads"]["sparse"])
    state = optimizer.init(head)

    @functools.partial(jax.jit, static_argnums=3)
    def update(head, state, group, sizes, rate):
        gradient = jax.grad(_lexical_loss)(head, group, sizes)
        changes, state = optimizer.update(gradient, state)
        return jax.tree.map(lambda old, change: old - rate * change, head, changes), state

    random = np.random.default_rng(0)
    order = [number for _ in range(epochs) for number in random.permutation(len(ready))]
    # Optax counts steps in integers and raises floats to them.
    with jax.numpy_dtype_promotion("standard"):
        for number, rate in zip(order, learning_rate * rates, strict=True):
            head, state = update(head, state, *ready[number], jnp.float32(rate))
    return params | {"heads": params["heads"] | {"sparse": head}}


def _lexical_group(params, config, tokenizer, pairs, lengths):
    """Hidden states of the tokens that can match, and which cell of [text, term] each fills."""
    passages = list(dict.fromkeys(passage for _, passage in pairs))
    place = {passage: number for number, passage in enumerate(passages)}
    sides = []
    for texts, length in zip(([query for query, _ in pairs], passages), lengths, strict=True):
        found = [
            (text, tokens, states.astype(np.float16))
            for text, tokens, states in _token_states(
                params, config, tokenizer.encode(texts, length)
            )
        ]
        sides.append(tuple(np.concatenate(parts) for parts in zip(*found, strict=True)))
    terms = np.unique(sides[0][1])
    group = []
    for texts, tokens, states in sides:
        column = np.searchsorted(terms, tokens).clip(0, len(terms) - 1)
        match = terms[column] == tokens
        group += [states[match], texts[match] * len(terms) + column[match]]
    right = np.array([place[passage] for _, passage in pairs])
    return (*group, right), (len(pairs), len(passages), len(terms))


def _token_states(params, config, token_ids):
    """Batch by batch: (text, token id, hidden state) of every token that has a lexical weight."""
    for bucket, height, rows in plan_padded([len(i) for i in token_ids], LADDER, 4096):
        batch, _ = rows_of_tokens(
            token_ids, rows, bucket, pad_id=config.encoder.pad_id, height=height
        )
        hidden = np.asarray(_encode(params, batch, config).astype(jnp.float32))
        row, column = np.nonzero(np.asarray(lexical_mask(batch, config.special_ids)))
        text = np.array([texts[0] for texts in rows])[row]
        yield text, np.asarray(batch.token_ids)[row, column], hidden[row, column]


def _lexical_loss(head, group, sizes):
    """Mean -log softmax(scores / 0.02) at the right passage."""
    query_states, query_cells, passage_states, passage_cells, right = group
    queries, passages, terms = sizes

    def weights(states, cells, texts):
        value = states.astype(jnp.float32) @ head["kernel"][:, 0] + head["bias"][0]
        most = jax.ops.segment_max(value, cells, texts * terms)
        # The ReLU after the maximum: -inf, where a text lacks a term, becomes 0 as well.
        return jax.nn.relu(most).reshape(texts, terms)

    scores = (
        weights(query_states, query_cells, queries)
        @ weights(passage_states, passage_cells, passages).T
    )
    logs = jax.nn.log_softmax(scores / TEMPERATURE)
    return -jnp.mean(logs[jnp.arange(queries), right])
