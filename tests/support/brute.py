"""Rankings the slow way: every score in float64, sorted by (-score, document)."""

import numpy as np


def top(scores: np.ndarray, count: int) -> np.ndarray:
    return np.lexsort((np.arange(len(scores)), -scores))[:count]


def wide(values: np.ndarray, scales: np.ndarray | None = None) -> np.ndarray:
    """Stored vectors as float64."""
    numbers = np.asarray(values).astype(np.float64)
    return numbers if scales is None else numbers * scales[:, None].astype(np.float64)


def inner(query: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Inner products row by row: equal rows give equal scores, which BLAS does not promise."""
    return np.array([(row * query).sum() for row in documents.astype(np.float64)])


def lexical(query: dict[int, float], document: dict[int, float]) -> float:
    """The products added in the order of the tokens; `sum` rounds less from Python 3.12 on."""
    total = 0.0
    for token in sorted(query):
        if token in document:
            total += query[token] * document[token]
    return total


def dictionaries(matrix) -> list[dict[int, float]]:
    """The rows of a CSR array as {token: weight}."""
    return [
        dict(zip(matrix.indices[a:b].tolist(), matrix.data[a:b].tolist(), strict=True))
        for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    ]


def late(query: np.ndarray, document: np.ndarray) -> float:
    if not len(query) or not len(document):
        return 0.0
    return float((query.astype(np.float64) @ document.astype(np.float64).T).max(1).mean())


def every_score(queries, documents):
    """head -> float64 [queries, documents]."""
    rows = dictionaries(documents.sparse)
    return {
        "dense": np.array([inner(q.astype(float), documents.dense) for q in queries.dense]),
        "sparse": np.array([[lexical(q, d) for d in rows] for q in dictionaries(queries.sparse)]),
        "colbert": np.array([[late(q, d) for d in documents.colbert] for q in queries.colbert]),
    }


def expected(method, scores, i, top_k, depths, weights, zero=False):
    """The paper's protocol, written out over the scores of all documents."""
    dense, sparse, late = (scores[head][i] for head in ("dense", "sparse", "colbert"))
    by_dense, by_sparse = top(dense, depths.dense), top(sparse, depths.sparse)
    by_sparse = by_sparse[sparse[by_sparse] > 0]
    if method == "dense":
        pool, total = np.arange(len(dense)), dense
    elif method == "sparse":
        pool, total = np.flatnonzero(sparse > 0), sparse
    elif method == "colbert":
        pool, total = top(dense, depths.rerank_top_k), late
    elif method == "all":
        pool = top(dense, depths.rerank_top_k)
        total = weights.dense * dense + weights.sparse * sparse + weights.colbert * late
    else:
        pool = np.union1d(by_dense, by_sparse)
        if zero:
            dense = np.where(np.isin(np.arange(len(dense)), by_dense), dense, 0)
            sparse = np.where(np.isin(np.arange(len(dense)), by_sparse), sparse, 0)
        total = weights.dense * dense + weights.sparse * sparse
    pool = np.sort(pool)
    order = pool[top(total[pool], top_k)]
    return order, total[order]
