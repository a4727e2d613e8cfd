"""What the tables at small scale share: two models on the same tasks, one report.

The first is an E5 backbone used as its authors do (prefixes, mean of all tokens, 512 tokens) with
BM25 over its tokens; the second an M3 model with all its methods.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from summary import RESULTS, keep_report

from m3jax import M3Embedder
from m3jax.evaluate.protocol import Settings
from m3jax.evaluate.results import Result
from m3jax.evaluate.run import evaluate
from m3jax.evaluate.tasks import Task, read_tasks

BASELINE = "mE5-small"
M3_METHODS = ("dense", "sparse", "colbert", "dense+sparse", "all")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of every table."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="m3-mini", help="an M3 model (default: m3-mini)")
    parser.add_argument("--backbone", help="the E5 backbone; without it, no baseline but BM25")
    parser.add_argument("--eval", required=True, type=Path, help="a folder of task families")
    parser.add_argument("--families", nargs="+", help="fewer families, or FAMILY/TASK")
    parser.add_argument("--max-queries", type=int, default=200, help="of a set; 0: all")
    parser.add_argument("--passage-length", type=int, default=512)
    parser.add_argument(
        "--weights",
        default="model",
        help="of the fused methods: D,S,M, a benchmark's, or model: its own (default: %(default)s)",
    )
    parser.add_argument("--work", type=Path, default=Path("build/tables"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def tasks_of(options: argparse.Namespace, families: Sequence[str]) -> list[Task]:
    """The tasks of the families that the command line left."""
    most = options.max_queries or None
    return [
        task
        for name in options.families or families
        for task in read_tasks(options.eval / name, max_queries=most)
    ]


def measure(options: argparse.Namespace, tasks: list[Task], name: str, **settings) -> list[Result]:
    """BM25, the backbone and the M3 model on all tasks; writes NAME.json.gz, .md and .png."""
    results = baseline(options, tasks)
    model = M3Embedder.from_pretrained(options.model)
    results += evaluate(model, tasks, options.work, m3_settings(options, **settings), tell=tell)
    named(results, options)
    keep_report(options.results, results, name)
    return results


def baseline(options: argparse.Namespace, tasks: list[Task]) -> list[Result]:
    """BM25 and, where it is given, the backbone's dense vectors under its own name."""
    source = options.backbone or options.model
    embedder = M3Embedder.from_pretrained(
        source, pooling="mean", query_instruction="query: ", passage_instruction="passage: "
    )
    methods = ("bm25", "dense") if options.backbone else ("bm25",)
    settings = Settings(methods=methods, passage_length=512, store="needed")
    found = evaluate(embedder, tasks, options.work, settings, tell=tell)
    return [r if r.method == "bm25" else dataclasses.replace(r, method=BASELINE) for r in found]


def m3_settings(options: argparse.Namespace, **changes) -> Settings:
    """Settings of the M3 model's results."""
    from m3jax.cli.options import parse_weights
    from m3jax.search.fuse import PRESETS

    weights = None if options.weights == "model" else options.weights
    if weights not in PRESETS:
        weights = parse_weights(weights, "all")
    values = {"methods": M3_METHODS, "passage_length": options.passage_length, "weights": weights}
    return Settings(**(values | changes))


def named(results: Sequence[Result], options: argparse.Namespace) -> None:
    """Where a model lay is nobody's business."""
    for result in results:
        of_backbone = options.backbone and result.method in (BASELINE, "bm25")
        result.protocol["model"] = BASELINE if of_backbone else Path(options.model).name


def tell(result: Result, kept: bool) -> None:
    """One line a result."""
    value = 100 * result.measures[result.primary]
    where = ":".join(part for part in (result.task, result.query_set) if part)
    print(f"{where:28} {result.method:13} {result.primary} {value:.1f}{' kept' * kept}", flush=True)
