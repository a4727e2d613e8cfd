"""An HTML page that explains scores: one file without scripts or external resources.

Every text is escaped, and keeps its own writing direction (dir="auto"). Colours are translucent, so
that the page can be read in light and dark mode.
"""

import html
from collections.abc import Sequence

import numpy as np

from m3jax.explain.alignment import Explanation, TokenView, label

LEXICAL, LATE = "68,119,170", "204,51,17"
SCORES = {
    "dense": "dense",
    "sparse": "sparse",
    "multi-vector": "colbert",
    "weighted sum": "all",
}  # label -> key of `Explanation.scores`
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


def explanation_page(explanations: Sequence[Explanation], fusion: dict[str, float]) -> str:
    """The page of one query and its passages, in the given order.

    `fusion` holds the weights of dense, sparse and colbert in the weighted sum.
    """
    query = explanations[0].query
    title = html.escape(" ".join(query.text.split()))
    weights = ", ".join(f"{name} {fusion[key]:g}" for name, key in SCORES.items() if key in fusion)
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
        *(_passage(number, each) for number, each in enumerate(explanations, start=1)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> str:
    return (
        f'<span style="background:rgba({LEXICAL},.45)">blue</span>: lexical weight, underlined '
        "if both texts have the token; "
        f'<span style="background:rgba({LATE},.45)">red</span>: what a token adds to the '
        "multi-vector score, as the best match of query tokens."
    )


def _passage(number: int, explanation: Explanation) -> str:
    scores = "".join(f"<td>{explanation.scores[key]:.4f}</td>" for key in SCORES.values())
    names = "".join(f"<th>{name}</th>" for name in SCORES)
    view = explanation.passage
    shared = set(explanation.query.ids) & set(view.ids)
    marks = [i in shared and bool(w > 0) for i, w in zip(view.ids, view.weights, strict=True)]
    share = _late_share(explanation)
    added = [f"adds {value:.4f}" if value else "" for value in share.tolist()]
    return "\n".join(
        [
            f'<section><h2 dir="auto">{number}. {html.escape(" ".join(view.text.split()))}</h2>',
            f"<table><tr>{names}</tr><tr>{scores}</tr></table>",
            '<p class="what">lexical</p>',
            _line(view, _alphas(view.weights), LEXICAL, _weight_notes(view), marks),
            '<p class="what">multi-vector</p>',
            _line(view, _alphas(share), LATE, added),
            _details("tokens in both texts", _matches(explanation)),
            _details("the best match of each query token", _alignment(explanation)),
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
    """The text token by token; a note appears when the pointer is over its token."""
    spans = []
    last = len(view.tokens) - 1
    for i, token in enumerate(view.tokens):
        css_class = "end" if i in (0, last) else "shared" if marks and marks[i] else ""
        attributes = f' class="{css_class}"' if css_class else ""
        if alphas[i]:
            attributes += f' style="background:rgba({colour},{alphas[i]:.2f})"'
        if notes[i]:
            attributes += f' title="{html.escape(notes[i])}"'
        text = html.escape(token.removeprefix("▁"))
        space = " " if token.startswith("▁") or css_class == "end" else ""
        # The direction of a line is that of its first letter outside of <bdi>, so not of "<s>".
        tag = "bdi" if css_class == "end" else "span"
        spans.append(f"{space}<{tag}{attributes}>{text}</{tag}>")
    return f'<p class="tokens" dir="auto">{"".join(spans).strip()}</p>'


def _alphas(values: np.ndarray) -> list[float]:
    """Opacity of each token: 0 for a value of 0, else 0.06 to 0.75."""
    most = float(np.max(values, initial=0.0))
    if most <= 0:
        return [0.0] * len(values)
    return np.where(values > 0, 0.06 + 0.69 * values / most, 0.0).tolist()


def _weight_notes(view: TokenView) -> list[str]:
    return [f"weight {w:.4f}" if w else "" for w in view.weights]


def _late_share(explanation: Explanation) -> np.ndarray:
    """What each passage token adds to s_mul; <s> has no vector and adds 0."""
    similarity = explanation.similarity
    share = np.zeros(len(explanation.passage.tokens))
    np.add.at(share, explanation.best + 1, similarity.max(axis=1) / len(similarity))
    return share


def _matches(explanation: Explanation) -> str:
    rows = [
        (_text(m.token), *(f"{x:.4f}" for x in (m.query_weight, m.passage_weight, m.product)))
        for m in explanation.matches
    ]
    return _table(("token", "weight in the query", "in the passage", "product"), rows)


def _alignment(explanation: Explanation) -> str:
    rows = []
    for row, column in enumerate(explanation.best):
        query_token = explanation.query.tokens[row + 1]
        passage_token = explanation.passage.tokens[int(column) + 1]
        value = f"{explanation.similarity[row, column]:.4f}"
        rows.append((_text(query_token), _text(passage_token), value))
    return _table(("query token", "passage token", "similarity"), rows)


def _text(token: str) -> str:
    return f"<bdi>{html.escape(label(token))}</bdi>"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML, names are text."""
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"
