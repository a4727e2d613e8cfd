"""[M3 Table 4, Figure 4] at small scale: long documents truncated to 512 to 8,192 tokens, and MCLS.

    python experiments/table4_longdoc.py --model M --backbone E5 --eval EVAL

On the families longdoc and longdoc-man of EVAL, by default with the paper's fusion weights for long
documents, not those tuned for the model. The table is at the largest length; the curve has every
method at each length, and dense also with a [CLS] every 256 tokens [M3 app. B.2]. Writes
results/table4_longdoc.*, table4_curve.json and .png.
"""

import argparse
import dataclasses
import json

from mini_tables import M3_METHODS, baseline, m3_options, parser_of, set_model_names, tasks_of
from settings import log
from summary import keep_report

from m3jax import M3Embedder
from m3jax.evaluate.averages import summarise

MEASURE = "nDCG@10"
MCLS = "dense, MCLS"


def main() -> None:
    """Measures the curve; its last point is the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--mcls-lengths", type=int, nargs="*", help="default: all lengths")
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
    set_model_names(last, options)
    keep_report(options.results, last, "table4_longdoc")
    text = json.dumps({"measure": MEASURE, "curve": curve}, indent=1) + "\n"
    (options.results / "table4_curve.json").write_text(text, encoding="utf-8")
    draw(options, curve)


def results_at(options: argparse.Namespace, tasks) -> list:
    """Every method with documents of `options.passage_length` tokens, and dense with MCLS."""
    from m3jax.evaluate.run import evaluate_model

    model = M3Embedder.from_pretrained(options.model)
    results = baseline(options, tasks)
    evaluation_options = m3_options(options, methods=M3_METHODS)
    results += evaluate_model(model, tasks, options.workdir, evaluation_options, log=log)
    if options.passage_length not in options.mcls_lengths:
        return results
    mcls = m3_options(options, methods=("dense",), store="needed", cls_every=256)
    with_mcls = evaluate_model(model, tasks, options.workdir, mcls, log=log)
    return results + [dataclasses.replace(result, method=MCLS) for result in with_mcls]


def draw(options: argparse.Namespace, curve: dict[str, dict[int, float]]) -> None:
    """nDCG@10 of each method by document length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), dpi=150)
    axes = figure.subplots()
    for method, points in curve.items():
        axes.plot(list(points), list(points.values()), marker="o", markersize=3, label=method)
    axes.set_xscale("log", base=2)
    axes.set_xticks(options.lengths, [f"{n:,}" for n in options.lengths])
    axes.set_xlabel("document length, tokens")
    axes.set_ylabel(f"{MEASURE}, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(options.results / "table4_curve.png", bbox_inches="tight")


if __name__ == "__main__":
    main()
