"""Explain how well passages match a query: three scores, their weighted sum, the shared tokens.

The weighted sum is w1*dense + w2*sparse + w3*multi-vector; 1, 0.3, 1 are the paper's weights.
"""

import argparse

from m3jax.cli.options import add_model, load_embedder

EXAMPLES = """\
examples:
  m3jax score --model BAAI/bge-m3 --query "What is BGE-M3?" --passage "BGE-M3 embeds texts." \\
      --passage "BM25 ranks by words."
  m3jax score --model DIR --query "..." --passage "..." --weights 1,1,1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `score`."""
    add_model(parser)
    parser.add_argument("--query", required=True, help="the text to search with")
    parser.add_argument(
        "--passage", required=True, action="append", help="a text to match; may be repeated"
    )
    parser.add_argument(
        "--weights", default="1,0.3,1", metavar="D,S,M", help="dense,sparse,multi-vector"
    )
    parser.add_argument("--tokens", type=int, default=6, help="matched tokens shown (default: 6)")


def run(options: argparse.Namespace) -> int:
    """Prints a table, best passage first."""
    from rich.table import Table

    from m3jax.cli.tables import matched_tokens, wide_console
    from m3jax.search.scan import scan, top

    fusion = _weights(options.weights)
    model = load_embedder(options)
    query = next(model.encode_stream([options.query], max_length=model.query_max_length))
    passages = next(model.encode_stream(options.passage, chunk=len(options.passage)))
    scores = scan(query, passages, fusion)
    table = Table(
        "passage", "dense", "sparse", "multi-vector", "weighted sum", "matched tokens",
        title=f"query: {options.query}", title_justify="left",
    )  # fmt: skip
    for number in top(scores["all"][0], len(options.passage)):
        numbers = [f"{scores[m][0, number]:.4f}" for m in ("dense", "sparse", "colbert", "all")]
        shared = matched_tokens(model.tokenizer, query, passages, number, options.tokens)
        table.add_row(options.passage[number], *numbers, shared)
    wide_console().print(table)
    return 0


def _weights(text: str) -> dict[str, float]:
    try:
        dense, sparse, colbert = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"--weights needs three numbers like 1,0.3,1, got {text!r}") from None
    return {"dense": dense, "sparse": sparse, "colbert": colbert}
