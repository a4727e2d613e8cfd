"""One index on disk or in memory: everything that `methods.search` reads.

INDEX/index.json    the model and its config, modes, lengths, sizes and digests; written last
     /documents/    the texts (documents.py)
     /embeddings/   sharded vectors (corpus.py)
     /sparse/       the inverted index (sparse.py)
     /bm25-tokens/  made when BM25 is first asked for (bm25.py)
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from m3jax import pretrained
from m3jax.config import PAPER_FUSION, HeadWeights
from m3jax.embed import corpus
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import Embeddings
from m3jax.embed.vectors import RaggedRows, Rows, as_ragged, as_rows
from m3jax.io.atomic import new_directory, write_json
from m3jax.io.fields import to_json
from m3jax.io.hashing import file_digests
from m3jax.io.jsonl import Record
from m3jax.search import bm25 as bm25s
from m3jax.search import documents, sparse
from m3jax.search.documents import Document, Documents
from m3jax.search.sparse import InvertedIndex

MANIFEST = "index.json"
VERSION = 1
MODE_OF = {head: mode for mode, head in corpus.MODES.items()}
CHECKED = 1 << 30  # bytes; a smaller index is read and compared with its digests when opened


@dataclasses.dataclass
class Index:
    """Documents by number, in the representations that were computed; None for the others."""

    size: int
    dense: Rows | None
    sparse: InvertedIndex | None
    colbert: RaggedRows | None
    documents: Sequence[Document]
    manifest: dict[str, Any]
    path: Path | None = None
    model: M3Embedder | None = None
    _bm25: dict[str, bm25s.Bm25] = dataclasses.field(default_factory=dict)

    @property
    def ids(self) -> Sequence[str]:
        """The documents' ids, in order."""
        if isinstance(self.documents, Documents):
            return self.documents.ids
        return [document.id for document in self.documents]

    def require(self, heads: Sequence[str], method: str) -> None:
        """Raises ValueError where the index lacks a representation that `method` needs."""
        missing = [MODE_OF[head] for head in heads if getattr(self, head) is None]
        if missing:
            have = [mode for head, mode in MODE_OF.items() if getattr(self, head) is not None]
            raise ValueError(
                f"method {method!r} needs {' and '.join(missing)}, but {self.path or 'the index'} "
                f"holds {', '.join(have) or 'no vectors'} only; index again with --modes"
            )

    def embedder(self) -> M3Embedder:
        """The model that made the index, loaded from where it was unless one is set."""
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
        """Takes `model` for queries; ValueError where another one made the index."""
        loaded = model.encoder.model
        found = pretrained.fingerprint(loaded.params, loaded.config)
        if found != self.manifest.get("fingerprint", found):
            raise ValueError(
                f"{self.path} was made by another model: {self.manifest['model']} with fingerprint "
                f"{self.manifest['fingerprint']}, but {loaded.source} has {found}; search with the "
                "first, or index again"
            )
        self.model = model

    def fusion(self, method: str) -> HeadWeights:
        """The weights that its model keeps for a fused method, or the paper's; loads no model."""
        if self.model is not None:
            return self.model.fusion(method)
        name = self.manifest.get("model", "")
        here = name in pretrained.bundled_names() or (bool(name) and Path(name).is_dir())
        own = pretrained.read_fusion(pretrained.resolve(name)) if here else {}
        return own.get(method, PAPER_FUSION)

    def bm25(self, kind: str = "tokens") -> bm25s.Bm25:
        """BM25 over the stored texts; made when first asked for, and kept beside the index."""
        if kind not in bm25s.KINDS:
            raise ValueError(f"BM25's terms must be one of {', '.join(bm25s.KINDS)}, got {kind!r}")
        if kind not in self._bm25:
            tokenizer = self.embedder().tokenizer if kind == "tokens" else None
            folder = None if self.path is None else self.path / f"bm25-{kind}"
            if folder is not None and folder.is_dir():
                self._bm25[kind] = bm25s.load(folder, tokenizer)
            else:
                texts = (document.text for document in self.documents)
                self._bm25[kind] = bm25s.build(texts, tokenizer=tokenizer)
                if folder is not None and os.access(folder.parent, os.W_OK):
                    bm25s.save(self._bm25[kind], folder)
        return self._bm25[kind]


