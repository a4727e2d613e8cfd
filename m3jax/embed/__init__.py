"""Texts to embeddings with a loaded model.

Reading order: `embeddings` (encoded texts in memory), `encode` (batches on the devices), `embedder`
and `flag` (the models that users hold), `pairs` and `brute_force` (scores in memory), `vectors` and
`corpus` (embeddings on disk).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.embed.brute_force import scan
    from m3jax.embed.corpus import CorpusOptions, encode_corpus, read_shards
    from m3jax.embed.embedder import EmbedderOptions, EncodeOptions, M3Embedder
    from m3jax.embed.embeddings import Embeddings, Ragged, concatenate
    from m3jax.embed.encode import Batching, TextEncoder
    from m3jax.embed.flag import BGEM3FlagModel
    from m3jax.embed.pairs import late_interaction, lexical_matches, pair_scores
    from m3jax.embed.vectors import StoredMatrices, StoredVectors

__all__ = [
    "BGEM3FlagModel",
    "Batching",
    "CorpusOptions",
    "EmbedderOptions",
    "Embeddings",
    "EncodeOptions",
    "M3Embedder",
    "Ragged",
    "StoredMatrices",
    "StoredVectors",
    "TextEncoder",
    "concatenate",
    "encode_corpus",
    "late_interaction",
    "lexical_matches",
    "pair_scores",
    "read_shards",
    "scan",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "embeddings": ("Embeddings", "Ragged", "concatenate"),
        "encode": ("Batching", "TextEncoder"),
        "embedder": ("EmbedderOptions", "EncodeOptions", "M3Embedder"),
        "flag": ("BGEM3FlagModel",),
        "pairs": ("late_interaction", "lexical_matches", "pair_scores"),
        "brute_force": ("scan",),
        "vectors": ("StoredMatrices", "StoredVectors"),
        "corpus": ("CorpusOptions", "encode_corpus", "read_shards"),
    },
)
