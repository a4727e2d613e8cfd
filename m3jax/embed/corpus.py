"""Encodes a stream of records to embeddings on disk: in shards, with a manifest, resumable.

    OUTPUT/manifest.json                      settings, input, and the finished shards
    OUTPUT/shard-00000/ids.json               the records' ids, in order
                      /dense.npy              [texts, d]
                      /dense_scales.npy       [texts], int8 only
                      /sparse.npz             SciPy CSR [texts, v]
                      /colbert.npy            [vectors, c], with colbert_offsets.npy [texts + 1]
                      /colbert_scales.npy     [vectors], int8 only

A shard is renamed when it is complete, and listed in the manifest after that.
"""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from m3jax.config import FORMER_NAMES, HEADS, current_name
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import Embeddings, Ragged, to_int8
from m3jax.embed.vectors import StoredVectors
from m3jax.io.atomic import new_directory, write_json
from m3jax.io.hashing import file_digests, new_digest
from m3jax.io.jsonl import Record
from m3jax.pretrained import fingerprint

MANIFEST = "manifest.json"
VERSION = 1
SHARD_SIZE = 8192


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How records are encoded and stored.

    modes        representations to store
    max_length   tokens of a text; None: the embedder's limit of passages
    dtype        of the stored vectors: float32, float16 or int8
    shard_size   texts of a shard, the unit of resuming
    batch_size   rows of a batch; None: chosen by the number of tokens
    cls_every    MCLS: tokens between two [CLS] of a text; None: one [CLS]
    """

    modes: tuple[str, ...] = HEADS
    max_length: int | None = None
    dtype: str = "float32"
    shard_size: int = SHARD_SIZE
    batch_size: int | None = None
    cls_every: int | None = None


def encode_corpus(
    embedder: M3Embedder,
    records: Iterable[Record],
    output: Path,
    options: CorpusOptions | None = None,
    *,
    source: str = "",
    progress: bool | None = None,
) -> dict[str, Any]:
    """Encodes `records` to `output` and returns the manifest; resumes an interrupted run.

    `source` names the input in the manifest. Raises ValueError if `output` holds embeddings of
    another model, other options or another input.
    """
    options = options or CorpusOptions()
    settings = _settings(embedder, options, source)
    manifest = _open_manifest(output, settings)
    stream = iter(records)
    _check_finished(output, manifest, stream)
    for number in itertools.count(len(manifest["shards"])):
        batch = list(itertools.islice(stream, options.shard_size))
        if not batch:
            break
        parts = embedder.encode_stream(
            [record.text for record in batch],
            heads=tuple(settings["modes"]),
            max_length=settings["max_length"],
            chunk=options.shard_size,
            batch_size=options.batch_size,
            cls_every=options.cls_every,
            progress=progress,
        )
        (embeddings,) = parts
        name = f"shard-{number:05d}"
        shutil.rmtree(output / name, ignore_errors=True)  # left by an interrupted run
        with new_directory(output / name) as scratch:
            norms = _write_shard(
                scratch, [record.id for record in batch], embeddings, options.dtype
            )
        entry = {"name": name, "texts": len(batch), "digest": _digest(batch), "norms": norms}
        manifest["shards"].append(entry | {"files": file_digests(output / name)})
        _write_manifest(output, manifest)
    manifest["complete"] = True
    _write_manifest(output, manifest)
    return manifest


def read_manifest(output: Path) -> dict[str, Any]:
    """The manifest of an embeddings directory.

    Raises FileNotFoundError or ValueError naming the file.
    """
    path = output / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{output} has no {MANIFEST}: not an embeddings directory")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("format") != "m3jax-embeddings" or manifest.get("version") != VERSION:
        raise ValueError(f"{path} is not a version {VERSION} manifest of m3jax embeddings")
    return manifest | {"modes": [FORMER_NAMES.get(mode, mode) for mode in manifest["modes"]]}


def check_files(folder: Path, files: dict[str, list[Any]], contents: bool) -> None:
    """Raises ValueError naming a file that is missing or has changed since it was written.

    Sizes are always compared; with `contents`, all files are read and their digests compared.
    """
    for name, (size, _) in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing: the directory is damaged; create it again")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} has {path.stat().st_size} bytes, not the {size} that were written: it is "
                "damaged; create it again"
            )
    if contents and (now := file_digests(folder)):
        for name, written in files.items():
            if now[name] != written:
                raise ValueError(
                    f"{folder / name} has other contents than were written: it is damaged; "
                    "create it again"
                )


def read_shards(output: Path) -> Iterator[tuple[list[str], Embeddings]]:
    """Yields (ids, embeddings) of each shard, memory-mapped; int8 codes become float32."""
    for shard in read_manifest(output)["shards"]:
        folder = output / shard["name"]
        ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        dense = _read_vectors(folder, "dense")
        vectors = _read_vectors(folder, "colbert")
        sparse = None
        if (folder / "sparse.npz").is_file():
            sparse = scipy.sparse.csr_array(scipy.sparse.load_npz(folder / "sparse.npz"))
        colbert = None
        if vectors is not None:
            colbert = Ragged(vectors, np.load(folder / "colbert_offsets.npy"))
        yield ids, Embeddings(dense, sparse, colbert)


def _settings(embedder: M3Embedder, options: CorpusOptions, source: str) -> dict[str, Any]:
    modes = tuple(current_name(mode) for mode in options.modes)
    unknown = sorted(set(modes) - set(HEADS))
    if unknown or not modes:
        raise ValueError(f"modes must be some of {', '.join(HEADS)}, got {', '.join(modes)!r}")
    if options.dtype not in ("float32", "float16", "int8"):
        raise ValueError(f"dtype must be float32, float16 or int8, got {options.dtype!r}")
    if options.shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {options.shard_size}")
    given = options.max_length
    length = embedder.passage_max_length if given is None else given
    embedder.encoder.check(length, cls_every=options.cls_every)
    model = embedder.encoder.model
    return {
        "format": "m3jax-embeddings",
        "version": VERSION,
        "model": model.source,
        "fingerprint": fingerprint(model.params, model.config),
        "compute_dtype": embedder.compute.dtype,
        "input": source,
        "modes": list(modes),
        "max_length": length,
        "cls_every": options.cls_every,
        "dtype": options.dtype,
        "shard_size": options.shard_size,
        "dense_dim": model.config.encoder.hidden_size,
        "colbert_dim": model.config.colbert_dim,
        "vocab_size": model.config.encoder.vocab_size,
    }


def _open_manifest(output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest of an interrupted run, or a new one in a new or empty directory."""
    if not (output / MANIFEST).is_file():
        if output.exists() and (output.is_file() or any(output.iterdir())):
            raise FileExistsError(f"{output} exists and holds no {MANIFEST}; name a new directory")
        output.mkdir(parents=True, exist_ok=True)
        manifest = settings | {"shards": [], "complete": False}
        _write_manifest(output, manifest)
        return manifest
    manifest = read_manifest(output)
    for key, value in settings.items():
        # The same model and file can have several names; fingerprint and digests are compared.
        if key not in ("model", "input") and manifest.get(key) != value:
            raise ValueError(
                f"{output} was encoded with {key} = {manifest.get(key)!r}, now asked for "
                f"{value!r}; repeat the earlier settings or name a new directory"
            )
    for leftover in output.glob(".shard-*"):  # of an interrupted run
        shutil.rmtree(leftover, ignore_errors=True)
    return manifest


