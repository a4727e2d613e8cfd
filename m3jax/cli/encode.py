"""Encode a JSON Lines file: embeddings on disk, in shards, with a manifest; resumable.

One JSON object per line: "text", optionally "title" (prepended) and "_id". After an interruption,
run the same command again: finished shards are kept.
"""

import argparse
from pathlib import Path

from m3jax.cli.options import add_flags, add_model, load_embedder

EXAMPLES = """\
examples:
  m3jax encode --model BAAI/bge-m3 --input corpus.jsonl.gz --output embeddings
  cat corpus.jsonl | m3jax encode --model DIR --input - --output embeddings --modes dense,sparse
  m3jax encode --model DIR --input long.jsonl --output embeddings --storage-dtype int8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `encode`."""
    add_model(parser)
    parser.add_argument("--input", required=True, metavar="FILE", help="FILE.jsonl[.gz], or -")
    parser.add_argument("--output", required=True, metavar="DIR", help="a directory")
    parser.add_argument(
        "--modes",
        default="dense,sparse,colbert",
        help="some of dense,sparse,colbert (default: all three)",
    )
    add_flags(parser, "--max-length", "--cls-every", "--batch-size", "--shard-size")
    add_flags(parser, "--storage-dtype")


def run(options: argparse.Namespace) -> int:
    """Encodes, and prints the number of texts and shards."""
    from m3jax.embed.corpus import CorpusOptions, encode_corpus
    from m3jax.io.jsonl import read_records

    if options.input != "-" and not Path(options.input).is_file():
        raise FileNotFoundError(f"no such file: {options.input}")  # before the model is loaded
    manifest = encode_corpus(
        load_embedder(options),
        read_records(options.input),
        Path(options.output),
        CorpusOptions(
            modes=tuple(mode.strip() for mode in options.modes.split(",") if mode.strip()),
            max_length=options.max_length,
            dtype=options.storage_dtype,
            shard_size=options.shard_size,
            batch_size=options.batch_size,
            cls_every=options.cls_every,
        ),
        source=options.input,
    )
    texts = sum(shard["texts"] for shard in manifest["shards"])
    print(f"{texts} texts in {len(manifest['shards'])} shards: {options.output}")
    return 0
