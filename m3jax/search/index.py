"""An index on disk or in memory: the documents in every representation that search uses.

INDEX/index.json    the model and its config, modes, lengths, sizes and digests; written last
     /documents/    the texts (documents.py)
     /embeddings/   sharded vectors (embed/corpus.py)
     /sparse/       the inverted index (sparse.py)
     /bm25-tokens/  BM25's postings, written by the first BM25 search (bm25.py)
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3jax import pretrained
from m3jax.config import FORMER_NAMES, HEADS, PAPER_FUSION, HeadWeights
from m3jax.embed import corpus
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import Embeddings
from m3jax.embed.vectors import StoredMatrices, StoredVectors, as_stored_matrices, as_stored_vectors
from m3jax.search import bm25 as bm25_index
from m3jax.search import sparse
from m3jax.search.colbert import ColbertRetriever
from m3jax.search.dense import DenseRetriever
from m3jax.search.documents import Document, Documents
from m3jax.search.hits import Hits
from m3jax.search.options import TOKENIZATIONS, Depths, SearchOptions
from m3jax.search.queries import EncodedQueries
from m3jax.search.sparse import SparseRetriever

MANIFEST = "index.json"
VERSION = 1
CHECKED = 1 << 30  # bytes; a smaller index is read and compared with its digests when opened


@dataclasses.dataclass
class Index:
    """Documents by number, with a retriever for each representation, None for those it lacks."""

    size: int
    dense: DenseRetriever | None
    sparse: SparseRetriever | None
    colbert: ColbertRetriever | None
    documents: Sequence[Document]
    manifest: dict[str, Any]
    path: Path | None = None
    model: M3Embedder | None = None
    _bm25: dict[str, bm25_index.Bm25] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | str, *, verify: bool | None = None) -> "Index":
        """The index in a directory, its arrays memory-mapped.

        File sizes are always compared with the manifest; contents with `verify`, by default
        where the index is smaller than 1 GiB. Raises FileNotFoundError or ValueError that names
        the missing or damaged file.
        """
        path = Path(path)
        manifest = read_manifest(path)
        encoded = corpus.read_manifest(path / "embeddings")
        folders = {path / name: files for name, files in manifest["files"].items()}
        for shard in encoded["shards"]:
            folders[path / "embeddings" / shard["name"]] = shard["files"]
        size = sum(entry[0] for files in folders.values() for entry in files.values())
        for folder, files in folders.items():
            corpus.check_files(folder, files, size < CHECKED if verify is None else verify)
        shards = [path / "embeddings" / shard["name"] for shard in encoded["shards"]]
        modes = manifest["modes"]
        colbert = None
        if "colbert" in modes:
            offsets = tuple(np.load(shard / "colbert_offsets.npy") for shard in shards)
            colbert = ColbertRetriever(StoredMatrices(_stored(shards, "colbert", encoded), offsets))
        return cls(
            manifest["documents"],
            DenseRetriever(_stored(shards, "dense", encoded)) if "dense" in modes else None,
            SparseRetriever(sparse.load(path / "sparse")) if "sparse" in modes else None,
            colbert,
            Documents(path / "documents"),
            manifest,
            path,
        )

    @classmethod
    def from_embeddings(
        cls,
        embeddings: Embeddings,
        documents: Sequence[Document] | None = None,
        *,
        model: M3Embedder | None = None,
    ) -> "Index":
        """An index in memory. Without `documents` their numbers are the ids.

        Raises ValueError where representations and documents differ in number.
        """
        matrix, vectors, ragged = embeddings.sparse, embeddings.dense, embeddings.colbert
        sizes = [len(x) for x in (vectors, ragged) if x is not None]
        sizes += [sparse.num_rows(matrix)] if matrix is not None else []
        if len(set(sizes)) != 1 or (documents is not None and len(documents) != sizes[0]):
            raise ValueError(
                f"representations and texts of different numbers of documents: {sizes}"
            )
        return cls(
            sizes[0],
            None if vectors is None else DenseRetriever(as_stored_vectors(vectors)),
            None if matrix is None else SparseRetriever(sparse.build(lambda: [matrix])),
            None if ragged is None else ColbertRetriever(as_stored_matrices(ragged)),
            [Document(str(i), "") for i in range(sizes[0])] if documents is None else documents,
            {},
            model=model,
        )

    @property
    def ids(self) -> Sequence[str]:
        """The documents' ids, in order."""
        if isinstance(self.documents, Documents):
            return self.documents.ids
        return [document.id for document in self.documents]

    def search(
        self,
        queries: Sequence[str] | EncodedQueries,
        *,
        method: str = "all",
        top_k: int = 10,
        weights: HeadWeights | None = None,
        fusion: str = "weighted",
        depths: Depths | None = None,
        engine: str = "auto",
    ) -> Hits:
        """The best `top_k` documents of each query: their numbers and float32 scores.

        Texts are encoded by the index's model, with its query instruction. The other arguments
        are those of `SearchOptions`; `documents_of` gives the texts of the hits.

        >>> hits = index.search(["Where do foxes sleep?"], top_k=3)  # doctest: +SKIP
        >>> [document.text for document in index.documents_of(hits)[0]]  # doctest: +SKIP
        """
        from m3jax.search import methods

        options = SearchOptions(
            method=method,
            weights=weights,
            fusion=fusion,
            depths=depths or Depths(),
            engine=engine,
        )
        return methods.search(self, queries, options, top_k=top_k)

    def documents_of(self, hits: Hits) -> list[list[Document]]:
        """The ids and texts of each query's hits, best first."""
        return [[self.documents[int(number)] for number in row] for row in hits.documents]

    def require(self, heads: Sequence[str], method: str) -> None:
        """Raises ValueError where the index lacks a representation that `method` needs."""
        missing = [head for head in heads if getattr(self, head) is None]
        if missing:
            stored = [head for head in HEADS if getattr(self, head) is not None]
            raise ValueError(
                f"method {method!r} needs {' and '.join(missing)}, but {self.path or 'the index'} "
                f"holds {', '.join(stored) or 'no vectors'} only; index again with --modes"
            )

    def embedder(self) -> M3Embedder:
        """The model that made the index, loaded from its source at the first call."""
        if self.model is None:
            if "model" not in self.manifest:
                raise ValueError("this index in memory has no model; encode the queries first")
            self.use(
                M3Embedder.from_pretrained(
                    self.manifest["model"],
                    pooling=self.manifest["config"]["pooling"],
                    query_instruction=self.manifest["query_instruction"],
                    passage_instruction=self.manifest["passage_instruction"],
                )
            )
        assert self.model is not None
        return self.model

    def use(self, model: M3Embedder) -> None:
        """Encodes queries with `model`; ValueError where another model made the index."""
        loaded = model.encoder.model
        fingerprint = pretrained.fingerprint(loaded.params, loaded.config)
        if fingerprint != self.manifest.get("fingerprint", fingerprint):
            raise ValueError(
                f"{self.path} was made by another model: {self.manifest['model']} with fingerprint "
                f"{self.manifest['fingerprint']}, but {loaded.source} has {fingerprint}; search "
                "with the first, or index again"
            )
        self.model = model

    def fusion(self, method: str) -> HeadWeights:
        """The weights tuned for its model and a fused method, else the paper's.

        Read from the model's directory where the model is not loaded.
        """
        if self.model is not None:
            return self.model.fusion(method)
        name = self.manifest.get("model", "")
        is_local = name in pretrained.bundled_names() or (bool(name) and Path(name).is_dir())
        tuned = pretrained.read_fusion(pretrained.resolve(name)) if is_local else {}
        return tuned.get(method, PAPER_FUSION)

    def bm25(self, tokenization: str = "tokens") -> bm25_index.Bm25:
        """BM25 over the stored texts, built at the first call and stored in the index."""
        if tokenization not in TOKENIZATIONS:
            names = ", ".join(TOKENIZATIONS)
            raise ValueError(f"BM25's terms must be one of {names}, got {tokenization!r}")
        if tokenization not in self._bm25:
            tokenizer = self.embedder().tokenizer if tokenization == "tokens" else None
            folder = None if self.path is None else self.path / f"bm25-{tokenization}"
            if folder is not None and folder.is_dir():
                self._bm25[tokenization] = bm25_index.load(folder, tokenizer)
            else:
                texts = (document.text for document in self.documents)
                self._bm25[tokenization] = bm25_index.build(texts, tokenizer=tokenizer)
                if folder is not None and os.access(folder.parent, os.W_OK):
                    bm25_index.save(self._bm25[tokenization], folder)
        return self._bm25[tokenization]


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an index directory.

    Raises FileNotFoundError or ValueError where it is not a finished index.
    """
    file = path / MANIFEST
    if not file.is_file():
        if (path / "documents").is_dir():
            raise FileNotFoundError(
                f"{path} is not finished: run the same m3jax index command again"
            )
        raise FileNotFoundError(f"{path} has no {MANIFEST}: not an index")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if manifest.get("format") != "m3jax-index" or manifest.get("version") != VERSION:
        raise ValueError(f"{file} is not a version {VERSION} manifest of an m3jax index")
    return manifest | {"modes": [FORMER_NAMES.get(mode, mode) for mode in manifest["modes"]]}


def largest_norm(norms: Sequence[float | None]) -> float | None:
    """The largest of the norms; None where one is unknown."""
    known = [norm for norm in norms if norm is not None]
    return max(known, default=0.0) if len(known) == len(norms) else None


def _stored(shards: Sequence[Path], head: str, encoded: dict[str, Any]) -> StoredVectors:
    """The vectors of all shards, memory-mapped."""
    norms = [shard.get("norms", {}).get(head) for shard in encoded["shards"]]
    parts, scales = [], []
    for shard in shards:
        parts.append(np.load(shard / f"{head}.npy", mmap_mode="r"))
        file = shard / f"{head}_scales.npy"
        scales.append(np.load(file) if file.is_file() else None)
    return StoredVectors(tuple(parts), tuple(scales), largest_norm(norms))
