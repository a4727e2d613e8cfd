"""What mining did, as JSON and as histograms of scores."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from m3jax.io.atomic import new_file
from m3jax.mine.negatives import Mined, means
from m3jax.mine.retrieve import Retrieval
from m3jax.mine.selection import Rules

# Paul Tol's "bright", told apart with any colour vision.
COLOURS = {"positive": "#228833", "mined": "#ee6677", "random": "#bbbbbb"}
BINS = 60


def summary(mined: Mined, retrieval: Retrieval, rules: Rules) -> dict[str, Any]:
    """The report: settings, sizes, what was taken, what was dropped and why, scores."""
    model = retrieval.embedder.encoder.model.source if retrieval.embedder else None
    return {
        "model": model,
        "method": retrieval.method,
        "rules": dataclasses.asdict(rules),
        "pools": mined.pools,
        **{name.replace(" ", "_"): count for name, count in mined.counts.items()},
        "dropped": dict(mined.dropped.most_common()),
        "scores": means(mined),
    }


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Writes it; FileExistsError where `path` is there."""
    with new_file(path) as write:
        write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def require_matplotlib() -> Any:
    """matplotlib's Figure; ImportError says what to install."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'm3jax[evaluate]'") from error
    return Figure


def draw(path: Path, mined: Mined, title: str) -> None:
    """Writes a PNG: the scores of positives, mined and random negatives, each summing to 1."""
    scores = {k: np.frombuffer(v, np.float32) for k, v in mined.scores.items() if len(v)}
    figure = require_matplotlib()(figsize=(6, 3.4), dpi=150)
    axes = figure.subplots()
    if scores:
        everything = np.concatenate(list(scores.values()))
        edges = np.linspace(everything.min(), max(everything.max(), everything.min() + 1e-6), BINS)
        for kind, values in scores.items():
            share = np.full(len(values), 1 / len(values))
            label = f"{kind}, mean {values.mean():.3f}"
            axes.hist(values, edges, weights=share, color=COLOURS[kind], alpha=0.6, label=label)
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("score of query and passage")
    axes.set_ylabel("share")
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    figure.savefig(scratch, bbox_inches="tight", format="png")
    scratch.replace(path)
