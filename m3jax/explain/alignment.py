"""Why a passage matches a query: the tokens that both have, and which token met which.

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
    """A token that both texts have."""

    piece: str
    query_weight: float
    passage_weight: float
    product: float  # its part of s_lex


@dataclasses.dataclass(frozen=True)
class TokenView:
    """A text as the model reads it: a piece a place, <s> first and </s> last."""

    text: str
    pieces: tuple[str, ...]  # as the vocabulary spells them, a leading space shown as '▁'
    ids: tuple[int, ...]
    weights: Float[np.ndarray, " n"]  # of each place's token in the whole text; 0: weighs nothing


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One query, one passage, and all that their scores are made of [M3 sec. 3.2]."""

    query: TokenView
    passage: TokenView
    scores: dict[str, float]  # dense, sparse, colbert, all
    matches: tuple[Match, ...]  # largest product first; the products add up to s_lex
    # <E_q[i], E_p[j]> of the places after <s>; the mean of the rows' maxima is s_mul.
    similarity: Float[np.ndarray, "i j"]

    @property
    def best(self) -> np.ndarray:
        """For each query place after <s> the passage place after <s> that it met."""
        return self.similarity.argmax(axis=1)


def explain_passages(
    model: M3Embedder,
    query: str,
    passages: Sequence[str],
    fusion: dict[str, float] | None = None,
) -> list[Explanation]:
    """An explanation a passage, in their order. The scores are those of `compute_score`.

    `fusion` weighs dense, sparse and colbert in the score `all`: by default as the model does.
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
    """The tokens that the encoder saw: cut at the same length."""
    views = []
    every = [tuple(map(int, ids)) for ids in model.tokenizer.encode(texts, max_length)]
    for text, ids, weights in zip(texts, every, _weights(encoded), strict=True):
        pieces = tuple(map(model.tokenizer.token, ids))
        of_places = np.array([weights.get(str(i), 0.0) for i in ids], np.float32)
        views.append(TokenView(text, pieces, ids, of_places))
    return views


def _weights(encoded: Embeddings) -> list[dict[str, float]]:
    assert encoded.sparse is not None
    return lexical_dicts(encoded.sparse)


def token_matches(
    tokenizer: Tokenizer, query: dict[str, float], passage: dict[str, float]
) -> tuple[Match, ...]:
    """The tokens of both texts, from their lexical weights; largest product first."""
    return tuple(
        Match(tokenizer.token(int(token)), a, b, product)
        for token, a, b, product in lexical_matches(query, passage)
    )


def word(piece: str) -> str:
    """A piece as a label: without the mark of its leading space, unless that is all it is."""
    return piece.replace("▁", "") or "▁"
