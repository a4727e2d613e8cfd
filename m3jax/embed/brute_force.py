"""The exact score of every document for every query, in memory: small corpora, and the oracle.

n  queries    m  documents    c  ColBERT width
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from m3jax.config import PAPER_FUSION
from m3jax.embed.embeddings import Embeddings, Ragged


def scan(
    queries: Embeddings, documents: Embeddings, fusion: dict[str, float] | None = None
) -> dict[str, Float[np.ndarray, "n m"]]:
    """Scores by `dense`, `sparse`, `colbert`, and `all`: their sum under the weights `fusion`, by
    default the paper's."""
    assert queries.dense is not None and documents.dense is not None
    assert queries.sparse is not None and documents.sparse is not None
    assert queries.colbert is not None and documents.colbert is not None
    scores = {
        "dense": queries.dense @ documents.dense.T,
        "sparse": (queries.sparse @ documents.sparse.T).toarray(),
        "colbert": np.stack([_late_interaction(q, documents.colbert) for q in queries.colbert]),
    }
    weights = dataclasses.asdict(PAPER_FUSION) if fusion is None else fusion
    return scores | {"all": sum(weights[name] * scores[name] for name in weights)}  # pyright: ignore


def top(scores: Float[np.ndarray, " m"], count: int) -> list[int]:
    """The numbers of the best documents, ties in document order."""
    return np.argsort(-scores, kind="stable")[:count].tolist()


def _late_interaction(
    query: Float[np.ndarray, "t c"], documents: Ragged
) -> Float[np.ndarray, " m"]:
    """s_mul of one query and every document: one product, then the maximum within each."""
    products = documents.values @ query.T
    # Every document has at least its end-of-sentence vector, so no stretch is empty.
    best = np.maximum.reduceat(products, documents.offsets[:-1], axis=0)
    return best.mean(axis=1)
