"""Search a small multilingual corpus that ships with the package, by every method, offline.

Human questions are answered from paragraphs in their own and in other languages; each method's
best hits stand side by side, with the tokens that carried the lexical match.
"""

import argparse
import dataclasses
import time

from m3jax.cli.options import add_model, load_embedder

EXAMPLES = """\
examples:
  m3jax quickstart
  m3jax quickstart --ask "Which river flows through Bremen?"
  m3jax quickstart --model BAAI/bge-m3
"""
BUNDLED = "m3-mini"
METHODS = {"dense": "dense", "sparse": "sparse", "colbert": "multi-vector", "all": "hybrid"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `quickstart`."""
    add_model(parser, required=False)
    parser.add_argument("--ask", action="append", metavar="QUESTION", help="your own question")
    parser.add_argument("--hits", type=int, default=3, help="hits a method (default: 3)")
    parser.add_argument("--questions", type=int, default=5, help="examples shown (default: 5)")


def run(options: argparse.Namespace) -> int:
    """Encodes the corpus, answers the questions, prints a table a question and a summary."""
    from m3jax.cli import tables
    from m3jax.data import sample
    from m3jax.embed.brute_force import scan, top

    options.model = options.model or BUNDLED
    console = tables.wide_console()
    start = time.perf_counter()
    passages, questions = sample.passages(), sample.questions()
    model = _load(options, [passage.text for passage in passages], console)
    loaded = time.perf_counter()
    documents = next(model.encode_stream([p.text for p in passages], max_length=512, chunk=10**6))
    encoded = time.perf_counter()
    languages = len({passage.lang for passage in passages})
    console.print(
        f"{len(passages)} paragraphs in {languages} languages: model loaded in "
        f"{loaded - start:.1f} s, paragraphs encoded in {encoded - loaded:.1f} s\n"
    )
    asked = options.ask or [question.text for question in questions]
    queries = next(model.encode_stream(asked, max_length=512, chunk=len(asked)))
    scores = scan(queries, documents, dataclasses.asdict(model.fusion("all")))
    for number in range(len(asked) if options.ask else min(options.questions, len(asked))):
        positive = None if options.ask else questions[_spread(number, questions, options)].positive
        place = number if options.ask else _spread(number, questions, options)
        hits = {m: top(scores[m][place], options.hits) for m in METHODS}
        console.print(
            _table(model, asked, queries, documents, passages, place, hits, scores, positive)
        )
    if not options.ask:
        console.print(_summary(questions, passages, scores))
    return 0


def _load(options: argparse.Namespace, texts: list[str], console):
    """The model; one without heads gets some that already say something."""
    from m3jax.convert.heads import fit_sparse_head
    from m3jax.embed.embedder import M3Embedder

    model = load_embedder(options)
    loaded = model.encoder.model
    if loaded.heads_trained:
        return model
    console.print(
        f"{options.model} has no M3 heads. For this demonstration its token vectors serve as they "
        "are, and token weights are fitted to how rare a token is in the sample corpus.\n"
    )
    params = fit_sparse_head(loaded.params, loaded.config, loaded.tokenizer, texts)
    return M3Embedder(
        dataclasses.replace(loaded, params=params), mesh=model.mesh, compute=model.compute
    )


def _spread(number: int, questions, options: argparse.Namespace) -> int:
    """Examples from the whole list, not its first language alone."""
    return number * len(questions) // min(options.questions, len(questions))


def _table(model, asked, queries, documents, passages, place, hits, scores, positive):
    """One question: for each method its hits, scores and the matched tokens."""
    from rich.table import Table
    from rich.text import Text

    from m3jax.cli.tables import matched_tokens, shorten
    from m3jax.embed.embeddings import Embeddings

    one_line = {"no_wrap": True, "overflow": "ellipsis"}
    table = Table("method", "score", "lang", expand=True)
    table.add_column("paragraph", ratio=3, **one_line)
    table.add_column("matched tokens", ratio=2, **one_line)
    table.title, table.title_justify = Text(f"? {asked[place]}"), "left"
    query = Embeddings(None, queries.sparse[[place]], None)
    for method, label in METHODS.items():
        for rank, number in enumerate(hits[method]):
            passage = passages[number]
            tokens = ""
            if method in ("sparse", "all"):
                tokens = matched_tokens(model.tokenizer, query, documents, number, 3)
            table.add_row(
                label if rank == 0 else "",
                f"{scores[method][place, number]:.3f}",
                passage.lang,
                Text(("* " if passage.id == positive else "") + shorten(passage.text, 100)),
                Text(tokens),
                end_section=rank == len(hits[method]) - 1,
            )
    table.caption = "* the paragraph the question was asked about" if positive else None
    return table


def _summary(questions, passages, scores):
    """How often each method puts the right paragraph first, and among the first ten."""
    from rich.table import Table

    from m3jax.embed.brute_force import top

    table = Table("method", "right paragraph first", "among the first 10", title_justify="left")
    table.title = f"all {len(questions)} sample questions"
    place = {passage.id: number for number, passage in enumerate(passages)}
    for method, label in METHODS.items():
        ranks = [
            top(scores[method][i], len(passages)).index(place[question.positive])
            for i, question in enumerate(questions)
        ]
        first, ten = (sum(rank < k for rank in ranks) for k in (1, 10))
        table.add_row(label, str(first), str(ten))
    return table
