"""Evaluation during training: nDCG@10 of each head on the queries of tasks."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from m3jax.config import HEADS, TrainConfig
from m3jax.embed.embedder import M3Embedder
from m3jax.evaluate.averages import summarise
from m3jax.evaluate.options import EvaluationOptions
from m3jax.evaluate.run import evaluate_model
from m3jax.evaluate.tasks import read_tasks
from m3jax.pretrained import Pretrained

MEASURE = "nDCG@10"


def evaluator(config: TrainConfig) -> Callable[[Pretrained], dict[str, float]]:
    """A function from a model to {"nDCG@10/METHOD": mean over tasks, then families}.

    The tasks are those in the directory `evaluate_task`, with at most `evaluate_queries` queries
    each and the text lengths of training. The methods are those of the trained heads, preceded by
    `all` if all heads train; the first one decides which model is the best. Raises
    FileNotFoundError or ValueError if the directory holds no task.
    """
    tasks = read_tasks(Path(config.evaluate_task), max_queries=config.evaluate_queries or None)
    heads = ("dense",) if config.objective == "retromae" else config.loss.heads
    options = EvaluationOptions(
        methods=("all", *heads) if len(heads) == len(HEADS) else heads,
        store="needed",
        query_length=config.data.query_length,
        passage_length=config.data.passage_length,
    )
    embedders: list[M3Embedder] = []  # one, compiled once

    def measure(model: Pretrained) -> dict[str, float]:
        if not embedders:
            embedders.append(M3Embedder(model, compute=config.compute))
        embedders[0].encoder.model = model
        with tempfile.TemporaryDirectory(prefix="m3jax-evaluate-") as folder:
            results = evaluate_model(embedders[0], tasks, Path(folder), options)
        overall = summarise(results).overall[MEASURE]["all"]
        return {f"{MEASURE}/{name}": overall[name].value for name in options.methods}

    return measure
