"""The dense vectors of an M3Embedder under mteb's encoder protocol (mteb 2).

>>> import mteb  # doctest: +SKIP
>>> from m3jax.evaluate import mteb_model  # doctest: +SKIP
>>> mteb.evaluate(mteb_model(model), mteb.get_tasks(tasks=["NFCorpus"]))  # doctest: +SKIP
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from m3jax.embed.embedder import M3Embedder
from m3jax.pretrained import fingerprint


class MtebModel:
    """The encoder that `mteb.evaluate` calls; made by `mteb_model`."""

    def __init__(self, embedder: M3Embedder, meta: Any):
        self.embedder = embedder
        self.mteb_model_meta = meta

    def encode(
        self, inputs: Iterable[dict[str, Any]], *, prompt_type: Any = None, **_: Any
    ) -> np.ndarray:
        """Dense vectors [texts, d] of mteb's batches {"text": [...]}.

        Documents get the embedder's passage instruction and passage length, queries its query
        instruction and query length, and the texts of symmetric tasks (no prompt type) its query
        instruction and passage length. The embedder forms its own batches: mteb's batch_size has
        no effect.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        prompt = getattr(prompt_type, "value", prompt_type)
        if prompt == "document":
            out = self.embedder.encode_corpus(texts)
        elif prompt == "query":
            out = self.embedder.encode_queries(texts)
        elif prompt is None:
            length = self.embedder.passage_max_length
            out = self.embedder.encode_queries(texts, max_length=length)
        else:
            raise ValueError(f"prompt_type must be query, document or None, got {prompt_type!r}")
        return out["dense_vecs"]

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Inner products [n, m] of vectors [n, d] and [m, d]."""
        return np.atleast_2d(_array(embeddings1)) @ np.atleast_2d(_array(embeddings2)).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Inner products [n] of corresponding rows."""
        return np.einsum("nd,nd->n", _array(embeddings1), _array(embeddings2))


def mteb_model(embedder: M3Embedder, name: str | None = None) -> MtebModel:
    """The embedder as a model of mteb; `name` ("owner/model") is its name in mteb's results.

    Instructions and lengths are the embedder's. Raises ImportError if mteb is not installed, and
    ValueError if `name` does not have the form owner/model.
    """
    try:
        from mteb.models import ModelMeta
    except ImportError as error:
        raise ImportError("mteb is not installed: pip install 'm3jax[mteb]'") from error
    model = embedder.encoder.model
    name = name or _default_name(model.source)
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", name):
        raise ValueError(f"name must look like owner/model, got {name!r}")
    meta = ModelMeta.create_empty(
        {
            "name": name,
            "revision": fingerprint(model.params, model.config),
            "embed_dim": model.config.encoder.hidden_size,
            "max_tokens": float(embedder.passage_max_length),
            "similarity_fn_name": "cosine" if model.config.normalize else "dot",
            "use_instructions": bool(embedder.query_instruction or embedder.passage_instruction),
        }
    )
    return MtebModel(embedder, meta)


def _default_name(source: str) -> str:
    """A hub name unchanged; m3jax/NAME for a directory or a bundled model."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not Path(source).exists():
        return source
    return f"m3jax/{Path(source).resolve().name}"


def _array(vectors: Any) -> np.ndarray:
    return np.asarray(vectors, np.float32)
