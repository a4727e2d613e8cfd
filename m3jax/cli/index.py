"""Build a searchable index of a corpus: texts, vectors, postings, in one directory.

One JSON object a line: "text", optionally "title" (put in front) and "_id". Run the same command
again after a stop: finished shards are kept and nothing is encoded twice.
"""

import argparse
from pathlib import Path

from m3jax.cli.options import add_cls_every, add_model, load_embedder

EXAMPLES = """\
examples:
  m3jax index --model BAAI/bge-m3 --corpus corpus.jsonl.gz --output INDEX
  m3jax index --model DIR --corpus corpus.jsonl --output INDEX --modes dense,sparse
  m3jax index --model DIR --corpus corpus.jsonl --output SMALL --output-dtype int8 --sparse-bits 8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `index`."""
    add_model(parser)
    parser.add_argument("--corpus", required=True, metavar="FILE", help="FILE.jsonl[.gz], or -")
    parser.add_argument("--output", required=True, metavar="INDEX", help="a directory")
    parser.add_argument(
        "--modes",
        default="dense,sparse,multivector",
        help="some of dense,sparse,multivector (default: all three)",
    )
    parser.add_argument(
        "--max-length", type=int, metavar="TOKENS", help="default: 8192 or the model's"
    )
    add_cls_every(parser)
    parser.add_argument("--batch-size", type=int, metavar="ROWS", help="default: by tokens")
    parser.add_argument(
        "--shard-size", type=int, default=8192, metavar="TEXTS", help="default: 8192"
    )
    parser.add_argument(
        "--output-dtype",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="of the stored vectors (default: float32)",
    )
    parser.add_argument(
        "--sparse-bits",
        type=int,
        choices=(8, 32),
        default=32,
        help="of the stored lexical weights (default: 32)",
    )
    parser.add_argument("--query-instruction", default="", help="put in front of queries")
    parser.add_argument("--passage-instruction", default="", help="put in front of documents")


def run(options: argparse.Namespace) -> int:
    """Builds and prints what stands in the index."""
    from m3jax.io.jsonl import read_records
    from m3jax.search.index import build

    if options.corpus != "-" and not Path(options.corpus).is_file():
        raise FileNotFoundError(f"no such file: {options.corpus}")  # before the model is loaded
    embedder = load_embedder(
        options,
        query_instruction=options.query_instruction,
        passage_instruction=options.passage_instruction,
    )
    manifest = build(
        embedder,
        read_records(options.corpus),
        Path(options.output),
        modes=tuple(mode.strip() for mode in options.modes.split(",") if mode.strip()),
        max_length=options.max_length,
        dtype=options.output_dtype,
        shard_size=options.shard_size,
        sparse_bits=options.sparse_bits,
        source="<stdin>" if options.corpus == "-" else options.corpus,
        batch_size=options.batch_size,
        cls_every=options.cls_every,
    )
    print(f"{manifest['documents']} documents by {', '.join(manifest['modes'])}: {options.output}")
    return 0
