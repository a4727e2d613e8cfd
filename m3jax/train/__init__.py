"""Training: from a config to checkpoints and an exported model.

Reading order: `setup` (config to model, batches and compiled step), `loop` (the run), `step` (one
optimizer step), `objectives` (batch to loss), `gradcache` (micro-batches), `unpack` (packed rows),
`optimizer`, `retromae` (pre-training), `prefetch`, `checkpoints`, `run_log`, `fit_memory` (batch
sizes for a device), `cls_from_mean` and `sparse_head` (initialization of heads).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.train.cls_from_mean import CLSFromMeanOptions, distill_mean_pooling
    from m3jax.train.loop import RunResult, train, train_model
    from m3jax.train.objectives import ObjectiveOptions, objective
    from m3jax.train.optimizer import make_optimizer, make_schedule
    from m3jax.train.run_log import read_metrics
    from m3jax.train.setup import Run, prepare
    from m3jax.train.sparse_head import warm_up_sparse_head
    from m3jax.train.step import Trainer, TrainState, m3_gradients, make_trainer

__all__ = [
    "CLSFromMeanOptions",
    "ObjectiveOptions",
    "Run",
    "RunResult",
    "TrainState",
    "Trainer",
    "distill_mean_pooling",
    "m3_gradients",
    "make_optimizer",
    "make_schedule",
    "make_trainer",
    "objective",
    "prepare",
    "read_metrics",
    "train",
    "train_model",
    "warm_up_sparse_head",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "setup": ("Run", "prepare"),
        "loop": ("RunResult", "train", "train_model"),
        "step": ("TrainState", "Trainer", "m3_gradients", "make_trainer"),
        "objectives": ("ObjectiveOptions", "objective"),
        "optimizer": ("make_optimizer", "make_schedule"),
        "run_log": ("read_metrics",),
        "cls_from_mean": ("CLSFromMeanOptions", "distill_mean_pooling"),
        "sparse_head": ("warm_up_sparse_head",),
    },
)
