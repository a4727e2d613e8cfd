"""Mine hard negatives for training files: what a model ranks high for a query and is not right.

The pool is --corpus, or every passage of the training files. Each query is searched by --method;
hits within --range are candidates (10-210: the first 10 are passed over, the next 200 count), and
with --max-share or --margin only those that score enough below the query's positive. A share has
no meaning for scores below 0, which dense cosines can be; there a negative must score below the
positive itself. Positives of the query here or elsewhere in the files, the query itself, and near
duplicates of its positives are dropped. All other fields stay; neg_scores, which would no longer
fit, is left out. Run again after a stop, it goes on; run with a later --model and the same --work,
it makes that model's index beside the earlier one.
"""

import argparse

from m3jax.cli.options import add_method, add_model

EXAMPLES = """\
examples:
  m3jax mine --model BAAI/bge-m3 --input train.jsonl --output mined.jsonl.gz
  m3jax mine --model DIR --input 'qa_*.jsonl.gz' --output mined.jsonl.gz --same-language \\
      --small-pools --report report.json --plot scores.png
  m3jax mine --model run/model --input train.jsonl --corpus corpus.jsonl.gz --output mined2.jsonl \\
      --method all --range 0-100 --max-share 0.95 --work WORK
  m3jax mine --method bm25 --input train.jsonl --output mined.jsonl --range 2-50 --negatives 7
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mine`."""
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="files, directories, globs")
    add("--output", required=True, metavar="FILE.jsonl[.gz|.zst]", help="a new file")
    add_model(parser, required=False)
    add("--corpus", nargs="+", metavar="PATH", help='the pool: {"_id", "title", "text", "lang"?}')
    add_method(parser, default="dense", help="default: dense")
    add("--weights", metavar="D,S,M", help="of dense+sparse and all (default: the model's)")
    add("--bm25-terms", choices=("words", "tokens"), default="words",
        help="tokens are those of --model (default: words)")  # fmt: skip
    add("--negatives", type=int, default=15, metavar="N", help="a query (default: 15)")
    add("--range", default="10-210", metavar="A-B", help="ranks A+1 to B (default: 10-210)")
    add("--max-share", type=float, metavar="SHARE",
        help="below this share of the positive's score, such as 0.95")  # fmt: skip
    add("--margin", type=float, metavar="SCORE", help="this much below the positive's score")
    add("--pick", choices=("sample", "top"), default="sample",
        help="at random, or the highest scores (default: sample)")  # fmt: skip
    add("--near-duplicates", type=float, default=0.8, metavar="JACCARD",
        help="similarity to a positive that drops a passage; 0: off (default: 0.8)")  # fmt: skip
    add("--exclude", metavar="QRELS",
        help="further right passages, as `query passage grade`: ids of examples, and of the "
        "corpus or, without one, of the examples whose positives they are")  # fmt: skip
    add("--same-language", action="store_true",
        help="negatives in the language of the positives (pos_lang, else lang)")  # fmt: skip
    add("--small-pools", action="store_true", help="let a pool be smaller than the range")
    add("--keep-negatives", action="store_true", help="mined ones come after the record's own")
    add("--passage-length", type=int, metavar="TOKENS", help="cut passages, to save time")
    add("--query-instruction", default="", help="put in front of queries")
    add("--passage-instruction", default="", help="put in front of passages")
    add("--batch-size", type=int, metavar="ROWS", help="default: by tokens")
    add("--work", metavar="DIR", help="indexes and finished chunks (default: OUTPUT.work)")
    add("--report", metavar="JSON", help="what was taken and dropped")
    add("--plot", metavar="PNG", help="histograms of scores")
    add("--seed", type=int, default=0, help="of the sample (default: 0)")
    add("--skip-bad", type=int, default=0, metavar="N", help="leave out up to N bad records")


def run(options: argparse.Namespace) -> int:
    """Mines; prints what was dropped and the mean scores."""
    from pathlib import Path

    from m3jax.cli.options import parse_weights
    from m3jax.cli.tables import counting
    from m3jax.io.trec import read_qrels
    from m3jax.mine import report
    from m3jax.mine.negatives import mine
    from m3jax.mine.retrieve import Retrieval
    from m3jax.mine.selection import Rules

    rules = Rules(
        negatives=options.negatives, max_share=options.max_share, margin=options.margin,
        near_duplicates=options.near_duplicates, pick=options.pick, seed=options.seed,
        **parse_range(options.range),
    )  # fmt: skip
    _check_paths(options)
    retrieval = Retrieval(
        embedder=_embedder(options), method=options.method,
        weights=parse_weights(options.weights, options.method), bm25_terms=options.bm25_terms,
        passage_length=options.passage_length, batch_size=options.batch_size,
    )  # fmt: skip
    work = Path(options.work or f"{options.output}.work")
    with counting("queries mined") as tell:
        mined = mine(
            options.input, Path(options.output), retrieval, rules, work, corpus=options.corpus,
            same_language=options.same_language, small_pools=options.small_pools,
            keep=options.keep_negatives, skip_bad=options.skip_bad, tell=tell,
            exclude=read_qrels(options.exclude) if options.exclude else None,
        )  # fmt: skip
    summary = report.summary(mined, retrieval, rules)
    if options.report:
        report.write_json(Path(options.report), summary)
    if options.plot:
        report.draw(Path(options.plot), mined, f"{options.method}, ranks {options.range}")
    _print(summary, options, work)
    return 0


def parse_range(text: str) -> dict[str, int]:
    """`10-210` as the first and last rank; ValueError for anything else."""
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise ValueError(f"--range needs two numbers like 10-210, got {text!r}")
    return {"first": int(first), "last": int(last)}


def _check_paths(options: argparse.Namespace) -> None:
    """What can be known to fail before a model is loaded."""
    from pathlib import Path

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
        options, query_instruction=options.query_instruction,
        passage_instruction=options.passage_instruction,
    )  # fmt: skip


def _print(summary: dict, options: argparse.Namespace, work) -> None:
    for reason, count in summary["dropped"].items():
        print(f"{count:>12,}  dropped: {reason}")
    for kind, row in summary["scores"].items():
        print(f"{row['mean']:>12.4f}  mean score of {kind} passages")
    print(
        f"{summary['negatives']:>12,}  negatives for {summary['queries']:,} queries, "
        f"{summary['queries_with_fewer_than_asked']:,} of them with fewer than "
        f"{options.negatives}: {options.output}"
    )
    print(f"indexes are kept in {work}; another run finds them with --work {work}")
