"""Explain how well passages match a query: three scores, their weighted sum, the shared tokens.

The weighted sum is w1*dense + w2*sparse + w3*colbert. The weights are those tuned for the model, or
the paper's 1, 0.3, 1.
"""

import argparse
import dataclasses
from pathlib import Path

from m3jax.cli.options import add_flags, add_model, load_embedder, parse_weights

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
    add_flags(parser, "--weights")
    parser.add_argument(
        "--tokens", type=int, default=6, help="number of matched tokens to print (default: 6)"
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="also write an HTML page with tokens coloured by weight and match",
    )


def run(options: argparse.Namespace) -> int:
    """Prints a table, best passage first; writes the page of --html."""
    from rich.markup import escape
    from rich.table import Table

    from m3jax.cli.tables import format_matches, wide_console
    from m3jax.explain.alignment import METHODS, explain_passages

    weights = parse_weights(options.weights, "all")
    if options.html and Path(options.html).exists():
        raise FileExistsError(f"{options.html} already exists; name a new file or remove it first")
    model = load_embedder(options)
    fusion = dataclasses.asdict(weights or model.fusion("all"))
    explanations = explain_passages(model, options.query, options.passage, fusion)
    explanations.sort(key=lambda each: -each.scores["all"])
    columns = ("passage", "dense", "sparse", "multi-vector", "weighted sum", "matched tokens")
    table = Table(*columns, title=escape(f"query: {options.query}"), title_justify="left")
    for each in explanations:
        numbers = [f"{each.scores[method]:.4f}" for method in METHODS]
        shared = format_matches(each.matches[: options.tokens])
        table.add_row(escape(each.passage.text), *numbers, escape(shared))
    wide_console().print(table)
    if options.html:
        _write_page(options.html, explanations, fusion)
    return 0


def _write_page(path: str, explanations: list, fusion: dict[str, float]) -> None:
    from m3jax.explain.html import explanation_page
    from m3jax.io.atomic import new_file

    with new_file(path) as write:
        write(explanation_page(explanations, fusion))
    print(f"wrote {path}")
