"""Score training files with a teacher, to distil from: fills pos_scores and neg_scores.

The teacher is a cross-encoder (--teacher: a sentence-transformers directory, or a hub name; its
logits, on a GPU where there is one) or an M3's own score (--model, with --method and --weights).
Each distinct pair of 128 examples is scored once. Run again after a stop, it goes on.
"""

import argparse

from m3jax.cli.options import add_method, add_model
from m3jax.search.options import METHODS

EXAMPLES = """\
examples:
  m3jax score-teacher --teacher BAAI/bge-reranker-v2-m3 --input mined.jsonl.gz --output t.jsonl.gz
  m3jax score-teacher --model BAAI/bge-m3 --method all --weights 1,0.3,1 --input mined.jsonl \\
      --output scored.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `score-teacher`."""
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="files, directories, globs")
    add("--output", required=True, metavar="FILE.jsonl[.gz|.zst]", help="a new file")
    add("--teacher", metavar="DIR", help="a cross-encoder with one output")
    add_model(parser, required=False)
    add_method(parser, methods=list(METHODS)[1:], help="of --model (default: all)")
    add("--weights", metavar="D,S,M", help="of dense+sparse and all (default: the model's)")
    add("--query-instruction", default="", help="of --model, in front of queries")
    add("--passage-instruction", default="", help="of --model, in front of passages")
    add("--max-length", type=int, default=512, metavar="TOKENS",
        help="of a pair, or of a passage with --model (default: 512)")  # fmt: skip
    add("--batch-size", type=int, metavar="ROWS", help="default: 32 pairs; by tokens with --model")
    add("--device", help="of --teacher, such as cuda:1 (default: a GPU where there is one)")
    add("--with-prompt", action="store_true", help="put the records' prompt in front of queries")
    add("--keep-scores", action="store_true", help="leave records that have both scores")
    add("--work", metavar="DIR", help="finished chunks (default: OUTPUT.work)")
    add("--skip-bad", type=int, default=0, metavar="N", help="leave out up to N bad records")


def run(options: argparse.Namespace) -> int:
    """Scores, and says how much."""
    from pathlib import Path

    from m3jax.cli.tables import counting
    from m3jax.data.examples import example_files
    from m3jax.mine.teacher import score_teacher

    if (options.teacher is None) == (options.model is None):
        raise ValueError("name one teacher: --teacher for a cross-encoder, or --model for an M3")
    if options.teacher and (options.method or options.weights):
        raise ValueError("--method and --weights are for --model; a cross-encoder has one score")
    if Path(options.output).exists():
        raise FileExistsError(
            f"{options.output} already exists; name a new file or remove it first"
        )
    example_files(options.input)
    reranker = _reranker(options)
    work = Path(options.work or f"{options.output}.work")
    with counting("examples scored") as tell:
        done = score_teacher(
            options.input, Path(options.output), reranker, work, keep=options.keep_scores,
            with_prompt=options.with_prompt, skip_bad=options.skip_bad, tell=tell,
        )  # fmt: skip
    print(f"{done.pairs:,} pairs of {done.examples:,} examples scored: {options.output}")
    if options.keep_scores:
        print(f"{done.kept:,} examples had scores and keep them")
    return 0


def _reranker(options: argparse.Namespace):
    from m3jax.cli.options import load_embedder, parse_weights
    from m3jax.mine.rerankers import cross_encoder, m3

    if options.teacher:
        return cross_encoder(
            options.teacher, max_length=options.max_length, batch_size=options.batch_size or 32,
            device=options.device, dtype=options.dtype or "float32",
        )  # fmt: skip
    method = options.method or "all"
    weights = parse_weights(options.weights, method)
    embedder = load_embedder(
        options, query_instruction=options.query_instruction,
        passage_instruction=options.passage_instruction, batch_size=options.batch_size,
    )  # fmt: skip
    return m3(embedder, method, weights, options.max_length)
