"""The result of mining as a JSON report and as histograms of scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from m3jax.embed.embedder import M3Embedder
from m3jax.io.atomic import new_file, replace_file
from m3jax.mine.negatives import MiningResult
from m3jax.mine.options import MiningOptions

# Paul Tol's "bright" palette, distinguishable with any colour vision.
COLOURS = {"positive": "#228833", "mined": "#ee6677", "random": "#bbbbbb"}
BINS = 60


def summarize(
    result: MiningResult, options: MiningOptions, embedder: M3Embedder | None
) -> dict[str, Any]:
    """The report: model, options, sizes, counts, dropped passages by reason, scores."""
    removed = {"neg_scores_left_out": result.neg_scores_removed}
    return {
        "model": embedder.encoder.model.source if embedder else None,
        "method": options.method,
        "rules": options.selection_record(),
        "pools": result.pools,
        "bad_records": result.bad_records,
        "queries": result.queries,
        "negatives": result.negatives,
        "queries_with_fewer_than_asked": result.incomplete,
        "queries_with_none": result.empty,
        **(removed if result.neg_scores_removed else {}),
        "dropped": dict(result.dropped.most_common()),
        "scores": result.score_statistics(),
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the report as JSON; FileExistsError if `path` exists."""
    with new_file(path) as write:
        write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def require_matplotlib() -> Any:
    """matplotlib's Figure; raises ImportError with the install command."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'm3jax[evaluate]'") from error
    return Figure


def plot_scores(path: Path, result: MiningResult, title: str) -> None:
    """Writes a PNG with histograms of the scores of positives, mined and random passages.

    Each histogram sums to 1.
    """
    scores = {k: np.frombuffer(v, np.float32) for k, v in result.scores.items() if len(v)}
    figure = require_matplotlib()(figsize=(6, 3.4), dpi=150)
    axes = figure.subplots()
    if scores:
        everything = np.concatenate(list(scores.values()))
        edges = np.linspace(everything.min(), max(everything.max(), everything.min() + 1e-6), BINS)
        for group, values in scores.items():
            share = np.full(len(values), 1 / len(values))
            label = f"{group}, mean {values.mean():.3f}"
            axes.hist(values, edges, weights=share, color=COLOURS[group], alpha=0.6, label=label)
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("score of query and passage")
    axes.set_ylabel("share")
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    with replace_file(path, "wb") as stream:
        figure.savefig(stream, bbox_inches="tight", format="png")
