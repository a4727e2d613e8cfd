"""What `m3jax train` measures every so often: nDCG@10 of each head on a task's queries."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from m3jax.config import HEADS, TrainConfig
from m3jax.embed.embedder import M3Embedder
from m3jax.evaluate.averages import summarise
from m3jax.evaluate.protocol import Settings
from m3jax.evaluate.run import evaluate
from m3jax.evaluate.tasks import read_tasks
from m3jax.pretrained import Pretrained

MEASURE = "nDCG@10"


def evaluator(config: TrainConfig) -> Callable[[Pretrained], dict[str, float]]:
    """A function of the model to {method: nDCG@10, averaged over tasks, then families}.

    Tasks are those in the directory `evaluate_task`, `evaluate_queries` queries of each, texts cut
    at the lengths of training. Methods are those of the heads that train; first, where there is
    more than one, `all`: its number decides which model is the best. Raises FileNotFoundError or
    ValueError for a directory that is no task, before anything is trained.
    """
    tasks = read_tasks(Path(config.evaluate_task), max_queries=config.evaluate_queries or None)
    heads = ("dense",) if config.objective == "retromae" else config.loss.heads
    settings = Settings(
        methods=("all", *heads) if len(heads) == len(HEADS) else heads,
        store="needed",
        query_length=config.data.query_length,
        passage_length=config.data.passage_length,
    )
    kept: list[M3Embedder] = []  # compiled once for the whole run

    def measure(model: Pretrained) -> dict[str, float]:
        if not kept:
            kept.append(M3Embedder(model, compute=config.compute))
        kept[0].encoder.model = model
        with tempfile.TemporaryDirectory(prefix="m3jax-evaluate-") as folder:
            results = evaluate(kept[0], tasks, Path(folder), settings)
        overall = summarise(results).overall[MEASURE]["all"]
        return {f"{MEASURE}/{name}": overall[name].value for name in settings.methods}

    return measure
