"""Mine hard negatives for training files: passages ranked high for a query but not relevant to it.

The pool is --corpus, or all passages of the training files. Each query is searched by --method; its
hits within --range are candidates (10-210: the first 10 are skipped, the next 200 are candidates).
With --max-positive-ratio or --margin a candidate must also score that far below the query's lowest
positive. The ratio is undefined for scores below 0, which dense cosines can be; there a candidate
must score below the positive itself. Positives of the query in any record, the query itself and
near duplicates of its positives are never mined. All other fields of a record stay; neg_scores,
which no longer fit, are removed. An interrupted run resumes. A later run with the same --workdir
and another --model adds that model's index beside the earlier one.
"""

import argparse
from pathlib import Path
from typing import Any

from m3jax.cli.options import add_flags, add_method, add_model, deprecated_alias

EXAMPLES = """\
examples:
  m3jax mine --model BAAI/bge-m3 --input train.jsonl --output mined.jsonl.gz
  m3jax mine --model DIR --input 'qa_*.jsonl.gz' --output mined.jsonl.gz --same-language \\
      --allow-small-pool --report report.json --plot scores.png
  m3jax mine --model run/model --input train.jsonl --corpus corpus.jsonl.gz --output mined2.jsonl \\
      --method all --range 0-100 --max-positive-ratio 0.95 --workdir WORK
  m3jax mine --method bm25 --input train.jsonl --output mined.jsonl --range 2-50 --negatives 7
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mine`."""
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="files, directories, globs")
    add("--output", required=True, metavar="FILE.jsonl[.gz|.zst]", help="a new file")
    add("--workdir", metavar="DIR", help="indexes and finished chunks (default: OUTPUT.work)")
    add("--report", metavar="JSON", help="counts of negatives and of dropped passages, scores")
    add("--plot", metavar="PNG", help="histograms of scores")
    add_flags(parser, "--skip-bad")
    add_model(parser, required=False)
    _add_retrieval(parser.add_argument_group("retrieval"))
    _add_selection(parser.add_argument_group("selection"))
    deprecated_alias(parser, "--work", "--workdir")
    deprecated_alias(parser, "--max-share", "--max-positive-ratio")
    deprecated_alias(parser, "--small-pools", "--allow-small-pool")
    deprecated_alias(parser, "--pick", "--sampling", {"sample": "random"})


def _add_retrieval(group: Any) -> None:
    add = group.add_argument
    add(
        "--corpus",
        nargs="+",
        metavar="PATH",
        help='the pool: {"_id", "title", "text", "lang"?} (default: all passages of --input)',
    )
    add_method(group, default="dense", help="default: dense")
    add_flags(group, "--weights")
    add(
        "--bm25-terms",
        choices=("words", "tokens"),
        default="words",
        help="tokens: those of --model (default: words)",
    )
    add("--passage-length", type=int, metavar="TOKENS", help="truncate passages, which is faster")
    add_flags(group, "--query-instruction", "--passage-instruction", "--batch-size")
    add(
        "--same-language",
        action="store_true",
        help="negatives in the language of the positives (pos_lang, else lang)",
    )
    add(
        "--allow-small-pool",
        action="store_true",
        help="accept a pool with fewer passages than --range needs",
    )


def _add_selection(group: Any) -> None:
    add = group.add_argument
    add("--negatives", type=int, default=15, metavar="N", help="per query (default: 15)")
    add("--range", default="10-210", metavar="A-B", help="ranks A+1 to B (default: 10-210)")
    add(
        "--max-positive-ratio",
        type=float,
        metavar="RATIO",
        help="score below this ratio of the positive's score, such as 0.95",
    )
    add("--margin", type=float, metavar="SCORE", help="score this far below the positive's score")
    add(
        "--sampling",
        choices=("random", "top"),
        default="random",
        help="a random sample of the candidates, or the highest scores (default: random)",
    )
    add("--seed", type=int, default=0, help="of the random sample (default: 0)")
    add(
        "--near-duplicates",
        type=float,
        default=0.8,
        metavar="JACCARD",
        help="similarity to a positive that drops a passage; 0: off (default: 0.8)",
    )
    add(
        "--exclude",
        metavar="QRELS",
        help="further relevant passages, as `query passage grade`: ids of examples, and of the "
        "corpus or, without one, of the examples whose positives they are",
    )
    add(
        "--keep-negatives",
        action="store_true",
        help="keep the record's negatives, in front of the mined ones",
    )


