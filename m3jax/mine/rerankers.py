"""Who gives teacher scores: a cross-encoder in PyTorch, or an M3 by its own methods.

Both are a name that stands for everything that decides the numbers, and a function of pairs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.config import HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.io.hashing import new_digest
from m3jax.mine.resume import digest_of
from m3jax.mine.scoring import pair_scores, weights_of
from m3jax.pretrained import fingerprint
from m3jax.search.options import canonical_method

Pairs = Sequence[tuple[str, str]]  # query, passage
SLICE = 256  # pairs whose token vectors are held at a time


class Reranker(NamedTuple):
    """A teacher."""

    name: str
    score: Callable[[Pairs], list[float]]


def cross_encoder(
    model: str,
    *,
    max_length: int | None = 512,
    batch_size: int = 32,
    device: str | None = None,
    dtype: str = "float32",
) -> Reranker:
    """A sentence-transformers CrossEncoder with one output: its logit, no sigmoid.

    `model` is a directory, or a name on the Hugging Face hub. Code that comes with a model is
    never run. Runs on a GPU where there is one. Raises ImportError, ValueError for a model with
    several outputs.
    """
    try:
        import torch
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise ImportError("a cross-encoder needs PyTorch: pip install 'm3jax[torch]'") from error
    local = Path(model).is_dir()
    if not local and (Path(model).exists() or model.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"{model} is no directory of a cross-encoder")
    if local and not list(Path(model).glob("*.json")):
        raise ValueError(f"{model} holds no model: a cross-encoder has a config.json")
    encoder: Any = CrossEncoder(
        model, trust_remote_code=False, local_files_only=local, device=device,
        max_length=max_length, model_kwargs={"dtype": getattr(torch, dtype)},
    )  # fmt: skip
    if encoder.num_labels != 1:
        raise ValueError(f"{model} has {encoder.num_labels} outputs; a re-ranker has one")

    def score(pairs: Pairs) -> list[float]:
        # Longest first, ties by text: what shares a batch does not depend on the pairs' order.
        order = sorted(range(len(pairs)), key=lambda i: (-sum(map(len, pairs[i])), pairs[i]))
        logits = encoder.predict(
            [pairs[i] for i in order], batch_size=batch_size, show_progress_bar=False,
            activation_fn=torch.nn.Identity(), convert_to_numpy=True,
        )  # fmt: skip
        out = [0.0] * len(pairs)
        for i, logit in zip(order, logits, strict=True):
            out[i] = float(logit)
        return out

    name = digest_of([_weights_digest(encoder), max_length, batch_size, dtype])
    return Reranker(f"cross-encoder-{name}", score)


def m3(
    embedder: M3Embedder,
    method: str = "all",
    weights: HeadWeights | None = None,
    max_length: int | None = 512,
) -> Reranker:
    """An M3's own score of each pair by `method`; weights as in search."""
    method = canonical_method(method)
    if method == "bm25":
        raise ValueError("BM25 is no teacher: name a method with a model")
    weights = weights_of(method, weights, embedder)
    longest = embedder.config.encoder.max_length
    length = None if max_length is None else min(max_length, longest)

    def score(pairs: Pairs) -> list[float]:
        order = sorted(range(len(pairs)), key=lambda i: pairs[i])  # a query's pairs together
        out = [0.0] * len(pairs)
        for start in range(0, len(order), SLICE):
            some = order[start : start + SLICE]
            found = pair_scores(embedder, [pairs[i] for i in some], method, weights, length)
            for i, value in zip(some, found, strict=True):
                out[i] = value
        return out

    model = embedder.encoder.model
    name = digest_of(
        [
            fingerprint(model.params, model.config), method, dataclasses.astuple(weights), length,
            embedder.compute.dtype, embedder.query_instruction, embedder.passage_instruction,
        ]
    )  # fmt: skip
    return Reranker(f"m3-{name}", score)


def _weights_digest(encoder: Any) -> str:
    """16 hex digits for the weights of a PyTorch model."""
    import torch

    digest = new_digest(size=8)
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
