"""Scores of given (query, document) pairs from their embeddings.

i  vectors of the query    j  vectors of the document    c  ColBERT width
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from m3jax.embed.embeddings import Embeddings


def pair_scores(
    queries: Embeddings, documents: Embeddings, pairs: Sequence[tuple[int, int]]
) -> dict[str, Float[np.ndarray, " n"]]:
    """The three scores of each (query number, document number) [M3 sec. 3.2].

    s_dense = <e_q, e_p>,  s_lex = sum_t w_q(t) w_p(t),  s_mul = mean_i max_j <E_q[i], E_p[j]>
    """
    assert queries.dense is not None and queries.sparse is not None and queries.colbert is not None
    assert documents.dense is not None and documents.sparse is not None
    assert documents.colbert is not None
    q, p = np.array(pairs, np.int64).reshape(-1, 2).T
    products = queries.sparse[q].multiply(documents.sparse[p]) if len(q) else None
    late = [late_interaction(queries.colbert[int(i)], documents.colbert[int(j)]) for i, j in pairs]
    return {
        "dense": np.einsum("nd,nd->n", queries.dense[q], documents.dense[p]),
        "sparse": np.zeros(0, np.float32) if products is None else products.sum(axis=1),
        "colbert": np.array(late, np.float32),
    }


def late_interaction(query: Float[np.ndarray, "i c"], document: Float[np.ndarray, "j c"]) -> float:
    """s_mul = (1 / I) sum_i max_j <E_q[i], E_p[j]>; 0 if either text has no vector."""
    if not len(query) or not len(document):
        return 0.0
    return float((query @ document.T).max(axis=1).mean())


def lexical_matches(
    query: dict[str, float], document: dict[str, float]
) -> list[tuple[str, float, float, float]]:
    """(token id, query weight, document weight, product) of the shared tokens, largest first."""
    shared = [(t, w, document[t], w * document[t]) for t, w in query.items() if t in document]
    return sorted(shared, key=lambda match: (-match[3], match[0]))
