"""Explain how well passages match a query: three scores, their weighted sum, the shared tokens.

The weighted sum is w1*dense + w2*sparse + w3*multi-vector, under the weights that the model keeps,
or the paper's 1, 0.3, 1.
"""

import argparse
import dataclasses
from pathlib import Path

from m3jax.cli.options import add_model, load_embedder, parse_weights

EXAMPLES = """\
examples:
  m3jax score --model BAAI/bge-m3 --query "What is BGE-M3?" --passage "BGE-M3 embeds texts." \\
      --passage "BM25 ranks by words."
  m3jax score --model DIR --query "..." --passage "..." --weights 1,1,1
  m3jax score --model DIR --query "..." --passage "..." --html why.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `score`."""
    add_model(parser)
    parser.add_argument("--query", required=True, help="the text to search with")
    parser.add_argument(
        "--passage", required=True, action="append", help="a text to match; may be repeated"
    )
    parser.add_argument(
        "--weights",
        metavar="D,S,M",
        help="dense,sparse,multi-vector, or miracl, mkqa, mldr, narrativeqa (default: those that "
        "the model keeps, else 1,0.3,1)",
    )
    parser.add_argument("--tokens", type=int, default=6, help="matched tokens shown (default: 6)")
    parser.add_argument(
        "--html", metavar="FILE", help="also write a page: tokens coloured by weight and by match"
    )


def run(options: argparse.Namespace) -> int:
    """Prints a table, best passage first; writes the page that --html names."""
    from rich.markup import escape
    from rich.table import Table

    from m3jax.cli.tables import spelt_matches, wide_console
    from m3jax.explain.alignment import METHODS, explain_passages

    weights = parse_weights(options.weights, "all")
    if options.html and Path(options.html).exists():
        raise FileExistsError(f"{options.html} already exists; name a new file or remove it first")
    model = load_embedder(options)
    fusion = dataclasses.asdict(weights or model.fusion("all"))
    found = explain_passages(model, options.query, options.passage, fusion)
    found.sort(key=lambda one: -one.scores["all"])
    table = Table(
        "passage", "dense", "sparse", "multi-vector", "weighted sum", "matched tokens",
        title=escape(f"query: {options.query}"), title_justify="left",
    )  # fmt: skip
    for one in found:
        numbers = [f"{one.scores[method]:.4f}" for method in METHODS]
        shared = spelt_matches(one.matches[: options.tokens])
        table.add_row(escape(one.passage.text), *numbers, escape(shared))
    wide_console().print(table)
    if options.html:
        _write_page(options.html, found, fusion)
    return 0


def _write_page(path: str, found: list, fusion: dict[str, float]) -> None:
    from m3jax.explain.html import explanation_page
    from m3jax.io.atomic import new_file

    with new_file(path) as write:
        write(explanation_page(found, fusion))
    print(f"wrote {path}")
