"""Heads for an encoder without any: initial ones to train, or a sparse head fitted to idf."""

from collections import Counter
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from m3jax.config import M3Config
from m3jax.model.heads import lexical_mask
from m3jax.model.m3 import hidden_states
from m3jax.text.batches import plan_padded, rows_of_tokens
from m3jax.text.tokenizer import Tokenizer

LARGEST_WEIGHT = 0.3  # about BGE-M3's weight of the rarest words of a text
RIDGE = 1.0
LADDER = (32, 64, 128, 256, 512)  # row lengths; few, to compile few programs
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
    """`params` with a sparse head whose weight of a token is near its idf in `texts`.

    Ridge regression from a token's hidden state to idf(t) = log((N + 1) / (df(t) + 1)), scaled so
    that the target of the rarest token is 0.3. ReLU gives the common tokens weight 0.
    """
    token_ids = tokenizer.encode(texts, min(LADDER[-1], config.encoder.max_length))
    frequency = Counter(t for ids in token_ids for t in set(ids.tolist()))
    target = {t: np.log((len(texts) + 1) / (df + 1)) for t, df in frequency.items()}
    most = max(target.values())
    d = config.encoder.hidden_size
    gram, moment = np.zeros((d + 1, d + 1)), np.zeros(d + 1)
    for _, tokens, states in token_states(params, config, token_ids):
        x = np.concatenate([states.astype(np.float64), np.ones((len(states), 1))], axis=1)
        y = np.array([target[t] for t in tokens.tolist()]) * LARGEST_WEIGHT / most
        gram += x.T @ x
        moment += x.T @ y
    ridge = RIDGE * np.trace(gram) / (d + 1) * 1e-4
    solved = np.linalg.solve(gram + ridge * np.eye(d + 1), moment).astype(np.float32)
    heads = params["heads"] | {"sparse": {"kernel": solved[:d, None], "bias": solved[d:]}}
    return params | {"heads": jax.tree.map(jnp.asarray, heads)}


def token_states(
    params: dict, config: M3Config, token_ids: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields, per batch, (text index, token id, hidden state) of tokens with a lexical weight."""
    for bucket, num_rows, rows in plan_padded([len(i) for i in token_ids], LADDER, 4096):
        batch, _ = rows_of_tokens(
            token_ids, rows, bucket, pad_id=config.encoder.pad_id, num_rows=num_rows
        )
        hidden = np.asarray(_encode(params, batch, config).astype(jnp.float32))
        row, column = np.nonzero(np.asarray(lexical_mask(batch, config.special_ids)))
        text = np.array([texts[0] for texts in rows])[row]
        yield text, np.asarray(batch.token_ids)[row, column], hidden[row, column]
