"""Flags that several commands share, and what they name."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m3jax.config import ATTENTION
from m3jax.search.options import METHODS, canonical_method


def deprecated_alias(
    parser: argparse._ActionsContainer,
    old: str,
    new: str,
    values: Mapping[str, str] | None = None,
) -> None:
    """Accepts the flag `old` in place of `new`, without listing it in the help.

    Call it after `new` was added. `old` takes the same arguments and sets the same destination;
    a warning on standard error names the new flag. `values` translates renamed choices.
    """
    target = parser._option_string_actions[new]
    names = values or {}
    convert: Any = target.type or str

    class Alias(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            print(f"m3jax: warning: {old} is deprecated, use {new}", file=sys.stderr)
            target.required = False
            target(parser, namespace, values, new)

    def convert_renamed(text: str) -> Any:
        return convert(names.get(text, text))

    convert_renamed.__name__ = getattr(convert, "__name__", "value")  # for argparse's messages
    parser.add_argument(
        old,
        action=Alias,
        dest=target.dest,
        nargs=target.nargs,
        const=target.const,
        default=argparse.SUPPRESS,
        type=convert_renamed,
        choices=target.choices,
        help=argparse.SUPPRESS,
    )


# Flags that several commands share: flag -> arguments of `add_argument`.
FLAGS: dict[str, dict[str, Any]] = {
    "--model": dict(
        metavar="MODEL",
        help="a directory (Hugging Face or m3jax), a bundled name, or a hub name (BAAI/bge-m3)",
    ),
    "--pooling": dict(
        choices=("cls", "mean"), help="pooling of the dense vector (default: the model's, else cls)"
    ),
    "--dtype": dict(
        choices=("float32", "bfloat16"),
        help="dtype of the computation (default: float32 on CPU, bfloat16 on GPU and TPU)",
    ),
    "--attention": dict(
        choices=ATTENTION, default="auto", help="attention back end (default: auto)"
    ),
    "--tokenizer": dict(metavar="MODEL", help="tokenizer of this directory or model"),
    "--max-length": dict(
        type=int, metavar="TOKENS", help="longer texts are truncated (default: 8192 or the model's)"
    ),
    "--cls-every": dict(
        type=int,
        metavar="TOKENS",
        help="MCLS for long texts: a [CLS] before every TOKENS tokens; the dense vector is their "
        "mean (the paper: 256)",
    ),
    "--batch-size": dict(
        type=int, metavar="ROWS", help="texts of a batch (default: by number of tokens)"
    ),
    "--shard-size": dict(
        type=int, default=8192, metavar="TEXTS", help="texts of a shard (default: 8192)"
    ),
    "--storage-dtype": dict(
        choices=("float32", "float16", "int8"),
        default="float32",
        help="dtype of the stored vectors (default: float32)",
    ),
    "--query-instruction": dict(default="", metavar="TEXT", help="prepended to queries"),
    "--passage-instruction": dict(default="", metavar="TEXT", help="prepended to documents"),
    "--weights": dict(
        metavar="D,S,C",
        help="weights of dense,sparse,colbert; or miracl, mkqa, mldr, narrativeqa (default: those "
        "tuned for the model, else 1,0.3,1)",
    ),
    "--skip-bad": dict(
        type=int, default=0, metavar="N", help="skip up to N records that cannot be used"
    ),
    "--format": dict(
        choices=("examples", "texts"),
        default="examples",
        help='records {"query", "pos", "neg"} or, for RetroMAE, {"text"} (default: examples)',
    ),
}
OLD_FLAGS = {"--storage-dtype": "--output-dtype", "--format": "--kind"}


def add_flags(parser: Any, *flags: str, **changes: Any) -> None:
    """Adds flags of `FLAGS`; `changes` replaces arguments of all of them (required, default)."""
    for flag in flags:
        parser.add_argument(flag, **(FLAGS[flag] | changes))
        if flag in OLD_FLAGS:
            deprecated_alias(parser, OLD_FLAGS[flag], flag)


def add_model(parser: Any, required: bool = True) -> None:
    """--model, --pooling, --dtype, --attention."""
    add_flags(parser, "--model", required=required)
    add_flags(parser, "--pooling", "--dtype", "--attention")


def add_method(parser: Any, methods: Sequence[str] = (), **more: Any) -> None:
    """--method: one of `methods`, by default of all."""
    parser.add_argument("--method", type=_method, choices=tuple(methods or METHODS), **more)


def _method(name: str) -> str:
    try:
        return canonical_method(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_weights(text: str | None, method: str):
    """HeadWeights of "1,0.3,1", "1,0.3" or the name of a benchmark; None for None."""
    from m3jax.config import HeadWeights
    from m3jax.search.fuse import PRESETS, preset

    if text is None:
        return None
    if text in PRESETS:
        return preset(text, method)
    try:
        dense, sparse, *rest = map(float, text.split(","))
        (colbert,) = rest or [0.0]
    except ValueError:
        raise ValueError(
            f"--weights needs numbers like 1,0.3,1 (dense,sparse,colbert) or one of "
            f"{', '.join(PRESETS)}, got {text!r}"
        ) from None
    return HeadWeights(dense=dense, sparse=sparse, colbert=colbert)


def format_fusion(fusion: dict[str, Any]) -> str:
    """The fusion weights of a model, in the form that --weights takes."""
    stored = [f"{method} {w.dense:g},{w.sparse:g},{w.colbert:g}" for method, w in fusion.items()]
    return "; ".join(stored)


def open_for_search(options: argparse.Namespace):
    """The index that --index names; with the model of --model, if given."""
    from m3jax.search.index import Index

    index = Index.open(options.index, verify=True if options.verify else None)
    if options.model:
        options.pooling = options.pooling or index.manifest["config"]["pooling"]
        index.use(
            load_embedder(
                options,
                query_instruction=index.manifest["query_instruction"],
                passage_instruction=index.manifest["passage_instruction"],
            )
        )
    return index


def load_embedder(options: argparse.Namespace, **embedder_options: Any):
    """The M3Embedder of the flags that `add_model` adds."""
    from m3jax import sharding
    from m3jax.config import ComputeConfig
    from m3jax.embed.embedder import M3Embedder

    mesh = sharding.make_mesh()
    dtype = options.dtype or sharding.default_dtype(mesh)
    compute = ComputeConfig(dtype=dtype, attention=options.attention)
    return M3Embedder.from_pretrained(
        options.model, mesh=mesh, pooling=options.pooling, compute=compute, **embedder_options
    )


def load_tokenizer(name: str):
    """The tokenizer of a directory or of a model name; the model is not loaded."""
    from m3jax.text import tokenizer

    if Path(name).is_dir():
        return tokenizer.load_tokenizer(name)
    from m3jax import pretrained

    return tokenizer.load_tokenizer(pretrained.resolve(name))
