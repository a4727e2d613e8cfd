"""Arguments that several commands share."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def deprecated_alias(
    parser: argparse.ArgumentParser,
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


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--model, --pooling, --dtype, --attention."""
    from m3jax.config import ATTENTION

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
        choices=ATTENTION,
        default="auto",
        help="attention back end (default: auto)",
    )


def add_cls_every(parser: Any) -> None:
    """--cls-every: MCLS."""
    parser.add_argument(
        "--cls-every", type=int, metavar="TOKENS",
        help="MCLS for long texts: a [CLS] for every so many tokens, dense is their mean "
        "(the paper: 256)",
    )  # fmt: skip


def parse_weights(text: str | None, method: str):
    """HeadWeights of `1,0.3,1`, of `1,0.3`, or of a benchmark's name; None for None."""
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
            f"--weights needs numbers like 1,0.3,1 (dense,sparse,multi-vector) or one of "
            f"{', '.join(PRESETS)}, got {text!r}"
        ) from None
    return HeadWeights(dense=dense, sparse=sparse, colbert=colbert)


def tell_fusion(fusion: dict[str, Any]) -> str:
    """The weights that a model keeps, as --weights takes them."""
    kept = [f"{method} {w.dense:g},{w.sparse:g},{w.colbert:g}" for method, w in fusion.items()]
    return "; ".join(kept)


def open_for_search(options: argparse.Namespace):
    """The index that --index names, with the model of --model where that is given."""
    from m3jax.search.index import open_index

    index = open_index(options.index, verify=True if options.verify else None)
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


def load_embedder(options: argparse.Namespace, **more: Any):
    """The M3Embedder that the arguments of `add_model` describe."""
    from m3jax import sharding
    from m3jax.config import ComputeConfig
    from m3jax.embed.embedder import M3Embedder

    mesh = sharding.make_mesh()
    dtype = options.dtype or sharding.default_dtype(mesh)
    compute = ComputeConfig(dtype=dtype, attention=options.attention)
    return M3Embedder.from_pretrained(
        options.model, mesh=mesh, pooling=options.pooling, compute=compute, **more
    )


def load_tokenizer(name: str):
    """The tokenizer of a directory, without its model, or of what else --model would take."""
    from m3jax.text import tokenizer

    if Path(name).is_dir():
        return tokenizer.load(name)
    from m3jax import pretrained

    return tokenizer.load(pretrained.resolve(name))


def add_format(parser: argparse.ArgumentParser) -> None:
    """--format: the form of the records."""
    parser.add_argument(
        "--format",
        choices=("examples", "texts"),
        default="examples",
        help='records {"query", "pos", "neg"} or, for RetroMAE, {"text"} (default: examples)',
    )
    deprecated_alias(parser, "--kind", "--format")
