"""Search: indexes of documents, retrievers for each representation, fusion of their scores.

Files in reading order: `options` (methods, engines, options by name), `index` and `build` (an index
on disk or in memory), `documents` (its texts), `hits` (ranked documents), `retriever` (what each
retriever offers), `dense`, `sparse`, `colbert` and `bm25` (the retrievers), `queries`, `fuse`,
`methods` (search by each method), `tune` (weights of fused methods), `threads`, and `kernels/`
(compiled loops).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.search.build import IndexOptions, build_index, join
    from m3jax.search.documents import Document
    from m3jax.search.fuse import PRESETS, preset
    from m3jax.search.hits import Hits
    from m3jax.search.index import Index
    from m3jax.search.methods import (
        Cache,
        Candidates,
        candidates,
        encode_queries,
        head_scores,
        search,
    )
    from m3jax.search.options import (
        ENGINES,
        FUSIONS,
        METHODS,
        TOKENIZATIONS,
        Depths,
        SearchOptions,
        canonical_method,
        heads_of,
    )
    from m3jax.search.queries import EncodedQueries
    from m3jax.search.retriever import Retriever
    from m3jax.search.tune import Tuned, score_weights, tune_weights

__all__ = [
    "ENGINES",
    "FUSIONS",
    "METHODS",
    "PRESETS",
    "TOKENIZATIONS",
    "Cache",
    "Candidates",
    "Depths",
    "Document",
    "EncodedQueries",
    "Hits",
    "Index",
    "IndexOptions",
    "Retriever",
    "SearchOptions",
    "Tuned",
    "build_index",
    "candidates",
    "canonical_method",
    "encode_queries",
    "head_scores",
    "heads_of",
    "join",
    "preset",
    "score_weights",
    "search",
    "tune_weights",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "build": ("IndexOptions", "build_index", "join"),
        "documents": ("Document",),
        "fuse": ("PRESETS", "preset"),
        "hits": ("Hits",),
        "index": ("Index",),
        "methods": (
            "Cache",
            "Candidates",
            "candidates",
            "encode_queries",
            "head_scores",
            "search",
        ),
        "options": (
            "ENGINES",
            "FUSIONS",
            "METHODS",
            "TOKENIZATIONS",
            "Depths",
            "SearchOptions",
            "canonical_method",
            "heads_of",
        ),
        "queries": ("EncodedQueries",),
        "retriever": ("Retriever",),
        "tune": ("Tuned", "score_weights", "tune_weights"),
    },
)
