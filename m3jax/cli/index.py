"""Build a searchable index of a corpus: texts, vectors and postings in one directory.

One JSON object per line: "text", optionally "title" (prepended) and "_id". After an interruption,
run the same command again: finished shards are kept.
"""

import argparse
from pathlib import Path

from m3jax.cli.options import add_flags, add_model, load_embedder

EXAMPLES = """\
examples:
  m3jax index --model BAAI/bge-m3 --corpus corpus.jsonl.gz --output INDEX
  m3jax index --model DIR --corpus corpus.jsonl --output INDEX --modes dense,sparse
  m3jax index --model DIR --corpus corpus.jsonl --output SMALL \\
      --storage-dtype int8 --sparse-bits 8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `index`."""
    add_model(parser)
    parser.add_argument("--corpus", required=True, metavar="FILE", help="FILE.jsonl[.gz], or -")
    parser.add_argument("--output", required=True, metavar="INDEX", help="a directory")
    parser.add_argument(
        "--modes",
        default="dense,sparse,colbert",
        help="some of dense,sparse,colbert (default: all three)",
    )
    add_flags(parser, "--max-length", "--cls-every", "--batch-size", "--shard-size")
    add_flags(parser, "--storage-dtype")
    parser.add_argument(
        "--sparse-bits",
        type=int,
        choices=(8, 32),
        default=32,
        help="bits of the stored lexical weights (default: 32)",
    )
    add_flags(parser, "--query-instruction", "--passage-instruction")


def run(options: argparse.Namespace) -> int:
    """Builds the index, and prints what it holds."""
    from m3jax.io.jsonl import read_records
    from m3jax.search.build import IndexOptions, build_index

    if options.corpus != "-" and not Path(options.corpus).is_file():
        raise FileNotFoundError(f"no such file: {options.corpus}")  # before the model is loaded
    embedder = load_embedder(
        options,
        query_instruction=options.query_instruction,
        passage_instruction=options.passage_instruction,
    )
    index_options = IndexOptions(
        modes=tuple(mode.strip() for mode in options.modes.split(",") if mode.strip()),
        max_length=options.max_length,
        dtype=options.storage_dtype,
        shard_size=options.shard_size,
        sparse_bits=options.sparse_bits,
        batch_size=options.batch_size,
        cls_every=options.cls_every,
    )
    source = "<stdin>" if options.corpus == "-" else options.corpus
    records = read_records(options.corpus)
    manifest = build_index(embedder, records, Path(options.output), index_options, source=source)
    print(f"{manifest['documents']} documents by {', '.join(manifest['modes'])}: {options.output}")
    return 0
