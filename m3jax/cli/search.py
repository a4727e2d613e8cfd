"""Search an index: one query on the screen, or a file of queries into a TREC run.

dense and sparse search all documents; multivector ranks the dense top 200 again; dense+sparse
scores the union of both top 1,000; all adds the three over the dense top 200; bm25 needs no model
vectors. Ties stand in the order of the corpus.
"""

import argparse
from pathlib import Path
from typing import Any

from m3jax.cli.options import add_model, open_for_search, parse_weights

EXAMPLES = """\
examples:
  m3jax search --index INDEX --query "Where do foxes sleep?" --explain
  m3jax search --index INDEX --query "..." --method dense+sparse --weights 0.2,0.8 --top-k 5
  m3jax search --index INDEX --queries queries.jsonl --method all --weights mldr --output run.trec
"""
METHODS = ("bm25", "dense", "sparse", "multivector", "dense+sparse", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `search`."""
    parser.add_argument("--index", required=True, metavar="INDEX", help="made by m3jax index")
    add_model(parser, required=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--query", metavar="TEXT", help="the text to search with")
    what.add_argument("--queries", metavar="FILE", help="FILE.jsonl[.gz] with _id and text, or -")
    parser.add_argument("--output", metavar="RUN", help="the TREC run of --queries")
    parser.add_argument("--method", choices=METHODS, help="default: all that the index can do")
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
        "--fusion", choices=("weighted", "rrf", "minmax", "zscore"), default="weighted",
        help="how dense+sparse and all put scores together (default: weighted)",
    )  # fmt: skip
    parser.add_argument("--explain", action="store_true", help="each head's score, shared tokens")
    parser.add_argument("--tag", default="m3jax", help="last column of the run (default: m3jax)")
    parser.add_argument("--verify", action="store_true", help="read and check every file first")


def run(options: argparse.Namespace) -> int:
    """Prints a table, or writes a run and says how many lines."""
    from m3jax.search.methods import encode_queries, search

    if (options.output is None) != (options.queries is None):
        raise ValueError("--queries and --output go together: a file of queries makes a run")
    index = open_for_search(options)
    method = options.method or _best_method(index)
    top_k = options.top_k or (10 if options.queries is None else 1000)
    weights = parse_weights(options.weights, method)
    given: dict[str, Any] = {"top_k": top_k, "weights": weights, "fusion": options.fusion}
    if options.queries is None:
        encoded = encode_queries(index, [options.query], [method])
        hits = search(index, encoded, method, **given)
        _print(index, options, method, hits)
        return 0
    ids, texts = read_queries(options.queries)
    hits = search(index, encode_queries(index, texts, [method]), method, **given)
    return _write(options, ids, index, hits)


def read_queries(path: str) -> tuple[list[str], list[str]]:
    """(ids, texts); ValueError for none and for an id that occurs twice."""
    from m3jax.io.jsonl import read_records

    lines: dict[str, int] = {}
    texts = []
    for record in read_records(path):
        if (first := lines.setdefault(record.id, record.line)) != record.line:
            raise ValueError(
                f"{path}:{record.line}: the id {record.id!r} stands in line {first} already"
            )
        texts.append(record.text)
    if not texts:
        raise ValueError(f"{path} holds no query")
    return list(lines), texts


def _best_method(index: Any) -> str:
    if index.dense is None:
        return "multivector" if index.sparse is None else "sparse"
    if index.sparse is None:
        return "dense" if index.colbert is None else "multivector"
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
    from m3jax.search import methods, sparse

    heads = [h for h in ("dense", "sparse", "colbert") if getattr(index, h) is not None]
    needs = {"dense": "dense", "sparse": "sparse", "colbert": "multivector"}
    encoded = methods.encode_queries(index, [query], [needs[head] for head in heads])
    scores = methods.head_scores(index, encoded, 0, numbers)
    names = [needs[head] for head in scores]
    rows = [[f"{values[i]:.4f}" for values in scores.values()] for i in range(len(numbers))]
    matrix = None if encoded.embeddings is None else encoded.embeddings.sparse
    if "sparse" in scores and matrix is not None:
        tokenizer = index.embedder().tokenizer
        names.append("shared tokens")
        for row, number in zip(rows, numbers, strict=True):
            shared = sparse.matches(matrix, 0, index.sparse, int(number))[:5]
            shown = [
                f"{tokenizer.token(t).replace('▁', '') or '▁'} {q:.2f} x {w:.2f}"
                for t, q, w in shared
            ]
            row.append(", ".join(shown) or "-")
    return names, rows
