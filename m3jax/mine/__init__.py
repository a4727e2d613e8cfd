"""Hard negatives and teacher scores for training files.

Reading order: `negatives` (the loop over the records), `options`, `pool` (passages on disk),
`retrieve` (indexes of the pool), `selection` (hits to negatives), `scoring` (scores of pairs),
`report`; `teacher` (the loop that fills scores), `rerankers` (cross-encoder and M3 teachers);
`records` (lines of training files), `resume` (results on disk).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.mine.negatives import MiningResult, mine_negatives
    from m3jax.mine.options import MiningOptions
    from m3jax.mine.rerankers import Reranker, cross_encoder_reranker, m3_reranker
    from m3jax.mine.teacher import TeacherOptions, TeacherResult, score_teacher

__all__ = [
    "MiningOptions",
    "MiningResult",
    "Reranker",
    "TeacherOptions",
    "TeacherResult",
    "cross_encoder_reranker",
    "m3_reranker",
    "mine_negatives",
    "score_teacher",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "negatives": ("MiningResult", "mine_negatives"),
        "options": ("MiningOptions",),
        "rerankers": ("Reranker", "cross_encoder_reranker", "m3_reranker"),
        "teacher": ("TeacherOptions", "TeacherResult", "score_teacher"),
    },
)
