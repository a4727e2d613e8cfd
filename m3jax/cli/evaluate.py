"""Measure retrieval: methods of a model on judged tasks, or stored TREC runs.

A task is a directory in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), a directory of
such directories, or a benchmark of the paper by name: miracl/LANG, mkqa/LANG, mldr/LANG,
narrativeqa, beir/SET, with --data DIR for a local copy. Texts are encoded once and results are
stored: the same command continues after an interruption, and with more methods measures only those.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3jax.cli.options import (
    add_flags,
    add_model,
    deprecated_alias,
    load_embedder,
    parse_weights,
)
from m3jax.io.atomic import replace_file
from m3jax.search.options import FUSIONS, METHODS, TOKENIZATIONS

EXAMPLES = """\
examples:
  m3jax evaluate --model BAAI/bge-m3 --task tasks/en tasks/de --output results
  m3jax evaluate --model DIR --task miracl/sw mldr/de --data DATA --methods bm25,all --output out
  m3jax evaluate --model E5 --pooling mean --query-instruction "query: " \\
      --passage-instruction "passage: " --task tasks --methods dense --output out
  m3jax evaluate --model DIR --task tasks --union --output union
  m3jax evaluate --model DIR --task xquad xquad-x --union --translated-families xquad,xquad-x \\
      --output union
  m3jax evaluate --run one.trec two.trec --qrels qrels/test.tsv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate`."""
    add_model(parser, required=False)
    parser.add_argument("--task", nargs="+", metavar="TASK", help="directories or benchmarks")
    parser.add_argument(
        "--methods",
        default=",".join(METHODS),
        metavar="M,...",
        help=f"of {', '.join(METHODS)} (default: all)",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="directory of results.json, .md, .png and stored results"
    )
    runs = parser.add_argument_group("stored runs")
    runs.add_argument(
        "--run", nargs="+", dest="runs", metavar="RUN", help="TREC runs; their names are the files'"
    )
    runs.add_argument(
        "--qrels", metavar="FILE", help="judgements: BEIR's .tsv or TREC's four columns"
    )
    runs.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out judged queries that a run lacks (default: they count 0)",
    )
    _add_data(parser.add_argument_group("data"))
    _add_protocol(parser.add_argument_group("protocol (default: the benchmark's)"))
    _add_storage(parser.add_argument_group("storage"))


def _add_data(group: Any) -> None:
    group.add_argument("--data", metavar="DIR", help="a local copy of benchmarks")
    group.add_argument(
        "--from",
        dest="source",
        choices=("local", "hub", "tfds"),
        help="origin of a benchmark's records (default: local with --data); only hub downloads",
    )
    deprecated_alias(group, "--source", "--from")
    group.add_argument(
        "--split", help="split of the judgements of a directory or BEIR set (default: test)"
    )
    group.add_argument(
        "--max-queries", type=int, metavar="N", help="a fixed random sample of each query set"
    )
    group.add_argument(
        "--union", action="store_true", help="search every query in the documents of all tasks"
    )
    group.add_argument(
        "--translated-families",
        nargs="+",
        metavar="FAMILY,...",
        help="families whose documents of equal id are translations (with --union): those of a "
        "relevant document are removed from the rankings (default: they count as not relevant)",
    )
    deprecated_alias(group, "--parallel", "--translated-families")


def _add_protocol(group: Any) -> None:
    add_flags(group, "--query-instruction", "--passage-instruction")
    deprecated_alias(group, "--query-prefix", "--query-instruction")
    deprecated_alias(group, "--passage-prefix", "--passage-instruction")
    group.add_argument("--query-length", type=int, metavar="TOKENS", help="of a query at most")
    group.add_argument("--passage-length", type=int, metavar="TOKENS", help="of a document at most")
    add_flags(group, "--cls-every")
    group.add_argument(
        "--weights",
        metavar="D,S,C",
        help="weights of dense,sparse,colbert in fused methods; or miracl, mkqa, mldr, narrativeqa "
        "(default: those tuned for the model, else the benchmark's)",
    )
    group.add_argument(
        "--fusion",
        choices=FUSIONS,
        default="weighted",
        help="of the scores of several heads (default: weighted)",
    )
    group.add_argument(
        "--compat",
        choices=("flagembedding",),
        help="dense+sparse as in FlagEmbedding: a document missing from one ranking scores 0 there",
    )
    group.add_argument(
        "--depths",
        default="1000,1000,200",
        metavar="D,S,R",
        help="depths of the dense and sparse rankings that are merged, and of re-ranking by late "
        "interaction (default: 1000,1000,200)",
    )
    group.add_argument(
        "--top-k", type=int, default=1000, help="documents measured for each query (default: 1000)"
    )
    group.add_argument(
        "--bm25",
        choices=TOKENIZATIONS,
        default="tokens",
        help="terms of BM25: the model's tokens, as in the paper, or words (default: tokens)",
    )
    group.add_argument("--measures", metavar="M,...", help="such as nDCG@10,Recall@100,MRR@10,P@5")
    group.add_argument(
        "--remove-self",
        action="store_true",
        help="remove the document with the query's id from the query's ranking",
    )


def _add_storage(group: Any) -> None:
    group.add_argument(
        "--cache", metavar="DIR", help="directory of embeddings (default: OUTPUT/embeddings)"
    )
    group.add_argument(
        "--store",
        choices=("all", "needed"),
        default="all",
        help="representations that are stored: all, so that methods added later encode nothing "
        "again, or those that the methods need (default: all)",
    )
    add_flags(group, "--storage-dtype")
    deprecated_alias(group, "--embedding-dtype", "--storage-dtype")
    group.add_argument(
        "--save-runs", action="store_true", help="write TREC runs to the directory OUTPUT/runs"
    )
    add_flags(group, "--batch-size")


def run(options: argparse.Namespace) -> int:
    """Prints each result and the averages; writes the report."""
    if (options.runs is None) == (options.task is None):
        raise ValueError("name either tasks (--task) or stored runs (--run)")
    if options.runs is not None:
        return _compare_runs(options)
    if options.output is None:
        raise ValueError("--task needs --output DIR, the directory of results and embeddings")
    if options.translated_families and not options.union:
        raise ValueError(
            "--translated-families needs --union, which searches the documents of all tasks"
        )
    if options.union and options.remove_self:
        raise ValueError(
            "--union and --remove-self exclude each other: --union gives documents new ids"
        )
    from m3jax.evaluate.report import primaries, write_report
    from m3jax.evaluate.run import evaluate_model

    evaluation_options = _evaluation_options(options)
    tasks = _tasks(options)
    embedder = None
    if options.model:
        embedder = load_embedder(
            options,
            query_instruction=options.query_instruction,
            passage_instruction=options.passage_instruction,
        )
    output = Path(options.output)
    results = evaluate_model(
        embedder, tasks, output, evaluation_options, cache=options.cache, log=_print
    )
    summary = write_report(output, results)
    for measure in primaries(results):
        _print_averages(summary, measure)
    print(f"{len(results)} results: {output / 'results.md'}")
    return 0


def _tasks(options: argparse.Namespace) -> list[Any]:
    from m3jax.evaluate.benchmarks import load_tasks
    from m3jax.evaluate.tasks import unite

    tasks = []
    for name in options.task:
        tasks += load_tasks(
            name,
            source=options.source,
            data=options.data,
            split=options.split,
            max_queries=options.max_queries,
        )
    names = [task.name for task in tasks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"two tasks have the name {repeated[0]!r}; evaluate them one by one")
    if not options.union:
        return tasks
    families = {task.family for task in tasks}
    return unite(tasks, _translated_families(options.translated_families or (), families))


def _translated_families(groups: Sequence[str], families: set[str]) -> list[list[str]]:
    """The groups of `--translated-families`. Raises ValueError for an unknown family."""
    parsed = [group.split(",") for group in groups]
    for family in (family for group in parsed for family in group):
        if family not in families:
            raise ValueError(
                f"--translated-families: no task is of {family!r}; the families: "
                f"{', '.join(sorted(families))}"
            )
    return parsed


def _evaluation_options(options: argparse.Namespace) -> Any:
    from m3jax.evaluate.options import EvaluationOptions
    from m3jax.search.fuse import PRESETS
    from m3jax.search.options import Depths

    try:
        dense, sparse, rerank_top_k = (int(part) for part in options.depths.split(","))
    except ValueError:
        raise ValueError(
            f"--depths needs three numbers like 1000,1000,200, got {options.depths!r}"
        ) from None
    preset = options.weights in PRESETS
    return EvaluationOptions(
        methods=_names(options.methods),
        top_k=options.top_k,
        depths=Depths(dense=dense, sparse=sparse, rerank_top_k=rerank_top_k),
        weights=options.weights if preset else parse_weights(options.weights, "all"),
        fusion=options.fusion,
        compat=options.compat,
        bm25_terms=options.bm25,
        query_length=options.query_length,
        passage_length=options.passage_length,
        measures=_names(options.measures) if options.measures else None,
        remove_self=options.remove_self,
        store=options.store,
        storage_dtype=options.storage_dtype,
        batch_size=options.batch_size,
        cls_every=options.cls_every,
        save_runs=options.save_runs,
    )


def _compare_runs(options: argparse.Namespace) -> int:
    """Prints means, intervals and paired tests of stored runs; with --output also writes them."""
    from m3jax.evaluate.stored_runs import compare_runs, comparison_table

    if options.qrels is None:
        raise ValueError("--run needs --qrels FILE")
    measures = _names(options.measures) if options.measures else None
    comparison = compare_runs(options.runs, options.qrels, measures, not options.skip_missing)
    table = comparison_table(comparison)
    print(table, end="")
    if options.output:
        with replace_file(Path(options.output) / "results.json") as stream:
            json.dump(comparison, stream, indent=1, ensure_ascii=False)
        with replace_file(Path(options.output) / "results.md") as stream:
            stream.write(table)
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _print(line: str) -> None:
    print(line, flush=True)


def _print_averages(summary: Any, measure: str) -> None:
    rows = dict(summary.families[measure])
    if len(rows) > 1:
        rows["mean of families"] = summary.overall[measure]["all"]
    print()
    for name, row in rows.items():
        cells = "  ".join(f"{method} {100 * level.value:.1f}" for method, level in row.items())
        print(f"{name:24} {measure}  {cells}")
