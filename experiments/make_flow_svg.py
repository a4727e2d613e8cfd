"""Draws docs/flow.svg: from texts to scores, and from examples to a model.

    python experiments/make_flow_svg.py

The output is deterministic. Colours follow the light or dark mode of the browser.
"""

import argparse
from html import escape
from pathlib import Path
from typing import NamedTuple

STYLE = """
  text { font: 14px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328; }
  .small { font-size: 12px; fill: #59636e; }
  .formula { font-family: ui-monospace, 'DejaVu Sans Mono', monospace; font-size: 12px; }
  .box { fill: #f6f8fa; stroke: #8c959f; }
  .dense { fill: #4477aa33; stroke: #4477aa; }
  .sparse { fill: #ee667733; stroke: #ee6677; }
  .colbert { fill: #22883333; stroke: #228833; }
  .line { fill: none; stroke: #8c959f; stroke-width: 1.5; }
  .tip { fill: #8c959f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; } .small { fill: #9198a1; } .box { fill: #151b23; }
  }
"""
HEIGHT = 46


class Box(NamedTuple):
    """A rounded box; its second line is small."""

    name: str
    x: int
    y: int
    width: int
    title: str
    line: str
    kind: str = "box"


BOXES = [
    Box("texts", 16, 84, 132, "texts", "1 to 8,192 tokens"),
    Box("encoder", 196, 84, 142, "XLM-RoBERTa", "one pass"),
    Box("dense", 396, 16, 206, "dense", "[CLS], normalised", "dense"),
    Box("sparse", 396, 84, 206, "sparse", "one weight a token", "sparse"),
    Box("colbert", 396, 152, 206, "multi-vector", "one vector a token", "colbert"),
    Box("search", 732, 84, 212, "hybrid search", "weighted sum of the scores"),
    Box("examples", 16, 258, 132, "examples", "query, pos, neg"),
    Box("train", 196, 258, 142, "train", "the same encoder"),
    Box("losses", 396, 258, 206, "InfoNCE of each head", "negatives of all devices"),
    Box("teacher", 732, 258, 212, "teacher", "their weighted sum, no gradient"),
]
FORMULAS = [("dense", "e_q · e_p"), ("sparse", "Σ w_q w_p"), ("colbert", "mean max E_q·E_p")]
ARROWS = [
    ("texts", "encoder"),
    ("encoder", "dense"),
    ("encoder", "sparse"),
    ("encoder", "colbert"),
    ("dense", "search"),
    ("sparse", "search"),
    ("colbert", "search"),
    ("examples", "train"),
    ("train", "losses"),
    ("losses", "teacher"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws docs/flow.svg.")
    default = Path(__file__).parents[1] / "docs" / "flow.svg"
    parser.add_argument("--output", type=Path, default=default)
    options = parser.parse_args()
    options.output.write_text(picture(), encoding="utf-8")
    print(f"wrote {options.output}")


def picture() -> str:
    """The SVG as text."""
    boxes = {box.name: box for box in BOXES}
    title = "One encoder gives three representations; their sum ranks, and teaches each head"
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 372" role="img">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>',
        *(arrow(boxes[a], boxes[b]) for a, b in ARROWS),
        *map(draw_box, BOXES),
        *(formula(boxes[name], text) for name, text in FORMULAS),
        back(boxes["teacher"], boxes["losses"]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def draw_box(box: Box) -> str:
    middle = box.x + box.width / 2
    return (
        f'<rect class="{box.kind}" x="{box.x}" y="{box.y}" width="{box.width}" '
        f'height="{HEIGHT}" rx="6"/>'
        f'<text x="{middle:g}" y="{box.y + 20}" text-anchor="middle">{escape(box.title)}</text>'
        f'<text class="small" x="{middle:g}" y="{box.y + 37}" text-anchor="middle">'
        f"{escape(box.line)}</text>"
    )


def arrow(first: Box, second: Box) -> str:
    """From the right side of one to the left side of the other."""
    x, y = first.x + first.width, first.y + HEIGHT // 2
    to_x, to_y = second.x - 2, second.y + HEIGHT // 2
    bend = to_x - 34  # turn late, so that the text along the line stays readable
    path = f"M{x} {y}H{bend}C{bend + 18} {y} {to_x - 18} {to_y} {to_x} {to_y}"
    return f'<path class="line" marker-end="url(#tip)" d="{path}"/>'


def formula(box: Box, text: str) -> str:
    """The formula of the score, along the straight part of the line that leaves the box."""
    below = box.name == "colbert"
    x, y = box.x + box.width + 6, box.y + HEIGHT // 2 + (16 if below else -6)
    return f'<text class="formula" x="{x}" y="{y}">{escape(text)}</text>'


def back(first: Box, second: Box) -> str:
    """The arrow from the teacher back to the heads."""
    x, to_x = first.x + first.width // 2, second.x + second.width // 2
    y = first.y + HEIGHT
    low = y + 24
    path = f"M{x} {y}V{low}H{to_x}V{y + 2}"
    return (
        f'<path class="line" marker-end="url(#tip)" d="{path}"/>'
        f'<text class="small" x="{(x + to_x) // 2}" y="{low + 16}" text-anchor="middle">'
        "self-knowledge distillation: the sum teaches every head</text>"
    )


if __name__ == "__main__":
    main()
