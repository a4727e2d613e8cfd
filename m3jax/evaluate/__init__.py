"""Evaluation of retrieval on judged tasks.

Files in reading order: `tasks` (a corpus, queries, judgements; read from directories), `benchmarks`
and `benchmark_files` (the paper's benchmarks by name), `options`, `run` (evaluate a model),
`protocol` and `results` (what identifies a result; its file), `embedding_store` (encoded texts),
`metrics` and `answer_recall` (measures), `averages` and `significance` (means, intervals, tests),
`report`, `report_files`, `plots` and `paper` (tables beside the paper's), `stored_runs` (TREC
runs), `callback` (evaluation during training), `mteb` (a model for mteb).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.evaluate.averages import Summary, summarise
    from m3jax.evaluate.benchmarks import load_tasks
    from m3jax.evaluate.metrics import as_run, means, per_query
    from m3jax.evaluate.mteb import mteb_model
    from m3jax.evaluate.options import EvaluationOptions
    from m3jax.evaluate.report import write_report
    from m3jax.evaluate.results import EvaluationResult
    from m3jax.evaluate.run import evaluate_model
    from m3jax.evaluate.stored_runs import compare_runs
    from m3jax.evaluate.tasks import QuerySet, Task, read_tasks, unite

__all__ = [
    "EvaluationOptions",
    "EvaluationResult",
    "QuerySet",
    "Summary",
    "Task",
    "as_run",
    "compare_runs",
    "evaluate_model",
    "load_tasks",
    "means",
    "mteb_model",
    "per_query",
    "read_tasks",
    "summarise",
    "unite",
    "write_report",
]

_MODULES = {
    "averages": ("Summary", "summarise"),
    "benchmarks": ("load_tasks",),
    "stored_runs": ("compare_runs",),
    "metrics": ("as_run", "means", "per_query"),
    "mteb": ("mteb_model",),
    "options": ("EvaluationOptions",),
    "report": ("write_report",),
    "results": ("EvaluationResult",),
    "run": ("evaluate_model",),
    "tasks": ("QuerySet", "Task", "read_tasks", "unite"),
}

__getattr__, __dir__ = exports(__name__, _MODULES)
