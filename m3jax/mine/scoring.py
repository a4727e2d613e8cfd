"""The score of a (query, passage) pair by one method, from the scores of its heads.

These are the float64 scores that search ranks by: s_dense, s_lex, s_mul or their weighted sum
[M3 sec. 3.2, 4]. Dense cosines can be negative; the other scores cannot.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from m3jax.config import FORMER_NAMES, PAPER_FUSION, HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import concatenate
from m3jax.search import fuse
from m3jax.search.index import Index
from m3jax.search.methods import encode_queries, head_scores
from m3jax.search.options import FUSED, METHODS
from m3jax.search.queries import EncodedQueries

_RECORDED = {method: former for former, method in FORMER_NAMES.items()}


def method_weights(
    method: str, weights: HeadWeights | None, embedder: M3Embedder | None
) -> HeadWeights:
    """The weights with which a method sums its heads; 1 for methods of a single head.

    Raises ValueError if `weights` are given for a method of a single head.
    """
    if method in FUSED:
        return weights or (embedder.fusion(method) if embedder else PAPER_FUSION)
    if weights is not None:
        raise ValueError(
            f"method {method!r} has a single head: weights are for dense+sparse and all"
        )
    return HeadWeights(dense=1.0, sparse=1.0, colbert=1.0)


def recorded_method(method: str) -> str:
    """The name of a method in digests: that of version 0.1, so that stored results stay valid."""
    return _RECORDED.get(method, method)


def document_scores(
    index: Index,
    queries: EncodedQueries,
    query: int,
    documents: Int64[np.ndarray, " n"],
    method: str,
    weights: HeadWeights,
) -> Float[np.ndarray, " n"]:
    """The float64 scores of query number `query` with the given documents of an index."""
    scores = head_scores(index, queries, query, documents)
    return fuse.weighted_sum({head: scores[head] for head in METHODS[method].summed}, weights)


def index_passages(
    embedder: M3Embedder, passages: Sequence[str], method: str, max_length: int | None
) -> Index:
    """An index in memory with the representations by which `method` scores passages."""
    parts = embedder.encode_stream(
        [embedder.passage_instruction + text for text in passages],
        heads=METHODS[method].summed,
        max_length=max_length,
        batch_size=embedder.batch_size,
        progress=False,
    )
    return Index.from_embeddings(concatenate(list(parts)))


def pair_scores(
    embedder: M3Embedder,
    pairs: Sequence[tuple[str, str]],
    method: str,
    weights: HeadWeights,
    max_length: int | None = None,
) -> list[float]:
    """The score of each (query, passage) pair; each distinct text is encoded once."""
    queries = list(dict.fromkeys(query for query, _ in pairs))
    passages = {text: i for i, text in enumerate(dict.fromkeys(text for _, text in pairs))}
    index = index_passages(embedder, list(passages), method, max_length)
    encoded = encode_queries(embedder, queries, [method])
    pairs_of: dict[str, list[int]] = {}
    for number, (query, _) in enumerate(pairs):
        pairs_of.setdefault(query, []).append(number)
    scores = np.zeros(len(pairs))
    for number, query in enumerate(queries):
        documents = np.array([passages[pairs[i][1]] for i in pairs_of[query]], np.int64)
        scores[pairs_of[query]] = document_scores(
            index, encoded, number, documents, method, weights
        )
    return scores.tolist()
