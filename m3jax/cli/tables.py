"""Pieces of the tables that commands print."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from m3jax.embed.embeddings import Embeddings, lexical_dicts
from m3jax.explain.alignment import Match, label, token_matches
from m3jax.text.tokenizer import Tokenizer


def matched_tokens(
    tokenizer: Tokenizer, query: Embeddings, documents: Embeddings, number: int, count: int
) -> str:
    """The tokens that carried the lexical match, heaviest first: `Berlin 0.21 x 0.18`."""
    assert query.sparse is not None and documents.sparse is not None
    (weights,) = lexical_dicts(query.sparse)
    (other,) = lexical_dicts(documents.sparse[[number]])
    return spelt_matches(token_matches(tokenizer, weights, other)[:count])


def spelt_matches(matches: Iterable[Match]) -> str:
    """`Berlin 0.21 x 0.18, wall 0.11 x 0.09`, or a dash."""
    shown = (f"{label(m.token)} {m.query_weight:.2f} x {m.passage_weight:.2f}" for m in matches)
    return ", ".join(shown) or "-"


def shorten(text: str, width: int) -> str:
    """The text on one line, cut at `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def wide_console(width: int = 110) -> Console:
    """The terminal at its own width; a pipe or a file, which has none, at `width`."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """A line on a terminal that counts: `120,000 examples written 0:00:07`."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} {task.description}"),
               TimeElapsedColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.update(task, completed=done)
