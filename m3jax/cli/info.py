"""Describe a directory or a name: a model, embeddings, an index, or training data."""

import argparse
import json
from pathlib import Path
from typing import Any

EXAMPLES = """\
examples:
  m3jax info BAAI/bge-m3
  m3jax info INDEX
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL."""
    parser.add_argument(
        "model", metavar="MODEL", help="a model, or a directory that another command wrote"
    )


def run(options: argparse.Namespace) -> int:
    """Prints a table."""
    from rich.table import Table

    from m3jax.cli.tables import wide_console

    table = Table("field", "value", title=options.model, title_justify="left")
    for name, value in _rows(options.model).items():
        table.add_row(name, str(value))
    wide_console().print(table)
    return 0


def _rows(name: str) -> dict[str, Any]:
    from m3jax.data import build
    from m3jax.embed import corpus
    from m3jax.search import index

    if (Path(name) / index.MANIFEST).is_file():
        return _plain(index.read_manifest(Path(name)))
    if (Path(name) / build.METADATA).is_file():
        examples = build.open_examples(Path(name))
        return {
            "records": examples.record_format,
            "examples": len(examples),
            "texts": len(examples.lengths),
            "tokens": f"{int(examples.lengths.sum()):,}",
            "longest text (tokens)": int(examples.lengths.max(initial=0)),
            "sources": ", ".join(examples.sources),
            "tokenizer": examples.tokenizer,
        }
    if (Path(name) / corpus.MANIFEST).is_file():
        manifest = corpus.read_manifest(Path(name))
        texts = sum(shard["texts"] for shard in manifest["shards"])
        return manifest | {"shards": len(manifest["shards"]), "texts": texts}
    return _model_rows(name)


def _plain(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without the digests of its files."""
    return {name: value for name, value in manifest.items() if name != "files"}


def _model_rows(name: str) -> dict[str, Any]:
    from m3jax import pretrained
    from m3jax.cli.options import format_fusion
    from m3jax.io.fields import to_json
    from m3jax.model.families import family_of
    from m3jax.sharding import flatten

    model = pretrained.load(name)
    flat = flatten(model.params)
    encoder = to_json(model.config.encoder)
    rest = {k: v for k, v in to_json(model.config).items() if k != "encoder"}
    total = sum(leaf.size for leaf in flat.values())
    embedding = flat[family_of(model.config.encoder).table("v")].size
    return {
        **encoder,
        **rest,
        "longest text (tokens)": model.config.encoder.max_length,
        "parameters": f"{total:,}",
        "of these outside the word embedding": f"{total - embedding:,}",
        "tokenizer ids": model.tokenizer.vocab_size,
        "fingerprint": pretrained.fingerprint(model.params, model.config),
        "weights of the hybrid": format_fusion(model.fusion) or "the paper's",
        "notes": "none" if model.heads_trained else pretrained.UNTRAINED_HEADS,
        "directory": json.dumps(str(pretrained.resolve(name))),
    }