def in_memory(
    embeddings: Embeddings,
    texts: Sequence[Document] | None = None,
    *,
    model: M3Embedder | None = None,
) -> Index:
    """An index of embeddings that are already here; without `texts` ids are the numbers."""
    matrix, vectors, ragged = embeddings.sparse, embeddings.dense, embeddings.colbert
    sizes = [len(x) for x in (vectors, ragged) if x is not None]
    sizes += [sparse.height_of(matrix)] if matrix is not None else []
    if len(set(sizes)) != 1 or (texts is not None and len(texts) != sizes[0]):
        raise ValueError(f"representations and texts of different numbers of documents: {sizes}")
    return Index(
        sizes[0],
        None if vectors is None else as_rows(vectors),
        None if matrix is None else sparse.build(lambda: [matrix]),
        None if ragged is None else as_ragged(ragged),
        [Document(str(i), "") for i in range(sizes[0])] if texts is None else texts,
        {},
        model=model,
    )


def build(
    embedder: M3Embedder,
    records: Iterable[Record],
    output: Path,
    *,
    modes: tuple[str, ...] = tuple(corpus.MODES),
    max_length: int | None = None,
    dtype: str = "float32",
    shard_size: int = corpus.SHARD_SIZE,
    sparse_bits: int = 32,
    source: str = "the corpus",
    batch_size: int | None = None,
    cls_every: int | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Writes an index to `output` and returns its manifest. Run again after a stop, it goes on.

    Raises ValueError for an empty corpus, an id that occurs twice, another model's index, or other
    settings or texts than `output` was begun with: nothing is mixed and nothing is overwritten.
    """
    if sparse_bits not in (8, 32):
        raise ValueError(f"sparse_bits must be 8 or 32, got {sparse_bits}")
    _store_documents(records, output, source)
    texts = Documents(output / "documents")
    stored = (
        Record(text.id, embedder.passage_instruction + text.text, number)
        for number, text in enumerate(texts, 1)
    )
    encoded = corpus.encode_corpus(
        embedder, stored, output / "embeddings", modes=modes, max_length=max_length, dtype=dtype,
        shard_size=shard_size, source=source, batch_size=batch_size, cls_every=cls_every,
        progress=progress,
    )  # fmt: skip
    manifest = _describe(embedder, encoded, output, len(texts), sparse_bits)
    if (output / MANIFEST).is_file():
        finished = read_manifest(output)
        for key in ("query_instruction", "passage_instruction", "sparse_bits"):
            if finished[key] != manifest[key]:
                raise ValueError(f"{output} was made with {key} = {finished[key]!r}")
        return finished
    folders = ["documents"]
    if "sparse" in modes:
        shutil.rmtree(output / "sparse", ignore_errors=True)  # of a run that was stopped
        sparse.build(lambda: _sparse_shards(output), output / "sparse", bits=sparse_bits)
        folders.append("sparse")
    manifest["files"] = {name: file_digests(output / name) for name in folders}
    write_json(output / MANIFEST, manifest, indent=1, ensure_ascii=False)
    return manifest


def join(parts: Mapping[str, Index]) -> Index:
    """One index in memory of several on disk that one model made; ids become NAME:ID.

    Vectors stay mapped where they lie; only the inverted index is made anew. It has the
    representations that all of them have. ValueError where two models made them.
    """
    indexes = list(parts.values())
    for part in indexes:
        if part.path is None:
            raise ValueError("only indexes on disk can be joined")
        if part.manifest["fingerprint"] != indexes[0].manifest["fingerprint"]:
            raise ValueError(f"{part.path} and {indexes[0].path} were made by different models")
    dense = [part.dense for part in indexes if part.dense is not None]
    ragged = [part.colbert for part in indexes if part.colbert is not None]
    paths = [part.path for part in indexes if part.path is not None and part.sparse is not None]
    texts = [Document(f"{name}:{text.id}", text.text)
             for name, part in parts.items() for text in part.documents]  # fmt: skip
    rows = _chained([part.rows for part in ragged])
    offsets = tuple(some for part in ragged for some in part.offsets)
    whole = len(indexes)
    return Index(
        len(texts),
        _chained(dense) if len(dense) == whole else None,
        sparse.build(lambda: (m for path in paths for m in _sparse_shards(path)))
        if len(paths) == whole else None,
        RaggedRows(rows, offsets) if len(ragged) == whole else None,
        texts,
        indexes[0].manifest | {"documents": len(texts)},
        model=indexes[0].model,
    )  # fmt: skip


def _chained(parts: Sequence[Rows]) -> Rows:
    """Rows that follow one another."""
    return Rows(
        tuple(array for part in parts for array in part.parts),
        tuple(scales for part in parts for scales in part.scales),
        _largest([part.norm for part in parts]),
    )


def open_index(path: Path | str, *, verify: bool | None = None) -> Index:
    """The index in a directory, everything memory-mapped.

    Sizes of files are always compared with those written; their contents with `verify`, by
    default where the whole is below 1 GiB. Raises FileNotFoundError or ValueError that names what
    is missing or damaged.
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
    colbert = None
    if "multivector" in manifest["modes"]:
        offsets = tuple(np.load(shard / "colbert_offsets.npy") for shard in shards)
        colbert = RaggedRows(_rows(shards, "colbert", encoded), offsets)
    return Index(
        manifest["documents"],
        _rows(shards, "dense", encoded) if "dense" in manifest["modes"] else None,
        sparse.load(path / "sparse") if "sparse" in manifest["modes"] else None,
        colbert,
        Documents(path / "documents"),
        manifest,
        path,
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """The index's manifest; FileNotFoundError or ValueError says what the directory is instead."""
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
    return manifest


def _store_documents(records: Iterable[Record], output: Path, source: str) -> None:
    """The texts under `output`; where they are there already, they must be the same."""
    known = output / "documents"
    empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty and not known.is_dir() and not list(output.glob(".documents.*")):
        raise FileExistsError(f"{output} exists and is no index; name a new directory")
    for leftover in output.glob(".documents.*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        if not known.is_dir():
            with new_directory(known) as scratch:
                documents.write(records, scratch, source)
            return
        with new_directory(output / ".documents.again") as scratch:
            now = documents.write(records, scratch, source)
        shutil.rmtree(output / ".documents.again")
        if now != documents.read_summary(known):
            raise ValueError(
                f"{output} was begun with other documents than {source} holds now; index a changed "
                "corpus into a new directory"
            )
    finally:
        if empty and output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def _describe(
    embedder: M3Embedder, encoded: dict[str, Any], output: Path, count: int, sparse_bits: int
) -> dict[str, Any]:
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


def _rows(shards: Sequence[Path], head: str, encoded: dict[str, Any]) -> Rows:
    """The vectors of all shards, mapped."""
    norms = [shard.get("norms", {}).get(head) for shard in encoded["shards"]]
    parts, scales = [], []
    for shard in shards:
        parts.append(np.load(shard / f"{head}.npy", mmap_mode="r"))
        file = shard / f"{head}_scales.npy"
        scales.append(np.load(file) if file.is_file() else None)
    return Rows(tuple(parts), tuple(scales), _largest(norms))


def _largest(norms: Sequence[float | None]) -> float | None:
    """Of all parts; None where one does not know its own."""
    known = [norm for norm in norms if norm is not None]
    return max(known, default=0.0) if len(known) == len(norms) else None
