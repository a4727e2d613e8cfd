"""All hyper-parameters, as frozen dataclasses that validate their fields.

`io.fields` converts a config to JSON and back and changes fields by name.
"""

import dataclasses
import typing
import warnings
from typing import Any, ClassVar, Literal

# Former names of a class's fields: {old field: (field, {old value: value})}. `io.fields` and
# resumed runs still accept them.
Renamed = dict[str, tuple[str, dict[Any, Any]]]


def _check_choices(config: Any, prefix: str = "") -> None:
    """Raises ValueError for a Literal field that has none of the values its annotation lists."""
    for field in dataclasses.fields(config):
        hints = (field.type, *typing.get_args(field.type))
        choices = [c for h in hints if typing.get_origin(h) is Literal for c in typing.get_args(h)]
        value = getattr(config, field.name)
        if choices and value is not None and value not in choices:
            allowed = ", ".join(choices)
            raise ValueError(f"{prefix}{field.name} must be one of {allowed}; got {value!r}")


def _check_minimum(config: Any, prefix: str, minimum: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < minimum:
            bound = "0 or more" if minimum == 0 else f"at least {minimum}"
            raise ValueError(f"{prefix}{name} must be {bound}, got {getattr(config, name)}")


def _check_interval(config: Any, prefix: str, interval: str, *names: str) -> None:
    """`interval` is one of [0, 1], [0, 1), (0, 1], (0, 1)."""
    for name in names:
        value = getattr(config, name)
        above = value > 0 or (value == 0 and interval[0] == "[")
        below = value < 1 or (value == 1 and interval[-1] == "]")
        if not (above and below):
            raise ValueError(f"{prefix}{name} must be in {interval}, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of an XLM-RoBERTa encoder. Defaults: XLM-R-large with BGE-M3's 8,192 positions."""

    model_type = "xlm-roberta"  # the family in `model/families.py`; not a field

    vocab_size: int = 250_002
    hidden_size: int = 1024  # d
    layers: int = 24
    heads: int = 16
    intermediate_size: int = 4096  # f
    max_positions: int = 8194  # rows of the position table; the first pad_id + 1 are unused
    eps: float = 1e-5  # epsilon of every LayerNorm
    pad_id: int = 1
    dropout: float = 0.1  # after the embeddings and both sublayers; attention weights have none

    def __post_init__(self):
        sizes = ("vocab_size", "hidden_size", "layers", "heads", "intermediate_size")
        _check_minimum(self, "encoder.", 1, *sizes)
        if self.hidden_size % self.heads:
            raise ValueError(
                f"encoder.hidden_size {self.hidden_size} must be a multiple of "
                f"encoder.heads {self.heads}"
            )
        if self.max_positions <= self.pad_id + 1:
            raise ValueError(
                f"encoder.max_positions {self.max_positions} must exceed encoder.pad_id + 1 = "
                f"{self.pad_id + 1}: texts have no positions otherwise"
            )
        _check_interval(self, "encoder.", "[0, 1)", "dropout")

    @property
    def max_length(self) -> int:
        """Tokens of the longest text. Positions are counted from pad_id + 1."""
        return self.max_positions - self.pad_id - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class M3Config:
    """The model of a checkpoint: the encoder, the three heads, and how outputs are computed."""

    encoder: EncoderConfig = EncoderConfig()
    colbert_dim: int = 1024  # c; the hidden size in the paper
    pooling: Literal["cls", "mean"] = "cls"  # dense: [M3 sec. 3.2] uses [CLS]
    normalize: bool = True  # dense and ColBERT vectors have unit length
    special_ids: tuple[int, ...] = (0, 1, 2, 3)  # <s> <pad> </s> <unk>: no lexical weight

    def __post_init__(self):
        _check_choices(self)
        _check_minimum(self, "", 1, "colbert_dim")


# Attention back ends; `auto` takes the fastest that the devices and the shapes allow. The functions
# are in model/attention.py.
Attention = Literal["auto", "xla", "cudnn"]
ATTENTION: tuple[str, ...] = typing.get_args(Attention)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How outputs are computed. Not part of a checkpoint."""

    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters are float32
    attention: Attention = "auto"
    query_block: int = 128  # queries per block of `xla` attention in rows of over 1,024 tokens
    remat: bool = False  # recompute each layer in the backward pass instead of storing it
    unroll: int = 1  # layers per step of the scan
    # Lowest layers without a backward pass. Training sets it if these layers and everything below
    # them are frozen.
    frozen_layers: int = 0

    def __post_init__(self):
        _check_choices(self, "compute.")
        _check_minimum(self, "compute.", 1, "query_block", "unroll")
        _check_minimum(self, "compute.", 0, "frozen_layers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadWeights:
    """One weight for each head."""

    dense: float
    sparse: float
    colbert: float


HEADS = ("dense", "sparse", "colbert")  # fields of HeadWeights, Encoding and Scores, in this order
FORMER_NAMES = {"multivector": "colbert"}  # of heads and methods, in files and commands of 0.1


def current_name(name: str) -> str:
    """The name of a head or method; a former one is accepted with a FutureWarning."""
    if name in FORMER_NAMES:
        text = f"the name {name!r} is deprecated, use {FORMER_NAMES[name]!r}"
        warnings.warn(text, FutureWarning, stacklevel=3)
    return FORMER_NAMES.get(name, name)


# Weights w1, w2, w3 of the fused score s_rank [M3 sec. 3.2], also the self-distillation teacher.
PAPER_FUSION = HeadWeights(dense=1.0, sparse=0.3, colbert=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The fine-tuning objective. Values: the ACL 2024 text (arXiv 2402.03216v4), sec. 3.3."""

    temperature: float = 0.02  # tau; divides every score
    heads: tuple[str, ...] = HEADS  # heads to train
    fusion: HeadWeights = PAPER_FUSION  # w1 w2 w3; v1: all 1
    weights: HeadWeights = HeadWeights(dense=1.0, sparse=0.1, colbert=1.0)  # lambda 1 2 3; v1: 1
    self_distill: bool = True
    self_distill_start: int = 6000  # first step with self-distillation (about 6,000 in sec. 4)
    teacher_loss: Literal["kl_div", "m3_kd_loss"] = "kl_div"  # for batches with teacher scores
    mask_duplicates: bool = True  # a passage equal to the positive is not a negative
    symmetric: bool = False  # add the passage-to-query loss, for translation pairs
    padding_competes: bool = False  # padding takes part in MaxSim, as in the reference code
    fix_encoder: bool = False  # train the two linear heads only
    # Not in the paper, off by default:
    normalize_teacher: bool = False  # standardize each head per query before fusing the teacher
    flops: float = 0.0  # weight of the FLOPS regularizer on sparse weights
    l1: float = 0.0  # weight of the L1 regularizer on sparse weights (mean sum per text)
    matryoshka: tuple[int, ...] = ()  # average the dense loss over these widths and the full one

    def __post_init__(self):
        _check_choices(self, "loss.")
        _check_minimum(self, "loss.", 0, "flops", "l1", "self_distill_start")
        if not self.temperature > 0:
            raise ValueError(f"loss.temperature must be positive, got {self.temperature}")
        unknown = sorted(set(self.heads) - set(HEADS))
        if unknown or not self.heads:
            raise ValueError(f"loss.heads must be chosen from {HEADS}, got {self.heads}")
        if self.fix_encoder and self.heads == ("dense",):
            raise ValueError(
                "loss.fix_encoder with loss.heads=('dense',) leaves nothing to train: the dense "
                "head has no parameters"
            )
        if self.matryoshka and ("dense" not in self.heads or min(self.matryoshka) < 1):
            raise ValueError("loss.matryoshka requires the dense head and widths of at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with learning rates per part of the model. Values: [M3 app. B.1], reference code."""

    learning_rate: float = 1e-5  # peak rate of the encoder; default for fine-tuning
    sparse_rate: float = 1.0  # factor on learning_rate for the head's linear layer
    colbert_rate: float = 1.0
    layer_decay: float = 1.0  # factor on the rate from each layer to the one below it
    weight_decay: float = 0.01  # not applied to biases and LayerNorms
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    moments: Literal["float32", "bfloat16"] = "float32"  # dtype of the first moment
    clip_norm: float = 1.0  # maximum global norm of the gradients; 0 disables clipping
    schedule: Literal["linear", "cosine", "constant"] = "linear"  # after warm-up
    warmup_ratio: float = 0.1  # fraction of all steps
    warmup_steps: int = 0  # overrides warmup_ratio unless 0
    end_rate: float = 0.0  # final rate as a fraction of the peak rate
    ema: float = 0.0  # decay of the exponential moving average of the parameters; 0 disables it
    freeze_embeddings: bool = False
    freeze_positions: bool = False  # the position table only
    freeze_layers: int = 0  # number of lowest layers to freeze

    def __post_init__(self):
        rates = ("learning_rate", "sparse_rate", "colbert_rate", "weight_decay", "end_rate")
        _check_choices(self, "optimizer.")
        _check_minimum(self, "optimizer.", 0, *rates, "clip_norm", "warmup_steps", "freeze_layers")
        _check_interval(self, "optimizer.", "[0, 1)", "warmup_ratio", "ema")
        _check_interval(self, "optimizer.", "(0, 1]", "layer_decay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How a step fits into memory. Results do not depend on it, except for dropout masks.

    `split` is one of
      "none"    encode all rows at once;
      "remat"   encode micro-batches in turn and recompute them in the backward pass [M3 sec. 3.4];
      "cached"  gradient caching: encode micro-batches without gradients, differentiate the loss
                with respect to the representations, then encode each micro-batch again. Only the
                memory of the representations grows with the batch.
    """

    split: Literal["none", "remat", "cached"] = "none"
    sub_tokens: int = 16_384  # tokens per device and micro-batch, padding included
    accumulate: int = 1  # batches per step, each with its own negatives

    def __post_init__(self):
        _check_choices(self, "step.")
        _check_minimum(self, "step.", 1, "sub_tokens", "accumulate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which examples form a batch, and the shape of its rows [M3 sec. 3.4, Table 9].

    `length_boundaries` are upper bounds, in tokens, of the length groups; the last group takes
    everything longer. `batch_sizes` has the global batch size of each group. `batching` is one of
      "padded"           one text per row; rows are as wide as the batch's longest text requires;
      "padded_to_group"  one text per row; rows are as wide as the group's boundary;
      "packed"           several texts per row.
    """

    RENAMED: ClassVar[Renamed] = {
        "edges": ("length_boundaries", {}),
        "layout": ("batching", {"bucket": "padded", "group": "padded_to_group"}),
    }

    group_size: int = 8  # g: passages per query, the positive first; 1 means no hard negatives
    query_length: int = 512  # queries are truncated at this many tokens
    passage_length: int = 8192
    length_boundaries: tuple[int, ...] = (500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192)
    batch_sizes: tuple[int, ...] = (1152, 768, 480, 432, 336, 336, 288, 240, 192)  # fine-tuning
    batching: Literal["padded", "padded_to_group", "packed"] = "padded"
    one_source: bool = True  # all examples of a batch come from one source
    source_power: float = 1.0  # sources are sampled in proportion to size ** source_power
    drop_below: int = 2  # a last batch with fewer examples is dropped from the epoch
    shuffle_ratio: float = 0.0  # fraction of long positives whose thirds are shuffled
    no_in_batch: tuple[str, ...] = ()  # sources whose queries have no in-batch negatives
    row_width: int = 512  # packed: tokens per row, or the group's longest text if longer
    seed: int = 0

    def __post_init__(self):
        for name in ("length_boundaries", "batch_sizes"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(
                    f"data.{name} must be one or more numbers of at least 1, "
                    f"got {getattr(self, name)}"
                )
        if len(self.length_boundaries) != len(self.batch_sizes):
            raise ValueError(
                "data.length_boundaries and data.batch_sizes must have the same length, got "
                f"{len(self.length_boundaries)} and {len(self.batch_sizes)}"
            )
        if list(self.length_boundaries) != sorted(set(self.length_boundaries)):
            raise ValueError(f"data.length_boundaries must increase, got {self.length_boundaries}")
        _check_choices(self, "data.")
        _check_minimum(self, "data.", 1, "group_size", "drop_below", "row_width")
        _check_minimum(self, "data.", 2, "query_length", "passage_length")  # <s> and </s>
        _check_interval(self, "data.", "[0, 1]", "source_power", "shuffle_ratio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetroMAEConfig:
    """The pre-training objective. Values: [M3 app. B.1], RetroMAE's code (arXiv 2205.12035)."""

    encoder_mask: float = 0.3  # fraction of a text's tokens that the encoder predicts
    decoder_mask: float = 0.5  # fraction of the other tokens hidden from each decoder query
    mask_share: float = 0.8  # fraction of the encoder's masked tokens replaced by <mask>
    random_share: float = 0.1  # fraction replaced by a random token; the rest is unchanged
    mask_id: int | None = None  # None: the tokenizer's <mask>, 250001 for XLM-R
    logits_chunk: int = 512  # tokens whose logits over the vocabulary are computed at once

    def __post_init__(self):
        _check_interval(self, "retromae.", "(0, 1)", "encoder_mask", "decoder_mask")
        shares = self.mask_share, self.random_share
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(
                "retromae.mask_share and retromae.random_share must be 0 or more and sum to at "
                f"most 1, got {shares}"
            )
        if (self.mask_id or 0) < 0 or self.logits_chunk < 1:
            raise ValueError("retromae.mask_id must be 0 or more, retromae.logits_chunk at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Sizes of the mesh axes. Their product is the number of devices."""

    data: int | None = None  # None: all devices that `fsdp` and `tensor` leave
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run. `m3jax train --config FILE.py` takes it from the file's `config()`."""

    model: str = ""  # directory or Hugging Face name of the initial model
    train_data: tuple[str, ...] = ()  # one directory built by `m3jax data build`, or files
    objective: Literal["m3", "retromae"] = "m3"
    pooling: Literal["cls", "mean"] | None = None  # None: the model's own
    steps: int = 0  # 0: the steps of `epochs` epochs
    epochs: int = 1
    seed: int = 0  # for new parameters and dropout; data.seed is for the order of examples
    save_every: int = 500  # steps between checkpoints
    keep: int = 2  # number of newest checkpoints to keep
    log_every: int = 10  # steps between log lines
    evaluate_every: int = 0  # steps between evaluations; 0: only at the end
    evaluate_task: str = ""  # a task directory in BEIR format, or a folder of such directories
    evaluate_queries: int = 200  # queries per query set; 0: all
    workers: int = 0  # processes that read and tokenize; 0: threads
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    retromae: RetroMAEConfig = RetroMAEConfig()
    step: StepConfig = StepConfig()
    compute: ComputeConfig = ComputeConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        _check_choices(self)
        counts = ("steps", "save_every", "evaluate_every", "evaluate_queries", "workers")
        _check_minimum(self, "", 0, *counts)
        _check_minimum(self, "", 1, "epochs", "keep", "log_every")
        if self.evaluate_every and not self.evaluate_task:
            raise ValueError("evaluate_every requires evaluate_task, a directory in BEIR format")


# data.batch_sizes of contrastive pre-training [M3 Table 9].
PRETRAINING_BATCHES = (67200, 54720, 37248, 27648, 21504, 17280, 15072, 12288, 9984)
