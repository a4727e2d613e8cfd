"""Measure retrieval: methods of a model on judged tasks, or runs that are stored already.

A task is a directory of BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), a folder of
such directories, or a benchmark of the paper by name: miracl/LANG, mkqa/LANG, mldr/LANG,
narrativeqa, beir/SET, with --data DIR for a local copy. Texts are encoded once; run the same
command again after a stop, or with more methods, and what is there is kept.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3jax.cli.options import add_flags, add_model, load_embedder, parse_weights
from m3jax.search.options import METHODS

EXAMPLES = """\
examples:
  m3jax evaluate --model BAAI/bge-m3 --task tasks/en tasks/de --output results
  m3jax evaluate --model DIR --task miracl/sw mldr/de --data DATA --methods bm25,all --output out
  m3jax evaluate --model E5 --pooling mean --query-prefix "query: " --passage-prefix "passage: " \\
      --task tasks --methods dense --output out
  m3jax evaluate --model DIR --task tasks --union --output union
  m3jax evaluate --model DIR --task xquad xquad-x --union --parallel xquad,xquad-x --output union
  m3jax evaluate --run one.trec two.trec --qrels qrels/test.tsv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate`."""
    add_model(parser, required=False)
    parser.add_argument("--task", nargs="+", metavar="TASK", help="directories or benchmarks")
    parser.add_argument(
        "--methods", default=",".join(METHODS), metavar="M,...", help="default: all six"
    )
    parser.add_argument("--output", metavar="DIR", help="results.json, .md, .png and their parts")
    stored = parser.add_argument_group("stored runs")
    stored.add_argument(
        "--run", nargs="+", dest="runs", metavar="RUN", help="TREC runs, compared by name"
    )
    stored.add_argument("--qrels", metavar="FILE", help="BEIR's .tsv or TREC's four columns")
    stored.add_argument(
        "--skip-missing", action="store_true",
        help="leave out judged queries that a run lacks (default: they count 0)",
    )  # fmt: skip
    _add_data(parser.add_argument_group("data"))
    _add_protocol(parser.add_argument_group("protocol (default: the benchmark's)"))
    keep = parser.add_argument_group("what is kept")
    keep.add_argument("--cache", metavar="DIR", help="of embeddings (default: OUTPUT/embeddings)")
    keep.add_argument(
        "--store", choices=("all", "needed"), default="all",
        help="all: every representation of the model, so that a method added later encodes "
        "nothing again; needed: only what the methods use (default: all)",
    )  # fmt: skip
    keep.add_argument(
        "--embedding-dtype", choices=("float32", "float16", "int8"), default="float32",
        help="of stored document vectors (default: float32)",
    )  # fmt: skip
    keep.add_argument("--save-runs", action="store_true", help="TREC runs under OUTPUT/runs")
    keep.add_argument("--batch-size", type=int, metavar="ROWS", help="default: by tokens")


def _add_data(group: Any) -> None:
    group.add_argument("--data", metavar="DIR", help="a local copy of benchmarks")
    group.add_argument(
        "--source", choices=("local", "hub", "tfds"),
        help="where a benchmark is (default: local with --data); only hub downloads",
    )  # fmt: skip
    group.add_argument("--split", help="of the judgements of a folder or a set of BEIR "
                       "(default: test)")  # fmt: skip
    group.add_argument(
        "--max-queries", type=int, metavar="N", help="a fixed random sample of each query set"
    )
    group.add_argument(
        "--union", action="store_true", help="every query against the documents of all tasks"
    )
    group.add_argument(
        "--parallel", nargs="+", metavar="FAMILY,...",
        help="families in which one id names translations (with --union): those of a relevant "
        "document are taken out of the results; default: they count as wrong",
    )  # fmt: skip


def _add_protocol(group: Any) -> None:
    group.add_argument("--query-prefix", default="", metavar="TEXT", help='such as "query: "')
    group.add_argument("--passage-prefix", default="", metavar="TEXT", help='such as "passage: "')
    group.add_argument("--query-length", type=int, metavar="TOKENS")
    group.add_argument("--passage-length", type=int, metavar="TOKENS")
    add_flags(group, "--cls-every")
    group.add_argument(
        "--weights",
        metavar="D,S,M",
        help="of fused methods, or miracl, mkqa, mldr, narrativeqa (default: those that the model "
        "keeps, else the benchmark's)",
    )
    group.add_argument(
        "--fusion", choices=("weighted", "rrf", "minmax", "zscore"), default="weighted"
    )
    group.add_argument(
        "--compat", choices=("flagembedding",),
        help="dense+sparse as the reference code: a document missing from one list scores 0 there",
    )  # fmt: skip
    group.add_argument(
        "--depths", default="1000,1000,200", metavar="D,S,R",
        help="lists merged by dense+sparse, and documents ranked again (default: 1000,1000,200)",
    )  # fmt: skip
    group.add_argument("--top-k", type=int, default=1000, help="documents measured (default: 1000)")
    group.add_argument(
        "--bm25", choices=("tokens", "words"), default="tokens",
        help="the model's tokens, as the paper, or words (default: tokens)",
    )  # fmt: skip
    group.add_argument("--measures", metavar="M,...", help="such as nDCG@10,Recall@100,MRR@10,P@5")
    group.add_argument(
        "--remove-self", action="store_true",
        help="take documents with the query's own id out of its results",
    )  # fmt: skip


def _parallel(groups: Sequence[str], known: set[str]) -> list[list[str]]:
    """Groups of families; ValueError for one that is not known."""
    parted = [group.split(",") for group in groups]
    for family in (family for group in parted for family in group):
        if family not in known:
            raise ValueError(
                f"--parallel: no task is of {family!r}; the families: {', '.join(sorted(known))}"
            )
    return parted


def run(options: argparse.Namespace) -> int:
    """Prints each result as it comes and the averages at the end."""
    if (options.runs is None) == (options.task is None):
        raise ValueError("name either tasks (--task) or stored runs (--run)")
    if options.runs is not None:
        return _stored(options)
    if options.output is None:
        raise ValueError("--task needs --output DIR, where results and embeddings are kept")
    if options.parallel and not options.union:
        raise ValueError("--parallel is for --union, which puts translations into one pool")
    if options.union and options.remove_self:
        raise ValueError("--union gives documents new ids, --remove-self compares the old ones")
    from m3jax.evaluate.benchmarks import load_tasks
    from m3jax.evaluate.report import primaries, write_report
    from m3jax.evaluate.run import evaluate
    from m3jax.evaluate.tasks import unite

    settings = _settings(options)
    tasks = [
        task
        for spec in options.task
        for task in load_tasks(
            spec, source=options.source, data=options.data, split=options.split,
            max_queries=options.max_queries,
        )
    ]  # fmt: skip
    names = [task.name for task in tasks]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"two tasks have the name {double[0]!r}; evaluate them one by one")
    if options.union:
        tasks = unite(tasks, _parallel(options.parallel or (), {task.family for task in tasks}))
    embedder = None
    if options.model:
        embedder = load_embedder(
            options,
            query_instruction=options.query_prefix,
            passage_instruction=options.passage_prefix,
        )
    output = Path(options.output)
    cache = Path(options.cache) if options.cache else None
    results = evaluate(embedder, tasks, output, settings, cache=cache, tell=_tell)
    summary = write_report(output, results)
    for measure in primaries(results):
        _print_averages(summary, measure)
    print(f"{len(results)} results: {output / 'results.md'}")
    return 0


def _settings(options: argparse.Namespace) -> Any:
    from m3jax.evaluate.protocol import Settings
    from m3jax.search.fuse import PRESETS
    from m3jax.search.options import Depths

    try:
        dense, sparse, rerank_top_k = (int(part) for part in options.depths.split(","))
    except ValueError:
        raise ValueError(
            f"--depths needs three numbers like 1000,1000,200, got {options.depths!r}"
        ) from None
    preset = options.weights in PRESETS
    return Settings(
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
        dtype=options.embedding_dtype,
        batch_size=options.batch_size,
        cls_every=options.cls_every,
        save_runs=options.save_runs,
    )


def _stored(options: argparse.Namespace) -> int:
    """Means, intervals and paired tests of runs on disk."""
    from m3jax.evaluate.compare_runs import compare_runs, stored_table

    if options.qrels is None:
        raise ValueError("--run needs --qrels FILE")
    measures = _names(options.measures) if options.measures else None
    found = compare_runs(options.runs, options.qrels, measures, not options.skip_missing)
    print(stored_table(found), end="")
    if options.output:
        import json

        from m3jax.io.atomic import replace_file

        with replace_file(Path(options.output) / "results.json") as stream:
            json.dump(found, stream, indent=1, ensure_ascii=False)
        with replace_file(Path(options.output) / "results.md") as stream:
            stream.write(stored_table(found))
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _tell(result: Any, kept: bool) -> None:
    name = f"{result.task}:{result.query_set}" if result.query_set else result.task
    value = 100 * result.measures[result.primary]
    how = "kept" if kept else f"{len(result.queries)} queries in {result.seconds:.2f} s"
    print(f"{name:24} {result.method:13} {result.primary} {value:5.1f}   {how}", flush=True)


def _print_averages(summary: Any, measure: str) -> None:
    families = summary.families[measure]
    rows = dict(families) | ({"mean of families": summary.overall[measure]["all"]}
                             if len(families) > 1 else {})  # fmt: skip
    print()
    for name, row in rows.items():
        cells = "  ".join(f"{method} {100 * level.value:.1f}" for method, level in row.items())
        print(f"{name:24} {measure}  {cells}")
