"""Writes an index to disk, and joins several indexes to one in memory."""

import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import scipy.sparse

from m3jax.embed import corpus
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.vectors import StoredMatrices, StoredVectors
from m3jax.io.atomic import new_directory, write_json
from m3jax.io.fields import to_json
from m3jax.io.hashing import file_digests
from m3jax.io.jsonl import Record
from m3jax.search import sparse
from m3jax.search.colbert import ColbertRetriever
from m3jax.search.dense import DenseRetriever
from m3jax.search.documents import Document, Documents, read_summary, write_documents
from m3jax.search.index import MANIFEST, VERSION, Index, largest_norm, read_manifest
from m3jax.search.sparse import SparseRetriever


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexOptions(corpus.CorpusOptions):
    """How documents are encoded and stored; `sparse_bits` of the lexical weights are 32 or 8."""

    sparse_bits: int = 32

    def __post_init__(self):
        if self.sparse_bits not in (8, 32):
            raise ValueError(f"sparse_bits must be 8 or 32, got {self.sparse_bits}")


def build_index(
    embedder: M3Embedder,
    records: Iterable[Record],
    output: Path,
    options: IndexOptions | None = None,
    *,
    source: str = "the corpus",
    progress: bool | None = None,
) -> dict[str, Any]:
    """Writes an index to `output` and returns its manifest; resumes an interrupted run.

    `source` names the corpus in error messages. Raises ValueError for an empty corpus, an id that
    occurs twice, and where `output` was begun with another model, other texts or other options.
    """
    options = options or IndexOptions()
    _store_documents(records, output, source)
    texts = Documents(output / "documents")
    stored = (
        Record(text.id, embedder.passage_instruction + text.text, number)
        for number, text in enumerate(texts, 1)
    )
    encoded = corpus.encode_corpus(
        embedder,
        stored,
        output / "embeddings",
        options,
        source=source,
        progress=progress,
    )
    manifest = _describe(embedder, encoded, len(texts), options.sparse_bits)
    if (output / MANIFEST).is_file():
        finished = read_manifest(output)
        for key in ("query_instruction", "passage_instruction", "sparse_bits"):
            if finished[key] != manifest[key]:
                raise ValueError(f"{output} was made with {key} = {finished[key]!r}")
        return finished
    folders = ["documents"]
    if "sparse" in encoded["modes"]:
        shutil.rmtree(output / "sparse", ignore_errors=True)  # of an interrupted run
        sparse.build(lambda: _sparse_shards(output), output / "sparse", bits=options.sparse_bits)
        folders.append("sparse")
    manifest["files"] = {name: file_digests(output / name) for name in folders}
    write_json(output / MANIFEST, manifest, indent=1, ensure_ascii=False)
    return manifest


def join(parts: Mapping[str, Index]) -> Index:
    """One index in memory of several on disk, made by the same model; ids become NAME:ID.

    Vectors stay memory-mapped; only the inverted index is built anew. It has the representations
    that all parts have. Raises ValueError for indexes of different models.
    """
    indexes = list(parts.values())
    for part in indexes:
        if part.path is None:
            raise ValueError("only indexes on disk can be joined")
        if part.manifest["fingerprint"] != indexes[0].manifest["fingerprint"]:
            raise ValueError(f"{part.path} and {indexes[0].path} were made by different models")
    dense = [part.dense.vectors for part in indexes if part.dense is not None]
    ragged = [part.colbert.vectors for part in indexes if part.colbert is not None]
    paths = [part.path for part in indexes if part.path is not None and part.sparse is not None]
    texts = [
        Document(f"{name}:{text.id}", text.text)
        for name, part in parts.items()
        for text in part.documents
    ]
    joint = Index(
        len(texts),
        None,
        None,
        None,
        texts,
        indexes[0].manifest | {"documents": len(texts)},
        model=indexes[0].model,
    )
    if len(dense) == len(indexes):
        joint.dense = DenseRetriever(_chained(dense))
    if len(paths) == len(indexes):
        joint.sparse = SparseRetriever(
            sparse.build(lambda: (matrix for path in paths for matrix in _sparse_shards(path)))
        )
    if len(ragged) == len(indexes):
        offsets = tuple(part_offsets for part in ragged for part_offsets in part.offsets)
        joint.colbert = ColbertRetriever(
            StoredMatrices(_chained([part.rows for part in ragged]), offsets)
        )
    return joint


def _chained(parts: Sequence[StoredVectors]) -> StoredVectors:
    """The rows of all parts, one part after another."""
    return StoredVectors(
        tuple(array for part in parts for array in part.parts),
        tuple(scales for part in parts for scales in part.scales),
        largest_norm([part.norm for part in parts]),
    )


def _store_documents(records: Iterable[Record], output: Path, source: str) -> None:
    """Writes the texts below `output`, or checks that those stored there are the same."""
    stored = output / "documents"
    empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty and not stored.is_dir() and not list(output.glob(".documents.*")):
        raise FileExistsError(f"{output} exists and is no index; name a new directory")
    for leftover in output.glob(".documents.*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        if not stored.is_dir():
            with new_directory(stored) as scratch:
                write_documents(records, scratch, source)
            return
        with new_directory(output / ".documents.again") as scratch:
            summary = write_documents(records, scratch, source)
        shutil.rmtree(output / ".documents.again")
        if summary != read_summary(stored):
            raise ValueError(
                f"{output} was begun with other documents than {source} holds now; index a changed "
                "corpus into a new directory"
            )
    finally:
        if empty and output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def _describe(
    embedder: M3Embedder, encoded: dict[str, Any], count: int, sparse_bits: int
) -> dict[str, Any]:
    """The manifest of the index, without its files."""
    model = embedder.encoder.model
    local = Path(model.source)
    return {
        "format": "m3jax-index",
        "version": VERSION,
        "model": str(local.resolve()) if local.is_dir() else model.source,
        "fingerprint": encoded["fingerprint"],
        "config": to_json(model.config),
        "documents": count,
        "modes": encoded["modes"],
        "max_length": encoded["max_length"],
        "cls_every": encoded.get("cls_every"),
        "dtype": encoded["dtype"],
        "sparse_bits": sparse_bits,
        "query_instruction": embedder.query_instruction,
        "passage_instruction": embedder.passage_instruction,
    }


def _sparse_shards(output: Path) -> Iterator[scipy.sparse.csr_array]:
    for shard in corpus.read_manifest(output / "embeddings")["shards"]:
        path = output / "embeddings" / shard["name"] / "sparse.npz"
        yield scipy.sparse.csr_array(scipy.sparse.load_npz(path))
