"""The exact score of every document for every query, in memory: for small corpora and tests.

n  queries    m  documents    c  ColBERT width
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from m3jax.config import PAPER_FUSION
from m3jax.embed.embeddings import Embeddings
from m3jax.embed.pairs import late_interaction


def scan(
    queries: Embeddings, documents: Embeddings, fusion: dict[str, float] | None = None
) -> dict[str, Float[np.ndarray, "n m"]]:
    """Scores by "dense", "sparse", "colbert" and "all", the weighted sum of the three.

    `fusion` holds the weights; the default is the paper's.
    """
    assert queries.dense is not None and documents.dense is not None
    assert queries.sparse is not None and documents.sparse is not None
    assert queries.colbert is not None and documents.colbert is not None
    scores = {
        "dense": queries.dense @ documents.dense.T,
        "sparse": (queries.sparse @ documents.sparse.T).toarray(),
        "colbert": np.array(
            [[late_interaction(q, p) for p in documents.colbert] for q in queries.colbert],
            np.float32,
        ),
    }
    weights = dataclasses.asdict(PAPER_FUSION) if fusion is None else fusion
    return scores | {"all": sum(weights[name] * scores[name] for name in weights)}  # pyright: ignore


def top(scores: Float[np.ndarray, " m"], count: int) -> list[int]:
    """The positions of the `count` best documents; ties are in document order."""
    return np.argsort(-scores, kind="stable")[:count].tolist()
