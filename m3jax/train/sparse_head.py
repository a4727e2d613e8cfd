"""A warm-up of the sparse head alone, before all heads are trained with the encoder."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from m3jax.config import M3Config
from m3jax.convert.heads import token_states
from m3jax.text.tokenizer import Tokenizer

TEMPERATURE = 0.02


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
            for text, tokens, states in token_states(
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
