"""M3-Embedding (BGE-M3, arXiv 2402.03216) in JAX/Flax: dense, sparse and multi-vector embeddings.

>>> from m3jax import M3Embedder
>>> model = M3Embedder.from_pretrained("BAAI/bge-m3")  # doctest: +SKIP
>>> out = model.encode(["Hello", "Bonjour"], return_sparse=True)  # doctest: +SKIP

Embed:     M3Embedder, BGEM3FlagModel, EncodeOptions, Embeddings, Ragged
Search:    build_index, Index (with `search`), IndexOptions, SearchOptions, tune_weights
Explain:   explain_passages, plot_explanation
Evaluate:  evaluate_model, EvaluationOptions, read_tasks
Train:     train_model, TrainConfig and its parts, mine_negatives, score_teacher
Convert:   from_hf, to_hf

Names are imported when first used: `import m3jax` loads neither JAX nor NumPy.
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from m3jax.config import (
        ComputeConfig,
        DataConfig,
        EncoderConfig,
        HeadWeights,
        LossConfig,
        M3Config,
        OptimizerConfig,
        RetroMAEConfig,
        StepConfig,
        TrainConfig,
    )
    from m3jax.data.sample import sample_passages, sample_questions
    from m3jax.embed.embedder import EncodeOptions, M3Embedder
    from m3jax.embed.embeddings import Embeddings, Ragged
    from m3jax.embed.flag import BGEM3FlagModel
    from m3jax.evaluate.options import EvaluationOptions
    from m3jax.evaluate.results import EvaluationResult
    from m3jax.evaluate.run import evaluate_model
    from m3jax.evaluate.tasks import Task, read_tasks
    from m3jax.explain.alignment import Explanation, explain_passages
    from m3jax.explain.plot import plot_explanation
    from m3jax.mine.negatives import MiningResult, mine_negatives
    from m3jax.mine.options import MiningOptions
    from m3jax.mine.teacher import TeacherOptions, TeacherResult, score_teacher
    from m3jax.model.m3 import M3
    from m3jax.pretrained import Pretrained, from_hf, to_hf
    from m3jax.search.build import IndexOptions, build_index
    from m3jax.search.documents import Document
    from m3jax.search.hits import Hits
    from m3jax.search.index import Index
    from m3jax.search.options import SearchOptions
    from m3jax.search.tune import tune_weights
    from m3jax.train.loop import RunResult, train_model
    from m3jax.types import Encoding, TextBatch

__all__ = [
    "M3",
    "BGEM3FlagModel",
    "ComputeConfig",
    "DataConfig",
    "Document",
    "Embeddings",
    "EncodeOptions",
    "EncoderConfig",
    "Encoding",
    "EvaluationOptions",
    "EvaluationResult",
    "Explanation",
    "HeadWeights",
    "Hits",
    "Index",
    "IndexOptions",
    "LossConfig",
    "M3Config",
    "M3Embedder",
    "MiningOptions",
    "MiningResult",
    "OptimizerConfig",
    "Pretrained",
    "Ragged",
    "RetroMAEConfig",
    "RunResult",
    "SearchOptions",
    "StepConfig",
    "Task",
    "TeacherOptions",
    "TeacherResult",
    "TextBatch",
    "TrainConfig",
    "build_index",
    "evaluate_model",
    "explain_passages",
    "from_hf",
    "mine_negatives",
    "plot_explanation",
    "read_tasks",
    "sample_passages",
    "sample_questions",
    "score_teacher",
    "to_hf",
    "train_model",
    "tune_weights",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "types": ("TextBatch", "Encoding"),
        "config": (
            *("EncoderConfig", "M3Config", "ComputeConfig", "HeadWeights", "TrainConfig"),
            *("DataConfig", "LossConfig", "OptimizerConfig", "StepConfig", "RetroMAEConfig"),
        ),
        "model.m3": ("M3",),
        "embed.embedder": ("M3Embedder", "EncodeOptions"),
        "embed.flag": ("BGEM3FlagModel",),
        "embed.embeddings": ("Embeddings", "Ragged"),
        "search.index": ("Index",),
        "search.build": ("IndexOptions", "build_index"),
        "search.options": ("SearchOptions",),
        "search.documents": ("Document",),
        "search.hits": ("Hits",),
        "search.tune": ("tune_weights",),
        "explain.alignment": ("Explanation", "explain_passages"),
        "explain.plot": ("plot_explanation",),
        "mine.options": ("MiningOptions",),
        "mine.negatives": ("MiningResult", "mine_negatives"),
        "mine.teacher": ("TeacherOptions", "TeacherResult", "score_teacher"),
        "evaluate.options": ("EvaluationOptions",),
        "evaluate.results": ("EvaluationResult",),
        "evaluate.run": ("evaluate_model",),
        "evaluate.tasks": ("Task", "read_tasks"),
        "train.loop": ("RunResult", "train_model"),
        "pretrained": ("Pretrained", "from_hf", "to_hf"),
        "data.sample": ("sample_passages", "sample_questions"),
    },
)
