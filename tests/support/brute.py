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
    return sum((query[t] * document[t] for t in sorted(query) if t in document), 0.0)


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
