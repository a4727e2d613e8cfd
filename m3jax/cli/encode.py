"""Turn a JSON Lines file into embeddings on disk: in shards, with a manifest, resumable.

One JSON object a line: "text", optionally "title" (put in front) and "_id". Run the same command
again after a stop: finished shards are kept and nothing is encoded twice.
"""

import argparse
from pathlib import Path

from m3jax.cli.options import add_cls_every, add_model, load_embedder

EXAMPLES = """\
examples:
  m3jax encode --model BAAI/bge-m3 --input corpus.jsonl.gz --output embeddings
  cat corpus.jsonl | m3jax encode --model DIR --input - --output embeddings --modes dense,sparse
  m3jax encode --model DIR --input long.jsonl --output embeddings --output-dtype int8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `encode`."""
    add_model(parser)
    parser.add_argument("--input", required=True, metavar="FILE", help="FILE.jsonl[.gz], or -")
    parser.add_argument("--output", required=True, metavar="DIR", help="a directory")
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


def run(options: argparse.Namespace) -> int:
    """Encodes and prints how many texts stand in how many shards."""
    from m3jax.embed.corpus import encode_corpus
    from m3jax.io.jsonl import read_records

    if options.input != "-" and not Path(options.input).is_file():
        raise FileNotFoundError(f"no such file: {options.input}")  # before the model is loaded
    manifest = encode_corpus(
        load_embedder(options),
        read_records(options.input),
        Path(options.output),
        modes=tuple(mode.strip() for mode in options.modes.split(",") if mode.strip()),
        max_length=options.max_length,
        dtype=options.output_dtype,
        shard_size=options.shard_size,
        source=options.input,
        batch_size=options.batch_size,
        cls_every=options.cls_every,
    )
    texts = sum(shard["texts"] for shard in manifest["shards"])
    print(f"{texts} texts in {len(manifest['shards'])} shards: {options.output}")
    return 0
