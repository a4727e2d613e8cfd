"""Search the small multilingual corpus in the package by every method, offline.

Questions written by people are answered from paragraphs in several languages. The best hits of each
method are printed with the tokens of the lexical match.
"""

import argparse
import dataclasses
import time
from typing import TYPE_CHECKING, NamedTuple

from m3jax.cli.options import add_model, load_embedder

if TYPE_CHECKING:
    import numpy as np

    from m3jax.data.sample import Passage
    from m3jax.embed.embedder import M3Embedder
    from m3jax.embed.embeddings import Embeddings

EXAMPLES = """\
examples:
  m3jax quickstart
  m3jax quickstart --ask "Which river flows through Bremen?"
  m3jax quickstart --model BAAI/bge-m3
"""
BUNDLED = "m3-mini"
METHODS = {"dense": "dense", "sparse": "sparse", "colbert": "multi-vector", "all": "hybrid"}


class Results(NamedTuple):
    """The texts, their embeddings, and the scores [queries, passages] of each method."""

    model: "M3Embedder"
    passages: "list[Passage]"
    texts: list[str]
    queries: "Embeddings"
    documents: "Embeddings"
    scores: "dict[str, np.ndarray]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `quickstart`."""
    add_model(parser, required=False)
    parser.add_argument("--ask", action="append", metavar="QUESTION", help="a question of yours")
    parser.add_argument("--hits", type=int, default=3, help="hits per method (default: 3)")
    parser.add_argument(
        "--questions", type=int, default=5, help="number of sample questions to print (default: 5)"
    )


def run(options: argparse.Namespace) -> int:
    """Encodes the corpus, and prints a table per question and a summary."""
    from m3jax.cli import tables
    from m3jax.data.sample import sample_passages, sample_questions
    from m3jax.embed.brute_force import scan

    options.model = options.model or BUNDLED
    console = tables.wide_console()
    start = time.perf_counter()
    passages, questions = sample_passages(), sample_questions()
    model = _load(options, [passage.text for passage in passages], console)
    loaded = time.perf_counter()
    documents = next(model.encode_stream([p.text for p in passages], max_length=512, chunk=10**6))
    encoded = time.perf_counter()
    languages = len({passage.lang for passage in passages})
    console.print(
        f"{len(passages)} paragraphs in {languages} languages: model loaded in "
        f"{loaded - start:.1f} s, paragraphs encoded in {encoded - loaded:.1f} s\n"
    )
    texts = options.ask or [question.text for question in questions]
    queries = next(model.encode_stream(texts, max_length=512, chunk=len(texts)))
    scores = scan(queries, documents, dataclasses.asdict(model.fusion("all")))
    results = Results(model, passages, texts, queries, documents, scores)
    for number in range(len(texts) if options.ask else min(options.questions, len(texts))):
        index = number if options.ask else _spread(number, questions, options)
        positive = None if options.ask else questions[index].positive
        console.print(_table(results, index, options.hits, positive))
    if not options.ask:
        console.print(_summary(questions, passages, scores))
    return 0


def _load(options: argparse.Namespace, texts: list[str], console):
    """The model; one without heads gets heads fitted to the corpus, for demonstration."""
    from m3jax.convert.heads import fit_sparse_head
    from m3jax.embed.embedder import M3Embedder

    model = load_embedder(options)
    loaded = model.encoder.model
    if loaded.heads_trained:
        return model
    console.print(
        f"{options.model} has no M3 heads. For this demonstration its token vectors are used "
        "unchanged, and token weights are fitted to the rarity of tokens in the sample corpus.\n"
    )
    params = fit_sparse_head(loaded.params, loaded.config, loaded.tokenizer, texts)
    return M3Embedder(
        dataclasses.replace(loaded, params=params), mesh=model.mesh, compute=model.compute
    )


def _spread(number: int, questions, options: argparse.Namespace) -> int:
    """The position of an example, spread over the list and so over its languages."""
    return number * len(questions) // min(options.questions, len(questions))


def _table(results: Results, index: int, hits: int, positive: str | None):
    """The table of one question: the hits of each method, their scores and matched tokens."""
    from rich.table import Table
    from rich.text import Text

    from m3jax.cli.tables import matched_tokens, shorten
    from m3jax.embed.brute_force import top
    from m3jax.embed.embeddings import Embeddings

    one_line = {"no_wrap": True, "overflow": "ellipsis"}
    table = Table("method", "score", "lang", expand=True)
    table.add_column("paragraph", ratio=3, **one_line)
    table.add_column("matched tokens", ratio=2, **one_line)
    table.title, table.title_justify = Text(f"? {results.texts[index]}"), "left"
    assert results.queries.sparse is not None
    query = Embeddings(None, results.queries.sparse[[index]], None)
    for method, label in METHODS.items():
        scores = results.scores[method][index]
        best = top(scores, hits)
        for rank, number in enumerate(best):
            passage = results.passages[number]
            tokens = ""
            if method in ("sparse", "all"):
                tokenizer = results.model.tokenizer
                tokens = matched_tokens(tokenizer, query, results.documents, number, 3)
            table.add_row(
                label if rank == 0 else "",
                f"{scores[number]:.3f}",
                passage.lang,
                Text(("* " if passage.id == positive else "") + shorten(passage.text, 100)),
                Text(tokens),
                end_section=rank == len(best) - 1,
            )
    table.caption = "* the paragraph the question was asked about" if positive else None
    return table


def _summary(questions, passages, scores):
    """How often each method ranks the right paragraph first, and among the first ten."""
    from rich.table import Table

    from m3jax.embed.brute_force import top

    table = Table("method", "right paragraph first", "among the first 10", title_justify="left")
    table.title = f"all {len(questions)} sample questions"
    position = {passage.id: number for number, passage in enumerate(passages)}
    for method, label in METHODS.items():
        ranks = [
            top(scores[method][i], len(passages)).index(position[question.positive])
            for i, question in enumerate(questions)
        ]
        first, ten = (sum(rank < k for rank in ranks) for k in (1, 10))
        table.add_row(label, str(first), str(ten))
    return table
