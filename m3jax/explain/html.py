"""A page that explains scores: one file, no script, nothing loaded from anywhere.

Every text goes through `html.escape`; a text's direction is its own (dir="auto"). Colours are
translucent, so that the page reads on light and on dark.
"""

import html
from collections.abc import Sequence

import numpy as np

from m3jax.explain.alignment import Explanation, TokenView, word

LEXICAL, LATE = "68,119,170", "204,51,17"
SCORES = (("dense", "dense"), ("sparse", "sparse"), ("multi-vector", "colbert"),
          ("weighted sum", "all"))  # fmt: skip
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.25rem; } h2 { font-size: 1rem; margin: 2rem 0 .3rem; }
p { margin: .2rem 0; }
.tokens { font-size: 1.05rem; line-height: 2; overflow-wrap: anywhere; }
.tokens span, .tokens bdi { border-radius: 2px; }
.tokens .end { opacity: .45; font-size: .75em; }
.shared { border-bottom: 2px solid rgb(68,119,170); }
.what { opacity: .7; font-size: .8rem; margin-top: .7rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .3rem 0; }
th, td { padding: .1rem .8rem .1rem 0; text-align: start; font-weight: normal; }
th { opacity: .7; font-size: .8rem; }
details { margin-top: .6rem; } summary { cursor: pointer; font-size: .85rem; }
"""


def explanation_page(found: Sequence[Explanation], fusion: dict[str, float]) -> str:
    """The page of one query and its passages, in the order given."""
    query = found[0].query
    title = html.escape(" ".join(query.text.split()))
    weights = ", ".join(f"{name} {fusion[key]:g}" for name, key in SCORES[:3])
    parts = [
        "<!DOCTYPE html>",
        '<html lang="und"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f'<h1 dir="auto">{title}</h1>',
        '<p class="what">query, each token by its lexical weight</p>',
        _line(query, _alphas(query.weights), LEXICAL, _weight_notes(query)),
        f'<p class="what">{_legend()} Weights of the sum: {weights}.</p>',
        *(_passage(number, each) for number, each in enumerate(found, start=1)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> str:
    return (
        f'<span style="background:rgba({LEXICAL},.45)">blue</span>: lexical weight, underlined '
        "where both texts have the token; "
        f'<span style="background:rgba({LATE},.45)">red</span>: what a token adds to the '
        "multi-vector score, as the best match of query tokens."
    )


def _passage(number: int, found: Explanation) -> str:
    scores = "".join(f"<td>{found.scores[key]:.4f}</td>" for _, key in SCORES)
    names = "".join(f"<th>{name}</th>" for name, _ in SCORES)
    view = found.passage
    shared = set(found.query.ids) & set(view.ids)
    marks = [i in shared and bool(w > 0) for i, w in zip(view.ids, view.weights, strict=True)]
    share = _late_share(found)
    added = [f"adds {value:.4f}" if value else "" for value in share.tolist()]
    return "\n".join(
        [
            f'<section><h2 dir="auto">{number}. {html.escape(" ".join(view.text.split()))}</h2>',
            f"<table><tr>{names}</tr><tr>{scores}</tr></table>",
            '<p class="what">lexical</p>',
            _line(view, _alphas(view.weights), LEXICAL, _weight_notes(view), marks),
            '<p class="what">multi-vector</p>',
            _line(view, _alphas(share), LATE, added),
            _details("tokens of both", _matches(found)),
            _details("the best match of each query token", _alignment(found)),
            "</section>",
        ]
    )


def _line(
    view: TokenView,
    alphas: Sequence[float],
    colour: str,
    notes: Sequence[str],
    marks: Sequence[bool] | None = None,
) -> str:
    """The text token by token; a note shows when the pointer rests on its token."""
    spans = []
    last = len(view.pieces) - 1
    for place, piece in enumerate(view.pieces):
        kind = "end" if place in (0, last) else "shared" if marks and marks[place] else ""
        attributes = f' class="{kind}"' if kind else ""
        if alphas[place]:
            attributes += f' style="background:rgba({colour},{alphas[place]:.2f})"'
        if notes[place]:
            attributes += f' title="{html.escape(notes[place])}"'
        text = html.escape(piece.removeprefix("▁"))
        space = " " if piece.startswith("▁") or kind == "end" else ""
        # The direction of a line is that of its first letter outside of <bdi>: not of "<s>".
        tag = "bdi" if kind == "end" else "span"
        spans.append(f"{space}<{tag}{attributes}>{text}</{tag}>")
    return f'<p class="tokens" dir="auto">{"".join(spans).strip()}</p>'


def _alphas(values: np.ndarray) -> list[float]:
    """Opacity: 0 for what adds nothing, else 0.06 to 0.75."""
    most = float(np.max(values, initial=0.0))
    if most <= 0:
        return [0.0] * len(values)
    return np.where(values > 0, 0.06 + 0.69 * values / most, 0.0).tolist()


def _weight_notes(view: TokenView) -> list[str]:
    return [f"weight {w:.4f}" if w else "" for w in view.weights]


def _late_share(found: Explanation) -> np.ndarray:
    """What each place of the passage adds to s_mul; <s>, which takes no part, adds 0."""
    rows = found.similarity.shape[0]
    share = np.zeros(len(found.passage.pieces))
    np.add.at(share, found.best + 1, found.similarity.max(axis=1) / rows)
    return share


def _matches(found: Explanation) -> str:
    rows = [(_text(m.piece), f"{m.query_weight:.4f}", f"{m.passage_weight:.4f}",
             f"{m.product:.4f}") for m in found.matches]  # fmt: skip
    return _table(("token", "weight in the query", "in the passage", "product"), rows)


def _alignment(found: Explanation) -> str:
    rows = []
    for row, column in enumerate(found.best):
        value = found.similarity[row, column]
        pieces = found.query.pieces[row + 1], found.passage.pieces[int(column) + 1]
        rows.append((_text(pieces[0]), _text(pieces[1]), f"{value:.4f}"))
    return _table(("query token", "passage token", "similarity"), rows)


def _text(piece: str) -> str:
    return f"<bdi>{html.escape(word(piece))}</bdi>"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML."""
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"
