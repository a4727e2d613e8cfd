"""The score of a query and a passage by one method, from the scores of its heads.

The same numbers, in float64, that search ranks by: s_dense, s_lex, s_mul, or their weighted sum
[M3 sec. 3.2, 4]. A dense cosine can be negative; the others cannot.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from m3jax.config import PAPER_FUSION, HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import concatenate
from m3jax.search import fuse
from m3jax.search.index import Index
from m3jax.search.methods import encode_queries, head_scores
from m3jax.search.options import FUSED, METHODS
from m3jax.search.queries import EncodedQueries


def weights_of(
    method: str, weights: HeadWeights | None, embedder: M3Embedder | None
) -> HeadWeights:
    """The weights under which a method sums its heads; ValueError where one head has none."""
    if method in FUSED:
        return weights or (embedder.fusion(method) if embedder else PAPER_FUSION)
    if weights is not None:
        raise ValueError(f"method {method!r} sums nothing: weights are for dense+sparse and all")
    return HeadWeights(dense=1.0, sparse=1.0, colbert=1.0)


def scores_with(
    index: Index,
    queries: EncodedQueries,
    number: int,
    documents: np.ndarray,
    method: str,
    weights: HeadWeights,
) -> Float[np.ndarray, " n"]:
    """The float64 scores of one query with some documents of an index."""
    scores = head_scores(index, queries, number, documents)
    heads = METHODS[method].summed
    return fuse.weighted_sum({head: scores[head] for head in heads}, weights)


def passages_index(
    embedder: M3Embedder, texts: Sequence[str], method: str, max_length: int | None
) -> Index:
    """Some passages as an index in memory, in the representations that `method` scores by."""
    parts = embedder.encode_stream(
        [embedder.passage_instruction + text for text in texts],
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
    """One score for each (query, passage); each distinct text is encoded once."""
    queries = list(dict.fromkeys(query for query, _ in pairs))
    passages = {text: i for i, text in enumerate(dict.fromkeys(text for _, text in pairs))}
    index = passages_index(embedder, list(passages), method, max_length)
    encoded = encode_queries(embedder, queries, [method])
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(place)
    out = np.zeros(len(pairs))
    for number, query in enumerate(queries):
        documents = np.array([passages[pairs[place][1]] for place in places[query]], np.int64)
        out[places[query]] = scores_with(index, encoded, number, documents, method, weights)
    return out.tolist()
