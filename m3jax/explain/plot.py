"""Plots that explain scores, drawn by matplotlib.

from m3jax.explain import plot_explanation
plot_explanation("Where do foxes sleep?", "A fox sleeps in its den.", model).savefig("fox.png")
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m3jax.embed.embedder import M3Embedder
from m3jax.explain.alignment import Explanation, explain_passages, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BARS = 16
MAX_ROWS = 48  # query tokens drawn
MAX_COLUMNS = 64  # passage tokens drawn; if there are more, only best matches are
BLUE, RED = "#4477aa", "#cc3311"
# Fonts for scripts that matplotlib's default font lacks; used if the system has them.
FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS"),
    *("PingFang SC", "Microsoft YaHei", "Noto Sans Arabic", "Noto Sans Thai"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Telugu"),
)


def plot_explanation(
    query: str,
    passage: str,
    model: M3Embedder,
    fusion: dict[str, float] | None = None,
) -> "Figure":
    """Lexical matches as bars, the MaxSim alignment as a heat map, the scores in the title.

    `fusion` weights dense, sparse and colbert in the sum; the default is the model's. Of a long
    text only the best matches are drawn, and the axis label gives their number. A script without an
    installed font is drawn as boxes; `m3jax score --html` has no such limit.

    Raises ImportError if matplotlib is not installed.
    """
    figure_class = _figure_class()
    (explanation,) = explain_passages(model, query, [passage], fusion)
    return draw(explanation, figure_class)


def draw(explanation: Explanation, figure_class: Any = None) -> "Figure":
    """The figure of one explanation."""
    figure_class = figure_class or _figure_class()
    rows, columns = _shown(explanation)
    bars = explanation.matches[:MAX_BARS]
    width = 4.6 + max(3.0, 0.24 * len(columns))
    height = max(2.8, 1.9 + 0.21 * max(len(rows), len(bars)))
    figure = figure_class(figsize=(width, height), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2.7, width - 3.6])
    _draw_matches(left, explanation)
    _draw_alignment(figure, right, explanation, rows, columns)
    scores = explanation.scores
    figure.suptitle(
        f"dense {scores['dense']:.3f}   sparse {scores['sparse']:.3f}   "
        f"multi-vector {scores['colbert']:.3f}   weighted sum {scores['all']:.3f}",
        fontsize=10,
    )
    fonts = _fonts()
    for text in figure.findobj(lambda artist: hasattr(artist, "set_parse_math")):
        text.set_parse_math(False)  # a token may contain a dollar sign
        text.set_fontfamily(fonts)
    return figure


def _draw_matches(axes: Any, explanation: Explanation) -> None:
    """w_q(t) w_p(t) of the shared tokens, the largest at the top."""
    bars = explanation.matches[:MAX_BARS]
    axes.set_title("lexical: product of the weights", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if not bars:
        style = dict(ha="center", va="center", color="#666666", fontsize=9)
        axes.text(0.5, 0.5, "no shared token", transform=axes.transAxes, **style)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    drawn = axes.barh(range(len(bars)), [match.product for match in bars], color=BLUE)
    factors = [f"{m.query_weight:.2f} x {m.passage_weight:.2f}" for m in bars]
    axes.bar_label(drawn, factors, fontsize=7, padding=2)
    axes.set_yticks(range(len(bars)), [label(match.token) for match in bars], fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.margins(x=0.35)
    axes.set_xlim(left=0)
    axes.set_ylim(max(len(bars), 4) - 0.4, -0.6)
    if len(explanation.matches) > len(bars):
        axes.set_xlabel(f"the largest {len(bars)} of {len(explanation.matches)}", fontsize=8)


def _draw_alignment(
    figure: Any, axes: Any, explanation: Explanation, rows: Sequence[int], columns: Sequence[int]
) -> None:
    """<E_q[i], E_p[j]>; a square marks each row's maximum; s_mul is the mean of the maxima."""
    shown = explanation.similarity[np.ix_(rows, columns)]
    image = axes.imshow(shown, aspect="auto", cmap="Greys", vmax=1.0, interpolation="nearest")
    drawn = {column: number for number, column in enumerate(columns)}
    best = [drawn[int(explanation.best[row])] for row in rows]
    square = dict(marker="s", s=42, facecolors="none", edgecolors=RED, linewidths=1.3)
    axes.scatter(best, range(len(rows)), **square)
    title = "multi-vector: similarity, the best match of each query token marked"
    axes.set_title(title, fontsize=9)
    tokens = explanation.passage.tokens[1:], explanation.query.tokens[1:]
    names = [label(tokens[0][c]) for c in columns]
    axes.set_xticks(range(len(columns)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), [label(tokens[1][r]) for r in rows], fontsize=8)
    axes.set_ylabel(_part("query", len(rows), len(tokens[1])), fontsize=8)
    axes.set_xlabel(_part("passage", len(columns), len(tokens[0])), fontsize=8)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.ax.tick_params(labelsize=7)


def _shown(explanation: Explanation) -> tuple[list[int], list[int]]:
    """Rows and columns of the similarity that are drawn."""
    queries, passages = explanation.similarity.shape
    rows = list(range(min(queries, MAX_ROWS)))
    if passages <= MAX_COLUMNS:
        return rows, list(range(passages))
    return rows, sorted({int(explanation.best[row]) for row in rows})


def _part(what: str, shown: int, all_: int) -> str:
    return what if shown == all_ else f"{what}: {shown} of {all_} tokens"


def _fonts() -> list[str]:
    """matplotlib's default font, then the installed ones of FONTS, tried in turn per glyph."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FONTS if name in installed)]


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'm3jax[evaluate]'") from error
    return Figure
