"""The protocol of a result: what decides its numbers, and the environment it was made in."""

import dataclasses
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from m3jax.config import HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.evaluate.options import EvaluationOptions
from m3jax.evaluate.tasks import QuerySet, Task
from m3jax.io.hashing import hex_digest
from m3jax.pretrained import fingerprint
from m3jax.search import bm25, fuse
from m3jax.search.options import FUSED
from m3jax.search.threads import cores

PACKAGES = (
    "m3jax",
    "jax",
    "flax",
    "numpy",
    "transformers",
    "bm25s",
    "ir-measures",
    "pytrec-eval-terrier",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What an evaluation needs to know of its model, computed once."""

    fields: dict[str, Any]  # of a protocol: what decides the vectors
    vocabulary: dict[str, Any]  # fields of BM25 over tokens
    fusion: dict[str, HeadWeights]  # weights tuned for the model, by method
    max_length: int  # tokens of the longest text


def describe(embedder: M3Embedder | None, options: EvaluationOptions) -> ModelDescription:
    """The description of a model, which covers a hash of its weights; without one, of BM25."""
    if embedder is None:
        return ModelDescription(fields={}, vocabulary={}, fusion={}, max_length=bm25.MAX_TOKENS)
    model = embedder.encoder.model
    vocabulary = {}
    if "bm25" in options.methods and options.bm25_terms == "tokens":
        tokenizer = embedder.tokenizer
        digest = tokenizer.fingerprint()[:20]
        vocabulary = {"vocabulary": tokenizer.vocab_size, "tokenizer": digest}
    return ModelDescription(
        fields={
            "model_hash": fingerprint(model.params, model.config),
            "pooling": model.config.pooling,
            "normalize": model.config.normalize,
            "compute_dtype": embedder.compute.dtype,
            "query_prefix": embedder.query_instruction,
            "passage_prefix": embedder.passage_instruction,
        },
        vocabulary=vocabulary,
        fusion=model.fusion,
        max_length=embedder.config.encoder.max_length,
    )


def environment(embedder: M3Embedder | None) -> dict[str, Any]:
    """The model's name, versions and machine: in every protocol, but not in its identity."""
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


def lengths(model: ModelDescription, task: Task, options: EvaluationOptions) -> tuple[int, int]:
    """(tokens of a query, tokens of a document) at most."""
    query = options.query_length or task.protocol.query_length
    passage = options.passage_length or task.protocol.passage_length
    return min(query, model.max_length), min(passage, model.max_length)


def measures_of(task: Task, options: EvaluationOptions) -> list[str]:
    """The measures of a task. Raises ValueError if none of those requested applies to it."""
    names = list(options.measures or task.protocol.measures)
    if task.protocol.judged_by == "answers":
        names = [name for name in names if name.startswith("Recall@")]
    if not names:
        raise ValueError(f"{task.name} is judged by answers, which gives Recall@k only")
    return names


def protocol_of(
    method: str,
    task: Task,
    queries: QuerySet,
    model: ModelDescription,
    options: EvaluationOptions,
) -> dict[str, Any]:
    """Everything that decides the numbers: equal protocols give equal results.

    Files of results are named by a hash of it (`results.path_of`): with another key or value,
    stored results are not used again.
    """
    query_length, passage_length = lengths(model, task, options)
    protocol: dict[str, Any] = {
        "corpus": {"documents": len(task.document_ids), "hash": task.digest},
        "queries": {
            "number": len(queries.ids),
            "sampled_from": queries.population,
            "hash": _hash(queries),
        },
        "title_join": task.protocol.title_join,
        "judged_by": task.protocol.judged_by,
        "measures": measures_of(task, options),
        "top_k": options.top_k,
        "remove_self": options.remove_self,
        "missing_queries": "count 0",
        "ties": "document order",
        "warnings": list(task.warnings),
    }
    if queries.excluded is not None:
        protocol["translations"] = "taken out"
    if method == "bm25":
        return protocol | {"bm25": _bm25_fields(model, options)}
    protocol |= model.fields | {
        "query_tokens": query_length,
        "passage_tokens": passage_length,
        "stored_dtype": options.storage_dtype,
        "depths": {
            "dense": options.depths.dense,
            "sparse": options.depths.sparse,
            "rerank": options.depths.rerank_top_k,
        },
    }
    if options.cls_every is not None:
        protocol["cls_every"] = options.cls_every
    if method in FUSED:
        protocol |= _fusion_fields(method, task, model, options)
    return protocol


def _bm25_fields(model: ModelDescription, options: EvaluationOptions) -> dict[str, Any]:
    return {
        "terms": options.bm25_terms,
        **model.vocabulary,
        "k1": bm25.K1,
        "b": bm25.B,
        "tokens": bm25.MAX_TOKENS,
    }


def _fusion_fields(
    method: str, task: Task, model: ModelDescription, options: EvaluationOptions
) -> dict[str, Any]:
    """Weights: those of the options, else tuned ones of the model, else the benchmark's."""
    tuned = model.fusion.get(method) if options.fusion == "weighted" else None
    weights = options.weights or tuned or task.protocol.weights
    weights = fuse.preset(weights, method) if isinstance(weights, str) else weights
    used = None if options.fusion == "rrf" else dataclasses.asdict(weights)
    return {"weights": used, "fusion": options.fusion, "compat": options.compat}


def _processor() -> str:
    """The processor's name, or the system's and architecture's."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else f"{platform.system()} {platform.machine()}"


def _hash(queries: QuerySet) -> str:
    judged = queries.qrels if queries.answers is None else queries.answers
    excluded = [] if queries.excluded is None else [queries.excluded]
    text = json.dumps([queries.ids, queries.texts, judged, *excluded], ensure_ascii=False)
    return hex_digest(text, size=10)
