"""Parts of the tables that commands print, and their progress lines."""

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
    """The shared tokens with the largest products of weights: `Berlin 0.21 x 0.18`."""
    assert query.sparse is not None and documents.sparse is not None
    (query_weights,) = lexical_dicts(query.sparse)
    (document_weights,) = lexical_dicts(documents.sparse[[number]])
    return format_matches(token_matches(tokenizer, query_weights, document_weights)[:count])


def format_matches(matches: Iterable[Match]) -> str:
    """`Berlin 0.21 x 0.18, wall 0.11 x 0.09`, or "-" without a match."""
    shown = (f"{label(m.token)} {m.query_weight:.2f} x {m.passage_weight:.2f}" for m in matches)
    return ", ".join(shown) or "-"


def shorten(text: str, width: int) -> str:
    """The text on one line, truncated to `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def wide_console(width: int = 110) -> Console:
    """A console of the terminal's width; of `width` columns in a pipe or a file."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Shows a counter on a terminal: `120,000 examples written 0:00:07`."""
    text = TextColumn("{task.completed:,} {task.description}")
    columns = (SpinnerColumn(), text, TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.update(task, completed=done)
