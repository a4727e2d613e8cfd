"""Score training files with a teacher for distillation: fills pos_scores and neg_scores.

The teacher is a cross-encoder (--teacher: a sentence-transformers directory or a hub name; the
scores are its logits, on a GPU if there is one) or an M3 model (--model, with --method and
--weights). Each distinct pair within 128 examples is scored once. An interrupted run resumes.
"""

import argparse
from pathlib import Path

from m3jax.cli.options import add_flags, add_method, add_model, deprecated_alias
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
    add_flags(parser, "--weights", "--query-instruction", "--passage-instruction")
    add(
        "--max-length",
        type=int,
        default=512,
        metavar="TOKENS",
        help="of a pair, or of a passage with --model (default: 512)",
    )
    add("--batch-size", type=int, metavar="ROWS", help="default: 32 pairs; by tokens with --model")
    add("--device", help="of --teacher, such as cuda:1 (default: a GPU if there is one)")
    add("--with-prompt", action="store_true", help="prefix queries with the record's prompt")
    add("--keep-scores", action="store_true", help="do not score records that have both scores")
    add("--workdir", metavar="DIR", help="finished chunks (default: OUTPUT.work)")
    add_flags(parser, "--skip-bad")
    deprecated_alias(parser, "--work", "--workdir")


def run(options: argparse.Namespace) -> int:
    """Scores, and prints the number of pairs."""
    from m3jax.cli.tables import counting
    from m3jax.data.examples import example_files
    from m3jax.mine.teacher import TeacherOptions, score_teacher

    if (options.teacher is None) == (options.model is None):
        raise ValueError("name one teacher: --teacher for a cross-encoder, or --model for an M3")
    if options.teacher and (options.method or options.weights):
        raise ValueError("--method and --weights are for --model; a cross-encoder has one score")
    # Errors that are known before a model is loaded.
    if Path(options.output).exists():
        raise FileExistsError(
            f"{options.output} already exists; name a new file or remove it first"
        )
    example_files(options.input)
    teacher = TeacherOptions(
        keep_scores=options.keep_scores,
        with_prompt=options.with_prompt,
        skip_bad=options.skip_bad,
    )
    reranker = _reranker(options)
    with counting("examples scored") as progress:
        result = score_teacher(
            options.input,
            options.output,
            reranker,
            teacher,
            workdir=options.workdir,
            progress=progress,
        )
    print(f"{result.pairs:,} pairs of {result.examples:,} examples scored: {options.output}")
    if options.keep_scores:
        print(f"{result.kept:,} examples had scores and keep them")
    return 0


def _reranker(options: argparse.Namespace):
    from m3jax.cli.options import load_embedder, parse_weights
    from m3jax.mine.rerankers import cross_encoder_reranker, m3_reranker

    if options.teacher:
        return cross_encoder_reranker(
            options.teacher,
            max_length=options.max_length,
            batch_size=options.batch_size or 32,
            device=options.device,
            dtype=options.dtype or "float32",
        )
    method = options.method or "all"
    weights = parse_weights(options.weights, method)
    embedder = load_embedder(
        options,
        query_instruction=options.query_instruction,
        passage_instruction=options.passage_instruction,
        batch_size=options.batch_size,
    )
    return m3_reranker(embedder, method, weights, options.max_length)
