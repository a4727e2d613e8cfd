"""Why a passage matches a query: shared tokens, and the best match of each query token.

i  vectors of the query    j  vectors of the passage
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3jax.embed.brute_force import scan
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import Embeddings, concatenate, lexical_dicts
from m3jax.embed.pairs import lexical_matches
from m3jax.text.tokenizer import Tokenizer

METHODS = ("dense", "sparse", "colbert", "all")


class Match(NamedTuple):
    """A token that occurs in both texts."""

    token: str
    query_weight: float
    passage_weight: float
    product: float  # what it adds to s_lex


@dataclasses.dataclass(frozen=True)
class TokenView:
    """A text as the model reads it: its tokens, <s> first and </s> last."""

    text: str
    tokens: tuple[str, ...]  # spelled as in the vocabulary; '▁' stands for a leading space
    ids: tuple[int, ...]
    weights: Float[np.ndarray, " n"]  # lexical weight of each token in the text


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A query, a passage, and the parts of their scores [M3 sec. 3.2]."""

    query: TokenView
    passage: TokenView
    scores: dict[str, float]  # dense, sparse, colbert, all
    matches: tuple[Match, ...]  # largest product first; the products add up to s_lex
    # <E_q[i], E_p[j]> of all tokens but <s>; the mean of the row maxima is s_mul.
    similarity: Float[np.ndarray, "i j"]

    @property
    def best(self) -> np.ndarray:
        """For each query token after <s>, the index of its best passage token after <s>."""
        return self.similarity.argmax(axis=1)


def explain_passages(
    model: M3Embedder,
    query: str,
    passages: Sequence[str],
    fusion: dict[str, float] | None = None,
) -> list[Explanation]:
    """Explains each passage, in their order; the scores are those of `compute_score`.

    `fusion` weights dense, sparse and colbert in the score "all"; the default is the model's.
    """
    prompted = [model.query_instruction + query]
    texts = [model.passage_instruction + passage for passage in passages]
    encoded_query = concatenate(
        list(model.encode_stream(prompted, max_length=model.query_max_length))
    )
    encoded = concatenate(list(model.encode_stream(texts)))
    scores = scan(encoded_query, encoded, fusion or dataclasses.asdict(model.fusion("all")))
    (query_view,) = _views(model, prompted, model.query_max_length, encoded_query)
    views = _views(model, texts, model.passage_max_length, encoded)
    (query_weights,) = _weights(encoded_query)
    weights = _weights(encoded)
    assert encoded_query.colbert is not None and encoded.colbert is not None
    return [
        Explanation(
            query_view,
            view,
            {name: float(scores[name][0, number]) for name in METHODS},
            token_matches(model.tokenizer, query_weights, weights[number]),
            encoded_query.colbert[0] @ encoded.colbert[number].T,
        )
        for number, view in enumerate(views)
    ]


def _views(
    model: M3Embedder, texts: list[str], max_length: int, encoded: Embeddings
) -> list[TokenView]:
    """The texts as the encoder reads them, truncated to `max_length` tokens."""
    views = []
    token_ids = [tuple(map(int, ids)) for ids in model.tokenizer.encode(texts, max_length)]
    for text, ids, weights in zip(texts, token_ids, _weights(encoded), strict=True):
        tokens = tuple(map(model.tokenizer.token, ids))
        per_token = np.array([weights.get(str(i), 0.0) for i in ids], np.float32)
        views.append(TokenView(text, tokens, ids, per_token))
    return views


def _weights(encoded: Embeddings) -> list[dict[str, float]]:
    assert encoded.sparse is not None
    return lexical_dicts(encoded.sparse)


def token_matches(
    tokenizer: Tokenizer, query: dict[str, float], passage: dict[str, float]
) -> tuple[Match, ...]:
    """The shared tokens of two texts, from their lexical weights; largest product first."""
    return tuple(
        Match(tokenizer.token(int(token)), a, b, product)
        for token, a, b, product in lexical_matches(query, passage)
    )


def label(token: str) -> str:
    """A token without the mark of its leading space, unless it has no other character."""
    return token.replace("▁", "") or "▁"
