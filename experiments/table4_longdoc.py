"""[M3 Table 4, Figure 4] at small scale: long documents cut at 512 to 8,192 tokens, with MCLS too.

    python experiments/table4_longdoc.py --model M --backbone E5 --eval EVAL

Families longdoc and longdoc-man of EVAL; by default the paper's weights for long documents, not
those that the model keeps. The table is at the longest cut; the curve has every
method at each cut, and the dense one with a [CLS] every 256 tokens [M3 app. B.2]. Writes
results/table4_longdoc.*, table4_curve.json and .png.
"""

import argparse
import dataclasses
import json

from mini_tables import M3_METHODS, baseline, m3_settings, named, parser_of, tasks_of, tell
from summary import keep_report

from m3jax import M3Embedder
from m3jax.evaluate.averages import summarise

MEASURE = "nDCG@10"
MCLS = "dense, MCLS"


def main() -> None:
    """The curve first: its last point is the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--mcls-lengths", type=int, nargs="*", help="default: all of them")
    parser.set_defaults(weights="mldr")
    options = parser.parse_args()
    if options.mcls_lengths is None:
        options.mcls_lengths = options.lengths
    tasks = tasks_of(options, ("longdoc", "longdoc-man"))
    curve: dict[str, dict[int, float]] = {}
    last = []
    for length in sorted(options.lengths):
        options.passage_length = length
        last = results_at(options, tasks)
        for method, level in summarise(last).overall[MEASURE]["all"].items():
            curve.setdefault(method, {})[length] = round(100 * level.value, 2)
    named(last, options)
    keep_report(options.results, last, "table4_longdoc")
    text = json.dumps({"measure": MEASURE, "curve": curve}, indent=1) + "\n"
    (options.results / "table4_curve.json").write_text(text, encoding="utf-8")
    draw(options, curve)


def results_at(options: argparse.Namespace, tasks) -> list:
    """Every method with documents cut at `options.passage_length`, and dense with MCLS."""
    from m3jax.evaluate.run import evaluate

    model = M3Embedder.from_pretrained(options.model)
    found = baseline(options, tasks)
    settings = m3_settings(options, methods=M3_METHODS)
    found += evaluate(model, tasks, options.work, settings, tell=tell)
    if options.passage_length not in options.mcls_lengths:
        return found
    many = m3_settings(options, methods=("dense",), store="needed", cls_every=256)
    results = evaluate(model, tasks, options.work, many, tell=tell)
    return found + [dataclasses.replace(result, method=MCLS) for result in results]


def draw(options: argparse.Namespace, curve: dict[str, dict[int, float]]) -> None:
    """Lines of nDCG@10 over the cut."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), dpi=150)
    axes = figure.subplots()
    for method, points in curve.items():
        axes.plot(list(points), list(points.values()), marker="o", markersize=3, label=method)
    axes.set_xscale("log", base=2)
    axes.set_xticks(options.lengths, [f"{n:,}" for n in options.lengths])
    axes.set_xlabel("documents cut at, tokens")
    axes.set_ylabel(f"{MEASURE}, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(options.results / "table4_curve.png", bbox_inches="tight")


if __name__ == "__main__":
    main()