def run(options: argparse.Namespace) -> int:
    """Mines; prints what was dropped and the mean scores."""
    from m3jax.cli.tables import counting
    from m3jax.mine import report
    from m3jax.mine.negatives import mine_negatives

    mining = _mining_options(options)
    _check_paths(options)
    embedder = _embedder(options)
    workdir = Path(options.workdir or f"{options.output}.work")
    with counting("queries mined") as progress:
        result = mine_negatives(
            options.input,
            options.output,
            embedder,
            mining,
            workdir=workdir,
            progress=progress,
        )
    summary = report.summarize(result, mining, embedder)
    if options.report:
        report.write_report(Path(options.report), summary)
    if options.plot:
        title = f"{options.method}, ranks {options.range}"
        report.plot_scores(Path(options.plot), result, title)
    _print(summary, options, workdir)
    return 0


def _mining_options(options: argparse.Namespace):
    from m3jax.cli.options import parse_weights
    from m3jax.io.trec import read_qrels
    from m3jax.mine.options import MiningOptions

    first, last = parse_range(options.range)
    return MiningOptions(
        method=options.method,
        weights=parse_weights(options.weights, options.method),
        bm25_terms=options.bm25_terms,
        passage_length=options.passage_length,
        batch_size=options.batch_size,
        corpus=options.corpus,
        exclude=read_qrels(options.exclude) if options.exclude else None,
        same_language=options.same_language,
        allow_small_pool=options.allow_small_pool,
        negatives=options.negatives,
        first=first,
        last=last,
        max_positive_ratio=options.max_positive_ratio,
        margin=options.margin,
        near_duplicates=options.near_duplicates,
        sampling=options.sampling,
        seed=options.seed,
        keep_negatives=options.keep_negatives,
        skip_bad=options.skip_bad,
    )


def parse_range(text: str) -> tuple[int, int]:
    """(10, 210) of `10-210`; ValueError for anything else."""
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise ValueError(f"--range needs two numbers like 10-210, got {text!r}")
    return int(first), int(last)


def _check_paths(options: argparse.Namespace) -> None:
    """Errors that are known before a model is loaded."""
    from m3jax.data.examples import example_files
    from m3jax.mine.report import require_matplotlib

    for path in (options.output, options.report, options.plot):
        if path and Path(path).exists():
            raise FileExistsError(f"{path} already exists; name a new file or remove it first")
    for paths in (options.input, options.corpus):
        if paths:
            example_files(paths)
    if options.plot:
        require_matplotlib()


def _embedder(options: argparse.Namespace):
    from m3jax.cli.options import load_embedder

    if options.model is None:
        return None
    return load_embedder(
        options,
        query_instruction=options.query_instruction,
        passage_instruction=options.passage_instruction,
    )


def _print(summary: dict[str, Any], options: argparse.Namespace, workdir: Path) -> None:
    for reason, count in summary["dropped"].items():
        print(f"{count:>12,}  dropped: {reason}")
    for group, row in summary["scores"].items():
        print(f"{row['mean']:>12.4f}  mean score of {group} passages")
    print(
        f"{summary['negatives']:>12,}  negatives for {summary['queries']:,} queries, "
        f"{summary['queries_with_fewer_than_asked']:,} of them with fewer than "
        f"{options.negatives}: {options.output}"
    )
    print(f"the indexes are in {workdir}; reuse them with --workdir {workdir}")
