"""What every retriever of an index offers, whichever head it searches by.

`dense.DenseRetriever`, `sparse.SparseRetriever`, `colbert.ColbertRetriever` and `bm25.Bm25` search
exactly, on this machine. Another search engine takes part as one more class with these methods.

n  documents scored
"""

from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from m3jax.search.hits import Hits


class Retriever(Protocol):
    """The documents of an index in one representation. A query is in the same representation:
    a vector [d], a sparse row [1, v], a matrix of vectors [i, c], or for BM25 a string."""

    def search(self, queries: Any, top_k: int) -> Hits:
        """The `top_k` best documents of each query by exact score, ties in document order."""
        ...

    def scores(
        self, query: Any, documents: Int[np.ndarray, " n"], *, exact: bool = False
    ) -> Float[np.ndarray, " n"]:
        """The scores of one query and some documents.

        Each is off by at most `error_bound(query)`; with `exact` all are float64 scores.
        """
        ...

    def error_bound(self, query: Any) -> float:
        """The largest error of `scores`; 0 where they are always exact."""
        ...
