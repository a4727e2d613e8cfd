"""M3Embedder with FlagEmbedding's constructor [FE inference/embedder/encoder_only/m3.py]."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from m3jax import pretrained, sharding
from m3jax.config import ComputeConfig
from m3jax.embed.embedder import M3Embedder, Output


class BGEM3FlagModel(M3Embedder):
    """M3Embedder with FlagEmbedding's constructor, so that only the import has to change.

    `use_fp16` and `use_bf16` select bfloat16 on accelerators, since float16 can overflow; a CPU
    computes in float32, as FlagEmbedding does. `devices` is ignored: one process uses all local
    devices.
    """

    def __init__(
        self,
        model_name_or_path: str,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "{}{}",
        devices: Any = None,
        pooling_method: Literal["cls", "mean"] = "cls",
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        colbert_dim: int = -1,
        batch_size: int | None = None,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        truncate_dim: int | None = None,
    ):
        if trust_remote_code:
            raise ValueError("trust_remote_code=True: m3jax never runs code from a checkpoint")
        mesh = sharding.make_mesh()
        model = pretrained.load(
            model_name_or_path, mesh=mesh, pooling=pooling_method, cache_dir=cache_dir
        )
        config = dataclasses.replace(model.config, normalize=normalize_embeddings)
        if colbert_dim not in (-1, config.colbert_dim):
            raise ValueError(f"colbert_dim {colbert_dim}: the checkpoint has {config.colbert_dim}")
        dtype = sharding.default_dtype(mesh) if use_fp16 or use_bf16 else "float32"
        super().__init__(
            dataclasses.replace(model, config=config),
            mesh=mesh,
            compute=ComputeConfig(dtype=dtype),
            query_instruction=_instruction(
                query_instruction_format, query_instruction_for_retrieval
            ),
            query_max_length=query_max_length,
            passage_max_length=passage_max_length,
            batch_size=batch_size,
        )
        self.defaults = {
            "return_dense": return_dense,
            "return_sparse": return_sparse,
            "return_colbert_vecs": return_colbert_vecs,
            "truncate_dim": truncate_dim,
        }

    def encode(self, sentences: str | Iterable[str], *args: Any, **kwargs: Any) -> Output:
        """`M3Embedder.encode`; what it returns by default is chosen in the constructor."""
        names = ("batch_size", "max_length", "return_dense", "return_sparse", "return_colbert_vecs")
        given = dict(zip(names, args, strict=False)) | kwargs
        given = {name: value for name, value in given.items() if value is not None}
        return super().encode(sentences, **(self.defaults | given))


def _instruction(form: str, instruction: str | None) -> str | None:
    """The text prepended to a query; `form` must end with the place of the query."""
    if instruction is None:
        return None
    form = form.replace("\\n", "\n")
    if not form.endswith("{}") or form.count("{}") != 2:
        raise ValueError(
            "query_instruction_format must contain {} twice, the second one, for the query, at its "
            f"end; got {form!r}"
        )
    return form.format(instruction, "")
