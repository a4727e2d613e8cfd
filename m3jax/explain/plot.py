"""Pictures of what the model sees. matplotlib is loaded when one is drawn.

from m3jax.explain.plot import explain
explain("Where do foxes sleep?", "A fox sleeps in its den.", model).savefig("fox.png")
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m3jax.embed.embedder import M3Embedder
from m3jax.explain.alignment import Explanation, explain_passages, word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 16
MOST_ROWS = 48  # query tokens drawn
MOST_COLUMNS = 64  # passage tokens drawn; of more, those that some query token met
BLUE, RED = "#4477aa", "#cc3311"
# Fonts with the scripts that matplotlib's own lacks, where the system has them.
FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS",
         "PingFang SC", "Microsoft YaHei", "Noto Sans Arabic", "Noto Sans Thai",
         "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Telugu")  # fmt: skip


def explain(
    query: str,
    passage: str,
    model: M3Embedder,
    fusion: dict[str, float] | None = None,
) -> "Figure":
    """Lexical matches as bars, the max-sim alignment as a heat map, the scores in the title.

    `fusion` weighs dense, sparse and colbert in the sum: by default as the model does. Of a
    long text only the tokens that matter are drawn, and the axis says so. A script for which no
    font is installed shows as boxes; `m3jax score --html` has no such limit.

    Raises ImportError, saying what to install, without matplotlib.
    """
    figure_class = _figure_class()
    (found,) = explain_passages(model, query, [passage], fusion)
    return draw(found, figure_class)


def draw(found: Explanation, figure_class: Any = None) -> "Figure":
    """The picture of an explanation."""
    figure_class = figure_class or _figure_class()
    rows, columns = _shown(found)
    bars = found.matches[:MOST_BARS]
    width = 4.6 + max(3.0, 0.24 * len(columns))
    height = max(2.8, 1.9 + 0.21 * max(len(rows), len(bars)))
    figure = figure_class(figsize=(width, height), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2.7, width - 3.6])
    _draw_matches(left, found)
    _draw_alignment(figure, right, found, rows, columns)
    scores = found.scores
    figure.suptitle(
        f"dense {scores['dense']:.3f}   sparse {scores['sparse']:.3f}   "
        f"multi-vector {scores['colbert']:.3f}   weighted sum {scores['all']:.3f}",
        fontsize=10,
    )
    fonts = _fonts()
    for text in figure.findobj(lambda artist: hasattr(artist, "set_parse_math")):
        text.set_parse_math(False)  # a token may hold a dollar sign
        text.set_fontfamily(fonts)
    return figure


def _draw_matches(axes: Any, found: Explanation) -> None:
    """w_q(t) w_p(t) of the shared tokens, largest on top."""
    bars = found.matches[:MOST_BARS]
    axes.set_title("lexical: product of the weights", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if not bars:
        axes.text(0.5, 0.5, "no shared token", ha="center", va="center", color="#666666",
                  transform=axes.transAxes, fontsize=9)  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        return
    drawn = axes.barh(range(len(bars)), [match.product for match in bars], color=BLUE)
    axes.bar_label(drawn, [f"{m.query_weight:.2f} x {m.passage_weight:.2f}" for m in bars],
                   fontsize=7, padding=2)  # fmt: skip
    axes.set_yticks(range(len(bars)), [word(match.piece) for match in bars], fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.margins(x=0.35)
    axes.set_xlim(left=0)
    axes.set_ylim(max(len(bars), 4) - 0.4, -0.6)
    if len(found.matches) > len(bars):
        axes.set_xlabel(f"the largest {len(bars)} of {len(found.matches)}", fontsize=8)


def _draw_alignment(
    figure: Any, axes: Any, found: Explanation, rows: Sequence[int], columns: Sequence[int]
) -> None:
    """<E_q[i], E_p[j]>; a square marks the maximum of each row, all of which s_mul averages."""
    shown = found.similarity[np.ix_(rows, columns)]
    image = axes.imshow(shown, aspect="auto", cmap="Greys", vmax=1.0, interpolation="nearest")
    place = {column: number for number, column in enumerate(columns)}
    axes.scatter([place[int(found.best[row])] for row in rows], range(len(rows)), marker="s", s=42,
                 facecolors="none", edgecolors=RED, linewidths=1.3)  # fmt: skip
    axes.set_title("multi-vector: similarity, the best match of each query token marked",
                   fontsize=9)  # fmt: skip
    pieces = found.passage.pieces[1:], found.query.pieces[1:]
    axes.set_xticks(range(len(columns)), [word(pieces[0][c]) for c in columns], rotation=90,
                    fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(rows)), [word(pieces[1][r]) for r in rows], fontsize=8)
    axes.set_ylabel(_part("query", len(rows), len(pieces[1])), fontsize=8)
    axes.set_xlabel(_part("passage", len(columns), len(pieces[0])), fontsize=8)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.ax.tick_params(labelsize=7)


def _shown(found: Explanation) -> tuple[list[int], list[int]]:
    """Rows and columns of the similarity that are drawn."""
    queries, passages = found.similarity.shape
    rows = list(range(min(queries, MOST_ROWS)))
    if passages <= MOST_COLUMNS:
        return rows, list(range(passages))
    return rows, sorted({int(found.best[row]) for row in rows})


def _part(what: str, shown: int, all_: int) -> str:
    return what if shown == all_ else f"{what}: {shown} of {all_} tokens"


def _fonts() -> list[str]:
    """matplotlib's font, then what is installed of FONTS: it looks for each glyph in turn."""
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FONTS if name in there)]


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'm3jax[evaluate]'") from error
    return Figure
