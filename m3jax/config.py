"""Every hyper-parameter: frozen, typed, checked once, named once.

`override(config, "encoder.layers=3", ...)` returns a copy with some fields changed; `to_json` and
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


# Attention back ends; `auto` takes the fastest that the devices and the shapes allow. The functions
# are in model/attention.py.
Attention = Literal["auto", "xla", "cudnn"]
ATTENTION: tuple[str, ...] = typing.get_args(Attention)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the numbers are computed; nothing here belongs to a checkpoint."""

    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32
    attention: Attention = "auto"
    query_block: int = 128  # queries a block of `xla` attention in rows longer than 1,024 tokens
    remat: bool = False  # recompute each layer in the backward pass instead of storing it
    unroll: int = 1  # layers a step of the scan
    # The lowest layers that let no gradient through, and so cost none. Training sets it where they
    # and all below them are frozen.
    frozen_layers: int = 0

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute.dtype must be float32 or bfloat16, got {self.dtype!r}")
        if self.attention not in ATTENTION:
            raise ValueError(f"compute.attention must be auto, xla or cudnn: {self.attention!r}")
        if self.query_block < 1 or self.unroll < 1:
            raise ValueError("compute.query_block and compute.unroll must be at least 1")
        if self.frozen_layers < 0:
            raise ValueError(f"compute.frozen_layers must be 0 or more: {self.frozen_layers}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadWeights:
    """One number for each representation."""

    dense: float
    sparse: float
    colbert: float


HEADS = ("dense", "sparse", "colbert")  # fields of HeadWeights, Encoding and Scores, in this order
# Weights of the scores in the hybrid and in the teacher: w1, w2, w3 of s_rank [M3 sec. 3.2, 3.3].
PAPER_FUSION = HeadWeights(dense=1.0, sparse=0.3, colbert=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The fine-tuning objective. Values: the ACL 2024 text (arXiv 2402.03216v4), sec. 3.3."""

    temperature: float = 0.02  # tau, divides every score
    heads: tuple[str, ...] = HEADS  # those that train
    fusion: HeadWeights = PAPER_FUSION  # w1 w2 w3; v1: all 1
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
        unknown = sorted(set(self.heads) - set(HEADS))
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
    layer_decay: float = 1.0  # times the rate of the layer above, down to the embeddings
    weight_decay: float = 0.01  # not on biases and LayerNorms
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    moments: Literal["float32", "bfloat16"] = "float32"  # of the first moment
    clip_norm: float = 1.0  # of all trained gradients together; 0: none
    schedule: Literal["linear", "cosine", "constant"] = "linear"  # after the warm-up
    warmup_ratio: float = 0.1  # of all steps
    warmup_steps: int = 0  # where not 0, instead of the ratio
    end_rate: float = 0.0  # of the schedule, times the highest rate
    ema: float = 0.0  # decay of an average of the parameters, kept beside them; 0: none
    freeze_embeddings: bool = False
    freeze_positions: bool = False  # the position table alone
    freeze_layers: int = 0  # as many of the lowest

    def __post_init__(self):
        for name in (
            "learning_rate", "sparse_rate", "colbert_rate", "weight_decay", "clip_norm",
            "warmup_steps", "end_rate", "freeze_layers",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ValueError(f"optimizer.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("warmup_ratio", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optimizer.layer_decay must lie in (0, 1], got {self.layer_decay}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How a step fits the memory. Nothing here changes a result but for dropout's masks."""

    # none: all rows at once. remat: some rows after others, recomputed in the backward pass
    # [M3 sec. 3.4]. cached: representations first, their gradients, then rows again with those:
    # memory does not grow with the batch but for the representations.
    split: Literal["none", "remat", "cached"] = "none"
    sub_tokens: int = 16_384  # tokens, padding included, that a device encodes at once
    accumulate: int = 1  # batches a step, each with its own negatives

    def __post_init__(self):
        if self.split not in ("none", "remat", "cached"):
            raise ValueError(f"step.split must be none, remat or cached, got {self.split!r}")
        for name in ("sub_tokens", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"step.{name} must be at least 1, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which examples make up a batch, and how they are laid out. [M3 sec. 3.4, Table 9]"""

    group_size: int = 8  # g: passages a query, the positive first; 1 takes no hard negatives
    query_length: int = 512  # tokens kept of a query, of a passage
    passage_length: int = 8192
    edges: tuple[int, ...] = (500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192)  # of the groups
    batch_sizes: tuple[int, ...] = (1152, 768, 480, 432, 336, 336, 288, 240, 192)  # fine-tuning
    layout: Literal["bucket", "group", "packed"] = "bucket"  # rows as wide as the batch's bucket,
    # as its group's edge, or several texts a row
    one_source: bool = True  # a batch's examples come from one source
    source_power: float = 1.0  # a source is drawn as often as its size to this power
    drop_below: int = 2  # a last batch of fewer examples is left out of the epoch
    shuffle_ratio: float = 0.0  # of long positives, cut in thirds and rejoined in another order
    no_in_batch: tuple[str, ...] = ()  # sources whose queries see their own passages only
    row_width: int = 512  # packed: tokens of a row, or the group's edge where that is more
    seed: int = 0

    def __post_init__(self):
        for name in ("edges", "batch_sizes"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"data.{name} must be numbers of at least 1")
        if len(self.edges) != len(self.batch_sizes):
            raise ValueError(
                f"data.edges and data.batch_sizes must be as many: {len(self.edges)} and "
                f"{len(self.batch_sizes)}"
            )
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"data.edges must rise: {self.edges}")
        for name in ("group_size", "drop_below", "row_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("query_length", "passage_length"):
            if getattr(self, name) < 2:
                raise ValueError(f"data.{name} must leave room for <s> and </s>")
        for name in ("source_power", "shuffle_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetroMAEConfig:
    """The pre-training objective. Values: [M3 app. B.1], RetroMAE's code (arXiv 2205.12035)."""

    encoder_mask: float = 0.3  # of a text's tokens that the encoder has to guess
    decoder_mask: float = 0.5  # of the other tokens that a row of the decoder does not see
    mask_share: float = 0.8  # of the encoder's masked tokens that become <mask>
    random_share: float = 0.1  # that become any token; what is left stays as it is
    mask_id: int | None = None  # None: the tokenizer's <mask>, 250001 in XLM-R's
    logits_chunk: int = 512  # tokens of the batch whose logits over the vocabulary stand together

    def __post_init__(self):
        for name in ("encoder_mask", "decoder_mask"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"retromae.{name} must lie in (0, 1), got {getattr(self, name)}")
        shares = self.mask_share, self.random_share
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"retromae.mask_share and random_share must be parts of 1: {shares}")
        if (self.mask_id or 0) < 0 or self.logits_chunk < 1:
            raise ValueError("retromae.mask_id must be 0 or more, logits_chunk at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How devices are laid out; `data` takes what the others leave."""

    data: int | None = None
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run; `m3jax train --config FILE.py` reads one from the file's `config()`."""

    model: str = ""  # a directory or a name to start from
    train_data: tuple[str, ...] = ()  # a directory built by `m3jax data build`, or files
    objective: Literal["m3", "retromae"] = "m3"
    pooling: Literal["cls", "mean"] | None = None  # None: what the model says
    steps: int = 0  # 0: as many as `epochs` have
    epochs: int = 1
    seed: int = 0  # of new parameters and dropout; data.seed orders the examples
    save_every: int = 500  # steps between checkpoints
    keep: int = 2  # the newest checkpoints kept
    log_every: int = 10
    evaluate_every: int = 0  # 0: never
    evaluate_task: str = ""  # a directory in BEIR's layout, or a folder of such
    evaluate_queries: int = 200  # of each query set; 0: all
    workers: int = 0  # processes that read and tokenise; 0: threads
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    retromae: RetroMAEConfig = RetroMAEConfig()
    step: StepConfig = StepConfig()
    compute: ComputeConfig = ComputeConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        for name in ("steps", "save_every", "evaluate_every", "evaluate_queries", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("epochs", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.evaluate_every and not self.evaluate_task:
            raise ValueError("evaluate_every needs evaluate_task, a directory in BEIR's layout")


PRETRAINING_BATCHES = (67200, 54720, 37248, 27648, 21504, 17280, 15072, 12288, 9984)  # Table 9


def override(config: Config, *assignments: str) -> Config:
    """Returns a copy of `config` with dotted fields changed: `"encoder.layers=3"`.

    Fields that belong together are checked once all are changed; of one field the last
    assignment counts. Raises KeyError for an unknown field, ValueError for a value of another type
    or out of range.
    """
    values: dict[str, str] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected FIELD=VALUE, got {assignment!r}")
        values[path.strip()] = text
    return _replace(config, values, "")


def _replace(config: Any, values: dict[str, str], above: str) -> Any:
    """`values` are texts under paths below `config`, whose own path is `above`."""
    known = sorted(f.name for f in dataclasses.fields(config))
    hints = typing.get_type_hints(type(config))
    inside: dict[str, dict[str, str]] = {}
    changes: dict[str, Any] = {}
    for path, text in values.items():
        head, _, rest = path.partition(".")
        if head not in known or (rest and not dataclasses.is_dataclass(getattr(config, head))):
            kind = type(config).__name__
            raise KeyError(f"{above}{path}: {kind} has no field {path!r}, but {known}")
        if rest:
            inside.setdefault(head, {})[rest] = text
        else:
            changes[head] = _coerce(_literal(text), hints[head], f"{above}{path}")
    for head, below in inside.items():
        changes[head] = _replace(getattr(config, head), below, f"{above}{head}.")
    return dataclasses.replace(config, **changes)


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
