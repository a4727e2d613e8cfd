"""Training batches: which examples form each batch, and the arrays of a batch.

Reading order: `source` (`BatchSource`: step number to batch), `plan` (the order of an epoch),
`sampling` (the passages of an example), `layout` (padded and packed arrays).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.feed.layout import BatchShape
    from m3jax.feed.plan import EpochPlan, example_stats, plan_epoch
    from m3jax.feed.source import BatchSource, Shard

__all__ = ["BatchShape", "BatchSource", "EpochPlan", "Shard", "example_stats", "plan_epoch"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "source": ("BatchSource", "Shard"),
        "plan": ("EpochPlan", "example_stats", "plan_epoch"),
        "layout": ("BatchShape",),
    },
)
