"""Search an index: one query on the screen, or a file of queries into a TREC run.

dense and sparse search all documents; colbert re-ranks the dense top 200; dense+sparse scores the
union of both top 1,000; all adds the three over the dense top 200; bm25 needs no model vectors.
Documents with equal scores are in the order of the corpus.
"""

import argparse
from pathlib import Path
from typing import Any

from m3jax.cli.options import add_method, add_model, open_for_search, parse_weights
from m3jax.search.options import ENGINE_NAMES, FUSIONS

EXAMPLES = """\
examples:
  m3jax search --index INDEX --query "Where do foxes sleep?" --explain
  m3jax search --index INDEX --query "..." --method dense+sparse --weights 0.2,0.8 --top-k 5
  m3jax search --index INDEX --queries queries.jsonl --method all --weights mldr --output run.trec
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `search`."""
    parser.add_argument("--index", required=True, metavar="INDEX", help="made by m3jax index")
    add_model(parser, required=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--query", metavar="TEXT", help="the text to search with")
    what.add_argument("--queries", metavar="FILE", help="FILE.jsonl[.gz] with _id and text, or -")
    parser.add_argument("--output", metavar="RUN", help="the TREC run of --queries")
    add_method(parser, help="default: all that the index can do")
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="hits a query (default: 10, with --queries 1000)"
    )
    parser.add_argument(
        "--weights",
        metavar="D,S,M",
        help="dense,sparse,multi-vector; or miracl, mkqa, mldr, narrativeqa (default: those that "
        "the model keeps, else 1,0.3,1)",
    )
    parser.add_argument(
        "--fusion",
        choices=FUSIONS,
        default="weighted",
        help="how dense+sparse and all combine scores (default: weighted)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINE_NAMES,
        default="auto",
        help="used by every head that has it (default: auto, the fastest here)",
    )
    parser.add_argument("--explain", action="store_true", help="each head's score, shared tokens")
    parser.add_argument("--tag", default="m3jax", help="last column of the run (default: m3jax)")
    parser.add_argument("--verify", action="store_true", help="read and check every file first")


def run(options: argparse.Namespace) -> int:
    """Prints a table, or writes a run and says how many lines."""
    from m3jax.search.methods import encode_queries, search
    from m3jax.search.options import SearchOptions

    if (options.output is None) != (options.queries is None):
        raise ValueError("--queries and --output go together: a file of queries makes a run")
    index = open_for_search(options)
    method = options.method or _best_method(index)
    top_k = options.top_k or (10 if options.queries is None else 1000)
    weights = parse_weights(options.weights, method)
    search_options = SearchOptions(
        method=method, weights=weights, fusion=options.fusion, engine=options.engine
    )
    if options.queries is None:
        encoded = encode_queries(index, [options.query], [method])
        hits = search(index, encoded, search_options, top_k=top_k)
        _print(index, options, method, hits)
        return 0
    ids, texts = read_queries(options.queries)
    encoded = encode_queries(index, texts, [method])
    hits = search(index, encoded, search_options, top_k=top_k)
    return _write(options, ids, index, hits)


def read_queries(path: str) -> tuple[list[str], list[str]]:
    """(ids, texts); ValueError for none and for an id that occurs twice."""
    from m3jax.io.jsonl import read_records

    lines: dict[str, int] = {}
    texts = []
    for record in read_records(path):
        if (first := lines.setdefault(record.id, record.line)) != record.line:
            raise ValueError(
                f"{path}:{record.line}: the id {record.id!r} occurs in line {first} already"
            )
        texts.append(record.text)
    if not texts:
        raise ValueError(f"{path} holds no query")
    return list(lines), texts


def _best_method(index: Any) -> str:
    if index.dense is None:
        return "colbert" if index.sparse is None else "sparse"
    if index.sparse is None:
        return "dense" if index.colbert is None else "colbert"
    return "dense+sparse" if index.colbert is None else "all"


def _write(options: argparse.Namespace, ids: list[str], index: Any, hits: Any) -> int:
    from m3jax.io.trec import write_run

    lines = write_run(Path(options.output), ids, index.ids, hits, options.tag)
    print(f"{len(ids)} queries, {lines} lines: {options.output}")
    return 0


def _print(index: Any, options: argparse.Namespace, method: str, hits: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from m3jax.cli.tables import shorten, wide_console

    columns = ["rank", "document", "score", "text"]
    title = f"{method}: {options.query}"
    extra: list[list[str]] = [[] for _ in hits.documents[0]]
    if options.explain:
        names, extra = _explain(index, options.query, hits.documents[0])
        columns[3:3] = names
    table = Table(*columns, title=escape(title), title_justify="left")
    rows = zip(hits.documents[0], hits.scores[0], extra, strict=True)
    for rank, (number, score, more) in enumerate(rows, 1):
        document = index.documents[int(number)]
        cells = [str(rank), document.id, f"{score:.4f}", *more, shorten(document.text, 60)]
        table.add_row(*map(escape, cells))
    wide_console(130).print(table)
    if not len(hits.documents[0]):
        print("no document shares a token with the query")


def _explain(index: Any, query: str, numbers: Any) -> tuple[list[str], list[list[str]]]:
    """Columns and cells: each head's exact score, and the heaviest shared tokens."""
    from m3jax.search import methods

    heads = [h for h in ("dense", "sparse", "colbert") if getattr(index, h) is not None]
    encoded = methods.encode_queries(index, [query], heads)
    scores = methods.head_scores(index, encoded, 0, numbers)
    names = list(scores)
    rows = [[f"{values[i]:.4f}" for values in scores.values()] for i in range(len(numbers))]
    if "sparse" in scores:
        tokenizer = index.embedder().tokenizer
        names.append("shared tokens")
        for row, number in zip(rows, numbers, strict=True):
            shared = index.sparse.matches(encoded.query("sparse", 0), int(number))[:5]
            shown = [
                f"{tokenizer.token(t).replace('▁', '') or '▁'} {q:.2f} x {w:.2f}"
                for t, q, w in shared
            ]
            row.append(", ".join(shown) or "-")
    return names, rows
