"""Shared by the tables at small scale: two models on the same tasks, in one report.

The first is an E5 backbone used as published (instructions, mean of all tokens, 512 tokens) with
BM25 over its tokens; the second is an M3 model with all its methods.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from settings import RESULTS, log
from summary import keep_report

from m3jax import M3Embedder
from m3jax.evaluate.options import EvaluationOptions
from m3jax.evaluate.results import EvaluationResult
from m3jax.evaluate.run import evaluate_model
from m3jax.evaluate.tasks import Task, read_tasks

BASELINE = "mE5-small"
M3_METHODS = ("dense", "sparse", "colbert", "dense+sparse", "all")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of every table."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="m3-mini", help="an M3 model (default: m3-mini)")
    parser.add_argument("--backbone", help="the E5 backbone; without it, BM25 is the only baseline")
    parser.add_argument("--eval", required=True, type=Path, help="a directory of task families")
    parser.add_argument("--families", nargs="+", help="FAMILY or FAMILY/TASK (default: the table)")
    parser.add_argument("--max-queries", type=int, default=200, help="of each query set; 0: all")
    parser.add_argument("--passage-length", type=int, default=512)
    parser.add_argument(
        "--weights",
        default="model",
        help="of the fused methods: D,S,C, a benchmark, or model: those tuned for it "
        "(default: %(default)s)",
    )
    parser.add_argument("--workdir", type=Path, default=Path("build/tables"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def tasks_of(options: argparse.Namespace, families: Sequence[str]) -> list[Task]:
    """The tasks of `families`, or of those that --families names."""
    return [
        task
        for name in options.families or families
        for task in read_tasks(options.eval / name, max_queries=options.max_queries or None)
    ]


def measure(
    options: argparse.Namespace, tasks: list[Task], name: str, **changes
) -> list[EvaluationResult]:
    """BM25, the backbone and the M3 model on all tasks; writes NAME.json.gz, .md and .png."""
    results = baseline(options, tasks)
    model = M3Embedder.from_pretrained(options.model)
    results += evaluate_model(
        model, tasks, options.workdir, m3_options(options, **changes), log=log
    )
    set_model_names(results, options)
    keep_report(options.results, results, name)
    return results


def baseline(options: argparse.Namespace, tasks: list[Task]) -> list[EvaluationResult]:
    """BM25 and, with --backbone, its dense vectors as the method `BASELINE`."""
    source = options.backbone or options.model
    embedder = M3Embedder.from_pretrained(
        source, pooling="mean", query_instruction="query: ", passage_instruction="passage: "
    )
    methods = ("bm25", "dense") if options.backbone else ("bm25",)
    evaluation_options = EvaluationOptions(methods=methods, passage_length=512, store="needed")
    results = evaluate_model(embedder, tasks, options.workdir, evaluation_options, log=log)
    return [r if r.method == "bm25" else dataclasses.replace(r, method=BASELINE) for r in results]


def m3_options(options: argparse.Namespace, **changes) -> EvaluationOptions:
    """The options of the M3 model's evaluation."""
    from m3jax.cli.options import parse_weights
    from m3jax.search.fuse import PRESETS

    weights = None if options.weights == "model" else options.weights
    if weights not in PRESETS:
        weights = parse_weights(weights, "all")
    values = {"methods": M3_METHODS, "passage_length": options.passage_length, "weights": weights}
    return EvaluationOptions(**(values | changes))


def set_model_names(results: Sequence[EvaluationResult], options: argparse.Namespace) -> None:
    """Replaces the paths of models in the protocols by names."""
    for result in results:
        of_backbone = options.backbone and result.method in (BASELINE, "bm25")
        result.protocol["model"] = BASELINE if of_backbone else Path(options.model).name
