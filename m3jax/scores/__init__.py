"""Scores of every query and passage of a batch, with gradients.

Reading order: `dense`, `sparse`, `colbert` (late interaction), `ring` (a batch on many devices).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.scores.colbert import colbert_scores
    from m3jax.scores.dense import dense_scores
    from m3jax.scores.ring import gathered_scores, ring_colbert_scores
    from m3jax.scores.sparse import flops, l1, sparse_scores

__all__ = [
    "colbert_scores",
    "dense_scores",
    "flops",
    "gathered_scores",
    "l1",
    "ring_colbert_scores",
    "sparse_scores",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "dense": ("dense_scores",),
        "sparse": (
            "flops",
            "l1",
            "sparse_scores",
        ),
        "colbert": ("colbert_scores",),
        "ring": (
            "gathered_scores",
            "ring_colbert_scores",
        ),
    },
)
