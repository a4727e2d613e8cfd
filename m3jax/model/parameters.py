"""The table of a model's parameters: path, axes, sharding, and name in PyTorch, one row each.

Axes are letters, separated by spaces, as in `m3jax.types`:

    l  layers    d  hidden    f  feed-forward    v  vocabulary    c  ColBERT width
    r  rows of the position table    a number is a fixed size
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
from jax.sharding import PartitionSpec as P

from m3jax.config import EncoderConfig, M3Config

Axes = tuple[str, ...] | str | None  # mesh axes that split one dimension
Part = Literal["embeddings", "layers", "heads", "pretraining"]
BY_OUTPUT: tuple[Axes, Axes] = ("fsdp", "tensor")  # of [in, out]: `tensor` splits the outputs
BY_INPUT: tuple[Axes, Axes] = ("tensor", "fsdp")  # `tensor` splits the inputs


class Parameter(NamedTuple):
    """One row of the table."""

    path: str  # in the tree of parameters, "encoder/layers/query/kernel"
    axes: str
    sharding: P  # the mesh axes that split each dimension
    part: Part
    torch: str | None = None  # name in the PyTorch checkpoint, `{}` for the number of the layer
    transpose: bool = False  # PyTorch stores a linear map as [out, in], Flax as [in, out]

    @property
    def stacked(self) -> bool:
        """Whether the first axis is the layer."""
        return self.axes.split()[0] == "l"

    @property
    def is_positions(self) -> bool:
        """Whether it is the position table."""
        return self.axes.split()[0] == "r"

    def shape(self, config: M3Config) -> tuple[int, ...]:
        """The shape of the parameter in a model of `config`."""
        encoder = config.encoder
        sizes = {
            "l": encoder.layers,
            "d": encoder.hidden_size,
            "f": encoder.intermediate_size,
            "v": encoder.vocab_size,
            "r": encoder.max_positions,
            "c": config.colbert_dim,
        }
        return tuple(int(a) if a.isdigit() else sizes[a] for a in self.axes.split())


@dataclasses.dataclass(frozen=True)
class Family:
    """Encoders of one architecture: the module, its parameters, and its Hugging Face files."""

    model_type: str  # in config.json
    name: str
    encoder: Callable[..., nn.Module]  # of (EncoderConfig, ComputeConfig, name=...)
    parameters: tuple[Parameter, ...]
    pretraining: tuple[Parameter, ...]  # what RetroMAE adds
    read_settings: Callable[[Mapping[str, Any]], EncoderConfig]  # config.json to our config
    settings: Callable[[M3Config, str], dict[str, Any]]  # the inverse, for weights of a dtype
    torch_class: str  # the encoder in transformers
    torch_prefix: str  # of the encoder's tensors in checkpoints of models with other heads
    torch_unused: tuple[str, ...]  # prefixes of tensors that the M3 model does not have
    tokenizer_class: str

    def table(self, axis: Literal["v", "r"]) -> str:
        """The path of the embedding table whose rows are the vocabulary or the positions."""
        (path,) = (p.path for p in self.parameters if p.axes.split()[0] == axis)
        return path


def linear(
    path: str, axes: str, split: tuple[Axes, Axes], part: Part, torch: str | None = None
) -> tuple[Parameter, Parameter]:
    """Kernel and bias of a linear map; `axes` end with [in, out], `split` is theirs.

    Of a bias only `tensor` splits the outputs: it is too small for `fsdp`.
    """
    *leading, _, outputs = axes.split()
    stack = (None,) * len(leading)
    kernel, bias = (None, None) if torch is None else (f"{torch}.weight", f"{torch}.bias")
    bias_split = split[1] if split[1] == "tensor" else None
    return (
        Parameter(f"{path}/kernel", axes, P(*stack, *split), part, kernel, torch is not None),
        Parameter(f"{path}/bias", " ".join([*leading, outputs]), P(*stack, bias_split), part, bias),
    )


def norm(path: str, axes: str, part: Part, torch: str | None = None) -> tuple[Parameter, Parameter]:
    """Scale and bias of a LayerNorm: replicated."""
    scale, bias = (None, None) if torch is None else (f"{torch}.weight", f"{torch}.bias")
    replicated = P(*(None,) * len(axes.split()))
    return (
        Parameter(f"{path}/scale", axes, replicated, part, scale),
        Parameter(f"{path}/bias", axes, replicated, part, bias),
    )
