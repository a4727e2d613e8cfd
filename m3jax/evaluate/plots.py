"""Bar plots of a measure with confidence intervals, grouped by task or family."""

from pathlib import Path

from m3jax.evaluate.averages import Summary
from m3jax.io.atomic import replace_file
from m3jax.search.options import method_label

MAX_GROUPS = 16
# Paul Tol's "bright" palette, distinct with any colour vision.
COLOURS = {
    "bm25": "#bbbbbb",
    "dense": "#4477aa",
    "sparse": "#ee6677",
    "colbert": "#228833",
    "dense+sparse": "#ccbb44",
    "all": "#aa3377",
}
OTHERS = ("#66ccee", "#222255", "#bbcc33")  # of other method names


def draw(path: Path, summary: Summary, measure: str) -> None:
    """Writes a PNG: one group of bars for each task or, if there are many, for each family.

    Raises ImportError if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'm3jax[evaluate]'") from error
    groups = summary.tasks[measure]
    if len(groups) > MAX_GROUPS:
        groups = summary.families[measure]
    if len(groups) > 1:
        groups = groups | {"mean of families": summary.overall[measure]["all"]}
    present = dict.fromkeys(method for row in groups.values() for method in row)
    others = [method for method in present if method not in COLOURS]
    colours = COLOURS | {m: OTHERS[i % len(OTHERS)] for i, m in enumerate(others)}
    methods = [method for method in colours if method in present]
    figure = Figure(figsize=(max(5.0, 1.6 + 0.22 * len(groups) * (len(methods) + 1)), 3.6), dpi=150)
    axes = figure.subplots()
    width = 0.84 / max(1, len(methods))
    for number, method in enumerate(methods):
        positions, values, below, above = [], [], [], []
        for group, row in enumerate(groups.values()):
            if method in row:
                level = row[method].as_json()
                positions.append(group + (number - (len(methods) - 1) / 2) * width)
                values.append(100 * level["value"])
                below.append(max(0.0, 100 * (level["value"] - level["interval"][0])))
                above.append(max(0.0, 100 * (level["interval"][1] - level["value"])))
        axes.bar(
            positions,
            values,
            0.92 * width,
            yerr=[below, above],
            color=colours[method],
            label=method_label(method),
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
    axes.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right", fontsize=8)
    axes.set_ylabel(f"{measure}, percent")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, ncols=3, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    with replace_file(path, "wb") as stream:
        figure.savefig(stream, bbox_inches="tight", format="png")
