"""Queries and their representations."""

from typing import Any, NamedTuple

from m3jax.embed.embeddings import Embeddings


class EncodedQueries(NamedTuple):
    """Queries and their representations; `embeddings` is None where only BM25 is needed."""

    texts: list[str]
    embeddings: Embeddings | None

    def query(self, head: str, number: int) -> Any:
        """One query's representation by a head, as `Retriever.scores` takes it."""
        vectors = getattr(self.embeddings, head)
        return vectors[[number]] if head == "sparse" else vectors[number]
