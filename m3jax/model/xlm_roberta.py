"""XLM-RoBERTa (Conneau et al. 2020, arXiv 1911.02116): Linen modules and the table of parameters.

Equal to the model in transformers: post-LayerNorm blocks, erf GELU, learned positions counted from
pad_id + 1, one token type. The layers are stacked along a leading axis and scanned, so that one
layer is traced and compiled.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from m3jax.config import ComputeConfig, EncoderConfig, M3Config
from m3jax.model.attention import attend
from m3jax.model.parameters import BY_INPUT, BY_OUTPUT, Family, Parameter, Part, linear, norm
from m3jax.types import TextBatch


class Encoder(nn.Module):
    """Tokens to hidden states, in the compute dtype."""

    config: EncoderConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(self, batch: TextBatch, deterministic: bool = True) -> Float[Array, "n s d"]:
        hidden = Embeddings(self.config, self.compute, name="embeddings")(
            jnp.asarray(batch.token_ids), jnp.asarray(batch.positions), deterministic
        )
        layers, frozen = self.config.layers, min(self.compute.frozen_layers, self.config.layers)
        arguments = (jnp.asarray(batch.segment_ids), jnp.asarray(batch.lengths), deterministic)
        if not frozen or self.is_initializing():
            stack = _stack(self.compute, layers)(self.config, self.compute, name="layers")
            return stack(hidden, *arguments)[0]
        # Two scans over slices of the stack: the first has no backward pass.
        params = self.variables["params"]["layers"]
        slices = ((0, frozen), (frozen, layers)) if frozen < layers else ((0, frozen),)
        for first, last in slices:
            sliced = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], params)
            rngs = None if deterministic else {"dropout": self.make_rng("dropout")}
            stack = _stack(self.compute, last - first)(self.config, self.compute, parent=None)
            result = stack.apply({"params": sliced}, hidden, *arguments, rngs=rngs)
            hidden = cast(tuple[jax.Array, None], result)[0]
            hidden = jax.lax.stop_gradient(hidden) if not first else hidden
        return hidden


def _stack(compute: ComputeConfig, layers: int) -> Callable[..., Any]:
    """`Layer` scanned `layers` times, its parameters stacked along the first axis."""
    # prevent_cse is needed outside of scans only, and has a cost inside.
    layer = nn.remat(Layer, prevent_cse=False, static_argnums=(4,)) if compute.remat else Layer
    return nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=layers,
        unroll=min(compute.unroll, layers),
    )


class Embeddings(nn.Module):
    """LayerNorm(word + token type + position), summed in the order of the PyTorch model."""

    config: EncoderConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "n s"], positions: Int[Array, "n s"], deterministic: bool
    ) -> Float[Array, "n s d"]:
        config = self.config
        init = nn.initializers.normal(0.02)
        word = self.param("word", init, (config.vocab_size, config.hidden_size))
        position = self.param("position", init, (config.max_positions, config.hidden_size))
        token_type = self.param("token_type", init, (1, config.hidden_size))
        words = table_rows(word, token_ids, config.pad_id)
        summed = (words + token_type[0][None, None]) + table_rows(
            position, positions, config.pad_id
        )
        hidden = layer_norm(config, "norm")(summed)
        hidden = nn.Dropout(config.dropout)(hidden, deterministic=deterministic)
        return hidden.astype(self.compute.dtype)


class Layer(nn.Module):
    """One post-LayerNorm block: attention and feed-forward, each with residual and LayerNorm."""

    config: EncoderConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "n s d"],
        segment_ids: Int[Array, "n s"],
        lengths: Int[Array, "n m"],
        deterministic: bool,
    ) -> tuple[Float[Array, "n s d"], None]:
        def mix(query, key, value):
            backend, query_block = self.compute.attention, self.compute.query_block
            return attend(query, key, value, segment_ids, lengths, backend, query_block)

        return block(self.config, hidden, hidden, mix, deterministic), None


def block(
    config: EncoderConfig,
    hidden: Float[Array, "n s d"],
    context: Float[Array, "n s d"],
    mix: Callable[..., jax.Array],
    deterministic: bool,
) -> Float[Array, "n s d"]:
    """The computation of a block; its parameters belong to the calling module.

    Queries and residuals come from `hidden`, keys and values from `context` (in the encoder the
    same array). `mix` computes attention from [n, s, h, k] queries, keys and values.
    """
    dropout = nn.Dropout(config.dropout, deterministic=deterministic)
    dense = functools.partial(nn.Dense, dtype=hidden.dtype)

    def add_and_norm(name, hidden, update):
        """Residual and LayerNorm in float32, for any compute dtype."""
        total = hidden.astype(jnp.float32) + update.astype(jnp.float32)
        return layer_norm(config, name)(total).astype(hidden.dtype)

    shape = (*hidden.shape[:2], config.heads, config.hidden_size // config.heads)
    query, key, value = (
        dense(config.hidden_size, name=name)(source).reshape(shape)
        for name, source in (("query", hidden), ("key", context), ("value", context))
    )
    mixed = mix(query, key, value).reshape(hidden.shape)
    mixed = dropout(dense(config.hidden_size, name="output")(mixed))
    hidden = add_and_norm("output_norm", hidden, mixed)

    inner = jax.nn.gelu(dense(config.intermediate_size, name="up")(hidden), approximate=False)
    outer = dropout(dense(config.hidden_size, name="down")(inner))
    return add_and_norm("down_norm", hidden, outer)


def table_rows(
    table: Float[Array, "v d"], indices: Int[Array, "n s"], pad_id: int
) -> Float[Array, "n s d"]:
    """Rows of a table. Row `pad_id` gets no gradient, as with PyTorch's padding_idx.

    This matters for texts that contain the token `<pad>`.
    """
    rows = table[indices]
    return jnp.where((indices == pad_id)[..., None], jax.lax.stop_gradient(rows), rows)


def layer_norm(config: EncoderConfig, name: str) -> nn.LayerNorm:
    """(x - mean) / sqrt(var + eps) in float32, with a scale and a bias, as in PyTorch.

    The variance is computed in two passes: E[x^2] - E[x]^2 suffers from cancellation.
    """
    return nn.LayerNorm(epsilon=config.eps, dtype=jnp.float32, use_fast_variance=False, name=name)


# The vocabulary size 250,002 = 2 x 3 x 41,667 is not a multiple of the usual numbers of devices, so
# the embedding tables are split along their width.
_BY_WIDTH = P(None, ("fsdp", "tensor"))
_EMBEDDINGS = (
    Parameter(
        "encoder/embeddings/word",
        "v d",
        _BY_WIDTH,
        "embeddings",
        "embeddings.word_embeddings.weight",
    ),
    Parameter(
        "encoder/embeddings/position",
        "r d",
        _BY_WIDTH,
        "embeddings",
        "embeddings.position_embeddings.weight",
    ),
    Parameter(
        "encoder/embeddings/token_type",
        "1 d",
        P(None, None),
        "embeddings",
        "embeddings.token_type_embeddings.weight",
    ),
    *norm("encoder/embeddings/norm", "d", "embeddings", "embeddings.LayerNorm"),
)


def _block_parameters(path: str, stack: str, part: Part, torch: str) -> tuple[Parameter, ...]:
    """The parameters of `block`; `stack` is the leading axis of a stack of them, or empty."""
    rows = (
        linear(f"{path}/query", f"{stack} d d", BY_OUTPUT, part, f"{torch}.attention.self.query"),
        linear(f"{path}/key", f"{stack} d d", BY_OUTPUT, part, f"{torch}.attention.self.key"),
        linear(f"{path}/value", f"{stack} d d", BY_OUTPUT, part, f"{torch}.attention.self.value"),
        linear(f"{path}/output", f"{stack} d d", BY_INPUT, part, f"{torch}.attention.output.dense"),
        norm(f"{path}/output_norm", f"{stack} d", part, f"{torch}.attention.output.LayerNorm"),
        linear(f"{path}/up", f"{stack} d f", BY_OUTPUT, part, f"{torch}.intermediate.dense"),
        linear(f"{path}/down", f"{stack} f d", BY_INPUT, part, f"{torch}.output.dense"),
        norm(f"{path}/down_norm", f"{stack} d", part, f"{torch}.output.LayerNorm"),
    )
    return tuple(row for pair in rows for row in pair)


# RetroMAE: the decoder is one more block, the output table is the word embedding.
_PRETRAINING = (
    *(
        row._replace(torch=None)
        for row in _block_parameters("decoder", "", "pretraining", "decoder")
    ),
    *linear("mlm/dense", "d d", BY_OUTPUT, "pretraining"),
    *norm("mlm/norm", "d", "pretraining"),
    Parameter("mlm/bias", "v", P(None), "pretraining"),
)

# Settings of config.json that this implementation requires; absent ones have these values.
_REQUIRED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "type_vocab_size": 1,
}
_SHAPE = {  # field of EncoderConfig: key of config.json
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}


def _read_settings(values: Mapping[str, Any]) -> EncoderConfig:
    """The config of an encoder from its config.json; ValueError names an unsupported setting."""
    for key, value in _REQUIRED.items():
        if values.get(key, value) != value:
            raise ValueError(f"{key} is {values[key]!r}, m3jax needs {value!r}")
    for key in _SHAPE.values():
        if key not in values:
            raise ValueError(f"it lacks {key}")
    return EncoderConfig(
        **{field: values[key] for field, key in _SHAPE.items()},
        eps=float(values.get("layer_norm_eps", 1e-5)),
        pad_id=values.get("pad_token_id", 1),
        dropout=float(values.get("hidden_dropout_prob", 0.1)),
    )


def _settings(config: M3Config, dtype: str) -> dict[str, Any]:
    """The config.json of an encoder whose weights are stored in `dtype`."""
    encoder = config.encoder
    cls_id, pad_id, eos_id, _ = config.special_ids
    return {
        "architectures": [XLM_ROBERTA.torch_class],
        "model_type": XLM_ROBERTA.model_type,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.intermediate_size,
        "hidden_act": "gelu",
        "layer_norm_eps": encoder.eps,
        "vocab_size": encoder.vocab_size,
        "type_vocab_size": 1,
        "max_position_embeddings": encoder.max_positions,
        "pad_token_id": pad_id,
        "bos_token_id": cls_id,
        "eos_token_id": eos_id,
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.dropout,
        "position_embedding_type": "absolute",
        "torch_dtype": dtype,
    }


XLM_ROBERTA = Family(
    model_type=EncoderConfig.model_type,
    name="XLM-RoBERTa",
    encoder=Encoder,
    parameters=(
        *_EMBEDDINGS,
        *_block_parameters("encoder/layers", "l", "layers", "encoder.layer.{}"),
    ),
    pretraining=_PRETRAINING,
    read_settings=_read_settings,
    settings=_settings,
    torch_class="XLMRobertaModel",
    torch_prefix="roberta.",  # of XLMRobertaForMaskedLM and similar classes
    # The pooler, the heads of other tasks, and a buffer of old releases of transformers.
    torch_unused=("pooler.", "lm_head.", "embeddings.position_ids", "classifier.", "qa_outputs."),
    tokenizer_class="XLMRobertaTokenizer",
)
