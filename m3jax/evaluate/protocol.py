"""What a result says of how it was made, and which parts of that decide the numbers."""

import dataclasses
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from m3jax.config import HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.evaluate import embed
from m3jax.evaluate.tasks import QuerySet, Task
from m3jax.io.hashing import hex_digest
from m3jax.pretrained import fingerprint
from m3jax.search import bm25, fuse
from m3jax.search.options import (
    FUSED,
    METHODS,
    TOKENIZATIONS,
    Depths,
    canonical_method,
    check_fusion,
)
from m3jax.search.threads import cores

PACKAGES = ("m3jax", "jax", "flax", "numpy", "transformers", "bm25s", "ir-measures",
            "pytrec-eval-terrier")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may change of the protocol; None: what the benchmark says.

    Of `weights` None means those that the model keeps for the weighted sum, else the benchmark's.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    top_k: int = 1000  # documents a query that are measured
    depths: Depths = Depths()
    weights: HeadWeights | str | None = None  # of fused methods, or a preset; None: see below
    fusion: str = "weighted"
    compat: str | None = None  # "flagembedding": a score missing from a list is 0
    bm25_terms: str = "tokens"
    query_length: int | None = None
    passage_length: int | None = None
    measures: tuple[str, ...] | None = None
    remove_self: bool = False  # take the document with the query's own id out of its results
    store: str = "all"  # representations kept: "all" the model has, or those "needed"
    dtype: str = "float32"  # of the stored document vectors
    batch_size: int | None = None
    cls_every: int | None = None  # MCLS of documents [M3 app. B.2]
    save_runs: bool = False

    def __post_init__(self):
        methods = tuple(map(canonical_method, self.methods))
        object.__setattr__(self, "methods", methods)
        for name, value, known in (
            ("bm25_terms", self.bm25_terms, TOKENIZATIONS),
            ("store", self.store, embed.STORES),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        check_fusion(self.fusion, self.weights, self.compat)
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")


def describe_model(embedder: M3Embedder) -> dict[str, Any]:
    """The parts of a protocol that belong to the model; hashes its weights once."""
    model = embedder.encoder.model
    return {
        "model_hash": fingerprint(model.params, model.config),
        "pooling": model.config.pooling,
        "normalize": model.config.normalize,
        "compute_dtype": embedder.compute.dtype,
        "query_prefix": embedder.query_instruction,
        "passage_prefix": embedder.passage_instruction,
    }


def describe_vocabulary(embedder: M3Embedder | None, settings: Settings) -> dict[str, Any]:
    """The tokens that BM25 counts; {} where it counts words or is not asked for."""
    if embedder is None or settings.bm25_terms == "words" or "bm25" not in settings.methods:
        return {}
    tokenizer = embedder.tokenizer
    return {"vocabulary": tokenizer.vocab_size, "tokenizer": tokenizer.fingerprint()[:20]}


def circumstances(embedder: M3Embedder | None) -> dict[str, Any]:
    """Name of the model, versions and machine: recorded, but no part of a result's identity."""
    import jax

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {
        "model": embedder.encoder.model.source if embedder else None,
        "versions": versions,
        "machine": f"{_processor()}, {cores()} cores, {devices}",
    }


def lengths(embedder: M3Embedder | None, task: Task, settings: Settings) -> tuple[int, int]:
    """Tokens of a query and of a passage."""
    longest = embedder.config.encoder.max_length if embedder else bm25.MAX_TOKENS
    query = settings.query_length or task.protocol.query_length
    passage = settings.passage_length or task.protocol.passage_length
    return min(query, longest), min(passage, longest)


def measures_of(task: Task, settings: Settings) -> list[str]:
    """The measures of a task; ValueError where none of those asked for can be had."""
    names = list(settings.measures or task.protocol.measures)
    if task.protocol.judged_by == "answers":
        names = [name for name in names if name.startswith("Recall@")]
    if not names:
        raise ValueError(f"{task.name} is judged by its answers, which gives Recall@k only")
    return names


def protocol_of(
    model: dict[str, Any], task: Task, queries: QuerySet, method: str, settings: Settings,
    tokens: tuple[int, int], vocabulary: dict[str, Any], own: dict[str, HeadWeights],
) -> dict[str, Any]:  # fmt: skip
    """Everything that decides the numbers: results with equal protocols are the same.

    `model` comes from `describe_model`; `tokens` are the lengths of queries and passages,
    `vocabulary` from `describe_vocabulary`, `own` are the weights that the model keeps.
    """
    protocol: dict[str, Any] = {
        "corpus": {"documents": len(task.document_ids), "hash": task.digest},
        "queries": {
            "number": len(queries.ids),
            "sampled_from": queries.sampled_from,
            "hash": _hash(queries),
        },
        "title_join": task.protocol.title_join,
        "judged_by": task.protocol.judged_by,
        "measures": measures_of(task, settings),
        "top_k": settings.top_k,
        "remove_self": settings.remove_self,
        "missing_queries": "count 0",
        "ties": "document order",
        "warnings": list(task.warnings),
    }
    if queries.aside is not None:
        protocol["translations"] = "taken out"
    if method == "bm25":
        protocol["bm25"] = {"terms": settings.bm25_terms, **vocabulary, "k1": bm25.K1,
                            "b": bm25.B, "tokens": bm25.MAX_TOKENS}  # fmt: skip
        return protocol
    protocol |= model | {
        "query_tokens": tokens[0],
        "passage_tokens": tokens[1],
        "stored_dtype": settings.dtype,
        "depths": {
            "dense": settings.depths.dense,
            "sparse": settings.depths.sparse,
            "rerank": settings.depths.rerank_top_k,
        },
    }
    if settings.cls_every is not None:
        protocol["cls_every"] = settings.cls_every
    if method in FUSED:
        kept = own.get(method) if settings.fusion == "weighted" else None
        weights = settings.weights or kept or task.protocol.weights
        weights = fuse.preset(weights, method) if isinstance(weights, str) else weights
        used = None if settings.fusion == "rrf" else dataclasses.asdict(weights)
        protocol |= {"weights": used, "fusion": settings.fusion, "compat": settings.compat}
    return protocol


def _processor() -> str:
    """The processor's name where the system tells it."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text(encoding="utf-8").splitlines() if names.is_file() else []
    found = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else f"{platform.system()} {platform.machine()}"


def _hash(queries: QuerySet) -> str:
    judged = queries.qrels if queries.answers is None else queries.answers
    aside = [] if queries.aside is None else [queries.aside]
    text = json.dumps([queries.ids, queries.texts, judged, *aside], ensure_ascii=False)
    return hex_digest(text, size=10)