def _check_finished(output: Path, manifest: dict[str, Any], stream: Iterator[Record]) -> None:
    """Skips the records of finished shards; raises ValueError if they have changed."""
    for shard in manifest["shards"]:
        batch = list(itertools.islice(stream, shard["texts"]))
        if _digest(batch) != shard["digest"]:
            raise ValueError(
                f"{output / shard['name']} was made from other records than the input has now; "
                "encode a changed input into a new directory"
            )
    # Only the last shard may be short, and then the input ended: no record can follow it.
    short = manifest["shards"] and manifest["shards"][-1]["texts"] < manifest["shard_size"]
    if (short or manifest["complete"]) and next(stream, None) is not None:
        raise ValueError(
            f"the input has more records than {output} was made from; encode it into a new "
            "directory"
        )


def _write_shard(
    folder: Path, ids: list[str], embeddings: Embeddings, dtype: str
) -> dict[str, float]:
    """Writes the files of a shard; returns the largest norm of each head that has vectors."""
    norms = {}
    (folder / "ids.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    if embeddings.dense is not None:
        norms["dense"] = _write_vectors(folder, "dense", embeddings.dense, dtype)
    if embeddings.sparse is not None:
        scipy.sparse.save_npz(folder / "sparse.npz", embeddings.sparse, compressed=False)
    if embeddings.colbert is not None:
        norms["colbert"] = _write_vectors(folder, "colbert", embeddings.colbert.values, dtype)
        np.save(folder / "colbert_offsets.npy", embeddings.colbert.offsets)
    return norms


def _write_vectors(folder: Path, head: str, vectors: np.ndarray, dtype: str) -> float:
    scales = None
    if dtype == "int8":
        vectors, scales = to_int8(vectors)
        np.save(folder / f"{head}_scales.npy", scales)
    vectors = vectors.astype(dtype, copy=False)
    np.save(folder / f"{head}.npy", vectors)
    return StoredVectors((vectors,), (scales,)).largest_norm


def _read_vectors(folder: Path, head: str) -> np.ndarray | None:
    if not (folder / f"{head}.npy").is_file():
        return None
    vectors = np.load(folder / f"{head}.npy", mmap_mode="r")
    if (folder / f"{head}_scales.npy").is_file():
        return vectors * np.load(folder / f"{head}_scales.npy")[:, None]
    return vectors


def _write_manifest(output: Path, manifest: dict[str, Any]) -> None:
    write_json(output / MANIFEST, manifest, indent=1, ensure_ascii=False)


def _digest(records: list[Record]) -> str:
    digest = new_digest(size=8)
    for record in records:
        digest.update(json.dumps([record.id, record.text]).encode())
    return digest.hexdigest()
