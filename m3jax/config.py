"""Every hyper-parameter: frozen, typed, checked once, named once.

`override(config, "encoder.layers=3")` returns a copy with one field changed; `to_json` and
`from_json` carry a config beside the weights it belongs to.
"""

import ast
import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of an XLM-RoBERTa encoder. Defaults: XLM-R-large with BGE-M3's 8,192 positions."""

    vocab_size: int = 250_002
    hidden_size: int = 1024  # d
    layers: int = 24
    heads: int = 16
    intermediate_size: int = 4096  # f
    max_positions: int = 8194  # rows of the position table; the first pad_id + 1 are unused
    eps: float = 1e-5  # of every LayerNorm
    pad_id: int = 1
    dropout: float = 0.1  # on embeddings and both outputs of a layer; fused attention has none

    def __post_init__(self):
        for name in ("vocab_size", "hidden_size", "layers", "heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden_size % self.heads:
            raise ValueError(
                f"encoder.hidden_size {self.hidden_size} must be a multiple of "
                f"encoder.heads {self.heads}"
            )
        if self.max_positions <= self.pad_id + 1:
            raise ValueError(f"encoder.max_positions {self.max_positions} leaves no position")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"encoder.dropout must lie in [0, 1), got {self.dropout}")

    @property
    def max_length(self) -> int:
        """The longest text in tokens: positions are counted from pad_id + 1."""
        return self.max_positions - self.pad_id - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class M3Config:
    """What a checkpoint is: the encoder, the three heads, and how they are read."""

    encoder: EncoderConfig = EncoderConfig()
    colbert_dim: int = 1024  # c; the paper's heads keep the hidden size
    pooling: Literal["cls", "mean"] = "cls"  # dense: [M3 sec. 3.2] uses [CLS]
    normalize: bool = True  # dense and multi-vector to length 1
    special_ids: tuple[int, ...] = (0, 1, 2, 3)  # <s> <pad> </s> <unk>: no lexical weight

    def __post_init__(self):
        if self.colbert_dim < 1:
            raise ValueError(f"colbert_dim must be at least 1, got {self.colbert_dim}")
        if self.pooling not in ("cls", "mean"):
            raise ValueError(f"pooling must be 'cls' or 'mean', got {self.pooling!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the numbers are computed; nothing here belongs to a checkpoint."""

    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    query_block: int = 128  # queries a block of `xla` attention in rows longer than 1,024 tokens
    remat: bool = False  # recompute each layer in the backward pass instead of storing it
    unroll: int = 1  # layers a step of the scan

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute.dtype must be float32 or bfloat16, got {self.dtype!r}")
        if self.attention not in ("auto", "xla", "cudnn"):
            raise ValueError(f"compute.attention must be auto, xla or cudnn: {self.attention!r}")
        if self.query_block < 1 or self.unroll < 1:
            raise ValueError("compute.query_block and compute.unroll must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadWeights:
    """One number for each representation."""

    dense: float
    sparse: float
    colbert: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The fine-tuning objective. Values: the ACL 2024 text (arXiv 2402.03216v4), sec. 3.3."""

    temperature: float = 0.02  # tau, divides every score
    heads: tuple[str, ...] = ("dense", "sparse", "colbert")  # those that train
    fusion: HeadWeights = HeadWeights(dense=1.0, sparse=0.3, colbert=1.0)  # w1 w2 w3; v1: all 1
    weights: HeadWeights = HeadWeights(dense=1.0, sparse=0.1, colbert=1.0)  # lambda 1 2 3; v1: 1
    self_distill: bool = True
    self_distill_start: int = 6000  # optimiser steps on L alone before it (about 6,000 in sec. 4)
    teacher_loss: Literal["kl_div", "m3_kd_loss"] = "kl_div"  # where a batch has teacher scores
    mask_duplicates: bool = True  # a text equal to the positive is no negative
    symmetric: bool = False  # also passage to query, for translation pairs
    padding_competes: bool = False  # the reference code's late interaction
    fix_encoder: bool = False  # the two linear heads train, the encoder does not
    # Beyond the paper, all off:
    normalize_teacher: bool = False  # heads enter the teacher standardised per query
    flops: float = 0.0  # weight of the FLOPS regulariser of sparse weights
    l1: float = 0.0  # weight of their mean sum a text
    matryoshka: tuple[int, ...] = ()  # dense loss averaged over these widths and the full one

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"loss.temperature must be positive, got {self.temperature}")
        unknown = sorted(set(self.heads) - {"dense", "sparse", "colbert"})
        if unknown or not self.heads:
            raise ValueError(f"loss.heads must be some of dense, sparse, colbert: {self.heads}")
        if self.fix_encoder and self.heads == ("dense",):
            raise ValueError(
                "loss.fix_encoder leaves nothing to train: the dense head has no weights"
            )
        if self.matryoshka and ("dense" not in self.heads or min(self.matryoshka) < 1):
            raise ValueError("loss.matryoshka needs the dense head and widths of at least 1")
        for name in ("flops", "l1", "self_distill_start"):
            if getattr(self, name) < 0:
                raise ValueError(f"loss.{name} must be 0 or more, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a learning rate for each part of the model. Values: [M3 app. B.1] and examples."""

    learning_rate: float = 1e-5  # of the encoder in fine-tuning
    sparse_rate: float = 1.0  # times learning_rate, for each head's linear map
    colbert_rate: float = 1.0
    weight_decay: float = 0.01  # not on biases and LayerNorms
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        for name in ("learning_rate", "sparse_rate", "colbert_rate", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"optimizer.{name} must be 0 or more, got {getattr(self, name)}")


def override(config: Config, assignment: str) -> Config:
    """Returns a copy of `config` with one dotted field changed: `"encoder.layers=3"`.

    Raises KeyError for an unknown field, ValueError for a value of another type or out of range.
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise ValueError(f"expected FIELD=VALUE, got {assignment!r}")
    return _replace(config, path.strip(), text, path.strip())


def _replace(config: Any, path: str, text: str, whole_path: str) -> Any:
    head, _, rest = path.partition(".")
    known = sorted(f.name for f in dataclasses.fields(config))
    if head not in known:
        raise KeyError(f"{whole_path}: {type(config).__name__} has no field {head!r}, but {known}")
    if rest:
        new = _replace(getattr(config, head), rest, text, whole_path)
    else:
        new = _coerce(_literal(text), typing.get_type_hints(type(config))[head], whole_path)
    return dataclasses.replace(config, **{head: new})


def to_json(config: Any) -> dict[str, Any]:
    """The config as plain nested JSON values."""
    return dataclasses.asdict(config)


def from_json(kind: type[Config], values: dict[str, Any]) -> Config:
    """The inverse of `to_json`; an unknown field or a wrong type raises, a missing one defaults."""
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise KeyError(f"{kind.__name__} has no field {unknown[0]!r}; it has {sorted(hints)}")
    return kind(**{name: _coerce(value, hints[name], name) for name, value in values.items()})


def _literal(text: str) -> Any:
    """A Python literal, or the text itself: `cls` needs no quotes on a command line."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def _coerce(value: Any, hint: Any, path: str) -> Any:
    """`value` as the annotated type: lists become tuples, whole numbers become floats."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_json(typing.cast(type, hint), value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and value in args:
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_coerce(item, args[0], path) for item in value)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _coerce(value, next(a for a in args if a is not type(None)), path)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise ValueError(f"{path}: {value!r} is not of type {getattr(hint, '__name__', hint)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetroMAEConfig:
    """The pre-training objective. Values: [M3 app. B.1], RetroMAE's code (arXiv 2205.12035)."""

    encoder_mask: float = 0.3  # of a text's tokens that the encoder has to guess
    decoder_mask: float = 0.5  # of the other tokens that a row of the decoder does not see
    mask_share: float = 0.8  # of the encoder's masked tokens that become <mask>
    random_share: float = 0.1  # that become any token; what is left stays as it is
    mask_id: int = 250_001  # XLM-R's <mask>
    logits_chunk: int = 512  # tokens of the batch whose logits over the vocabulary stand together

    def __post_init__(self):
        for name in ("encoder_mask", "decoder_mask"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"retromae.{name} must lie in (0, 1), got {getattr(self, name)}")
        shares = self.mask_share, self.random_share
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"retromae.mask_share and random_share must be parts of 1: {shares}")
        if self.mask_id < 0 or self.logits_chunk < 1:
            raise ValueError("retromae.mask_id must be 0 or more, logits_chunk at least 1")
