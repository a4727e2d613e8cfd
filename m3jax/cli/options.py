"""Arguments that several commands share."""

import argparse
from pathlib import Path
from typing import Any


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--model, --pooling, --dtype, --attention."""
    parser.add_argument(
        "--model",
        required=required,
        metavar="MODEL",
        help="a directory (Hugging Face or m3jax), a bundled name, or a hub name (BAAI/bge-m3)",
    )
    parser.add_argument(
        "--pooling",
        choices=("cls", "mean"),
        help="how the dense vector is read (default: what the model says, else cls)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the computation (default: float32 on CPU, bfloat16 on GPU and TPU)",
    )
    parser.add_argument(
        "--attention",
        choices=("auto", "xla", "cudnn"),
        default="auto",
        help="attention back end (default: auto)",
    )


def load_embedder(options: argparse.Namespace, **more: Any):
    """The M3Embedder that the arguments of `add_model` describe."""
    import jax

    from m3jax.config import ComputeConfig
    from m3jax.search.embedder import M3Embedder

    dtype = options.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    compute = ComputeConfig(dtype=dtype, attention=options.attention)
    return M3Embedder.from_pretrained(
        options.model, pooling=options.pooling, compute=compute, **more
    )


def load_tokenizer(name: str):
    """The tokenizer of a directory, without its model, or of what else --model would take."""
    from m3jax.text import tokenizer

    if Path(name).is_dir():
        return tokenizer.load(name)
    from m3jax import pretrained

    return tokenizer.load(pretrained.resolve(name))


def add_kind(parser: argparse.ArgumentParser) -> None:
    """--kind: what a record is."""
    parser.add_argument(
        "--kind",
        choices=("examples", "texts"),
        default="examples",
        help='{"query", "pos", "neg"} or, for RetroMAE, {"text"} (default: examples)',
    )
