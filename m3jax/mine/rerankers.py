"""Teachers: a cross-encoder in PyTorch, or an M3 model by its own methods."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.config import HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.io.hashing import new_digest
from m3jax.mine.resume import json_digest
from m3jax.mine.scoring import method_weights, pair_scores, recorded_method
from m3jax.pretrained import fingerprint
from m3jax.search.options import canonical_method

Pairs = Sequence[tuple[str, str]]  # query, passage
SLICE = 256  # pairs whose token vectors are in memory at once


class Reranker(NamedTuple):
    """A function that scores (query, passage) pairs, and a name for its results on disk.

    Rerankers that can give different scores must have different names.
    """

    name: str
    score: Callable[[Pairs], list[float]]


def cross_encoder_reranker(
    model: str,
    *,
    max_length: int | None = 512,
    batch_size: int = 32,
    device: str | None = None,
    dtype: str = "float32",
) -> Reranker:
    """A sentence-transformers CrossEncoder with one output; the score is its logit, no sigmoid.

    `model` is a directory or a name on the Hugging Face hub. Code that comes with a model is never
    run. `device` is a PyTorch device; by default a GPU if there is one.

    Raises ImportError without PyTorch, FileNotFoundError for a path that is not a directory,
    ValueError for a directory without a model and for a model with several outputs.
    """
    encoder, identity = _load_cross_encoder(model, max_length, device, dtype)

    def score(pairs: Pairs) -> list[float]:
        # Longest first, ties by text: batches do not depend on the order of the pairs.
        order = sorted(range(len(pairs)), key=lambda i: (-sum(map(len, pairs[i])), pairs[i]))
        logits = encoder.predict(
            [pairs[i] for i in order],
            batch_size=batch_size,
            show_progress_bar=False,
            activation_fn=identity,
            convert_to_numpy=True,
        )
        scores = [0.0] * len(pairs)
        for i, logit in zip(order, logits, strict=True):
            scores[i] = float(logit)
        return scores

    name = json_digest([_weights_digest(encoder), max_length, batch_size, dtype])
    return Reranker(f"cross-encoder-{name}", score)


def _load_cross_encoder(
    model: str, max_length: int | None, device: str | None, dtype: str
) -> tuple[Any, Any]:
    """The CrossEncoder and torch.nn.Identity()."""
    try:
        import torch
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise ImportError("a cross-encoder needs PyTorch: pip install 'm3jax[torch]'") from error
    local = Path(model).is_dir()
    if not local and (Path(model).exists() or model.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"{model} is not a directory with a cross-encoder")
    if local and not list(Path(model).glob("*.json")):
        raise ValueError(f"{model} contains no model: a cross-encoder has a config.json")
    encoder: Any = CrossEncoder(
        model,
        trust_remote_code=False,
        local_files_only=local,
        device=device,
        max_length=max_length,
        model_kwargs={"dtype": getattr(torch, dtype)},
    )
    if encoder.num_labels != 1:
        raise ValueError(f"{model} has {encoder.num_labels} outputs; a reranker has one")
    return encoder, torch.nn.Identity()


def m3_reranker(
    embedder: M3Embedder,
    method: str = "all",
    weights: HeadWeights | None = None,
    max_length: int | None = 512,
) -> Reranker:
    """Scores by `method` of an M3 model; `weights` as in search, passages cut at `max_length`.

    Raises ValueError for an unknown method and for weights of a method with a single head.
    """
    method = canonical_method(method)
    if method == "bm25":
        raise ValueError("BM25 cannot be a teacher: use a method of the model")
    weights = method_weights(method, weights, embedder)
    model_length = embedder.config.encoder.max_length
    length = None if max_length is None else min(max_length, model_length)

    def score(pairs: Pairs) -> list[float]:
        order = sorted(range(len(pairs)), key=lambda i: pairs[i])  # pairs of a query are adjacent
        scores = [0.0] * len(pairs)
        for start in range(0, len(order), SLICE):
            numbers = order[start : start + SLICE]
            values = pair_scores(embedder, [pairs[i] for i in numbers], method, weights, length)
            for i, value in zip(numbers, values, strict=True):
                scores[i] = value
        return scores

    model = embedder.encoder.model
    name = json_digest(
        [
            fingerprint(model.params, model.config),
            recorded_method(method),
            dataclasses.astuple(weights),
            length,
            embedder.compute.dtype,
            embedder.query_instruction,
            embedder.passage_instruction,
        ]
    )
    return Reranker(f"m3-{name}", score)


def _weights_digest(encoder: Any) -> str:
    """16 hexadecimal digits of the weights of a PyTorch model."""
    import torch

    digest = new_digest(size=8)
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
