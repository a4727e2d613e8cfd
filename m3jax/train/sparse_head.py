"""Training of the sparse head alone on frozen hidden states, before the joint fine-tuning."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from m3jax.config import M3Config
from m3jax.convert.heads import token_states
from m3jax.text.tokenizer import Tokenizer
from m3jax.train.optimizer import scale_by_adam

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
    """Trains only the sparse head of `params`; every hidden state is computed once.

    `groups` are lists of (query, passage) pairs, each of one language. The negatives of a query are
    the other passages of its group. `lengths` are the maximum tokens of a query and of a passage.
    Loss: -log softmax(s_lex / 0.02) of the positive, s_lex as in [M3 eq. 3]. Adam with cosine
    decay. All hidden states are kept in memory as float16. Raises ValueError if no group has two
    pairs or more.
    """
    ready = [
        _lexical_group(params, config, tokenizer, list(group), lengths)
        for group in groups
        if len(group) > 1
    ]
    if not ready:
        raise ValueError(
            "groups must contain a group of two pairs or more to train the sparse head"
        )
    rates = 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, epochs * len(ready), endpoint=False))
    optimizer = scale_by_adam()
    head = jax.tree.map(jnp.asarray, params["heads"]["sparse"])
    state = optimizer.init(head)

    @functools.partial(jax.jit, static_argnums=3)
    def update(head, state, group, sizes, rate):
        gradient = jax.grad(_lexical_loss)(head, group, sizes)
        changes, state = optimizer.update(gradient, state)
        return jax.tree.map(lambda old, change: old - rate * change, head, changes), state

    random = np.random.default_rng(0)
    order = [number for _ in range(epochs) for number in random.permutation(len(ready))]
    for number, rate in zip(order, learning_rate * rates, strict=True):
        head, state = update(head, state, *ready[number], jnp.float32(rate))
    return params | {"heads": params["heads"] | {"sparse": head}}


def _lexical_group(params, config, tokenizer, pairs, lengths):
    """Hidden states of the tokens whose term is in a passage, and their index into [text, term]."""
    passages = list(dict.fromkeys(passage for _, passage in pairs))
    index = {passage: number for number, passage in enumerate(passages)}
    sides = []
    for texts, length in zip(([query for query, _ in pairs], passages), lengths, strict=True):
        encoded = [
            (text, tokens, states.astype(np.float16))
            for text, tokens, states in token_states(
                params, config, tokenizer.encode(texts, length)
            )
        ]
        sides.append(tuple(np.concatenate(parts) for parts in zip(*encoded, strict=True)))
    terms = np.unique(sides[0][1])
    group = []
    for texts, tokens, states in sides:
        column = np.searchsorted(terms, tokens).clip(0, len(terms) - 1)
        match = terms[column] == tokens
        group += [states[match], texts[match] * len(terms) + column[match]]
    positives = np.array([index[passage] for _, passage in pairs])
    return (*group, positives), (len(pairs), len(passages), len(terms))


def _lexical_loss(head, group, sizes):
    """Mean -log softmax(scores / 0.02) of the positive passage."""
    query_states, query_index, passage_states, passage_index, positives = group
    queries, passages, terms = sizes

    def weights(states, index, texts):
        value = states.astype(jnp.float32) @ head["kernel"][:, 0] + head["bias"][0]
        largest = jax.ops.segment_max(value, index, texts * terms)
        # ReLU after the maximum: -inf, for terms absent from a text, becomes 0.
        return jax.nn.relu(largest).reshape(texts, terms)

    scores = (
        weights(query_states, query_index, queries)
        @ weights(passage_states, passage_index, passages).T
    )
    logs = jax.nn.log_softmax(scores / TEMPERATURE)
    return -jnp.mean(logs[jnp.arange(queries), positives])
