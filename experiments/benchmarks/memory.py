"""Memory of a training step of the paper's model, from the compiler's plan; nothing is executed.

    python experiments/benchmarks/memory.py

Fine-tuning (three heads, self-distillation, 8 passages a query, AdamW, bfloat16) of XLM-R-large on
passages of 1,024, 4,096 and 8,192 tokens, as the batch grows from 1 to 64 queries (8 to 512
passages), by three methods: plain (all rows at once), rematerialised (the paper's split-batch) and
gradient-cached, the latter two in parts of 8,192 tokens with each layer recomputed. Also the
largest batch of pairs that fits into 80 GB in the dense stage, compared with the paper's Table 10.

The plans are of XLA's CPU compiler: its attention stores scores of blocks that fused attention on a
GPU never writes, and some bfloat16 values are float32. They show the growth; a GPU needs less in
total. An hour on 2 cores; the same command continues after an interruption.

Writes experiments/results/memory.{json,md,png}.
"""

import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import jax

from m3jax import sharding
from m3jax.config import ComputeConfig, DataConfig, LossConfig, M3Config, StepConfig, TrainConfig
from m3jax.train import fit_memory

RESULTS = Path(__file__).parents[1] / "results"
LENGTHS, GROWTH, GROUP, QUERY, SUB = (1024, 4096, 8192), (1, 8, 64), 8, 512, 8192
WAYS = {"plain": ("none", False), "rematerialised": ("remat", True), "cached": ("cached", True)}
TABLE = {
    "plain": ("none", False),
    "plain, layers recomputed": ("none", True),
    "rematerialised": ("remat", True),
    "cached": ("cached", True),
}
PAPER = {1024: (262, 855), 4096: (25, 258), 8192: (6, 130)}  # Table 10: without, with split-batch
HEAD = " | paper, without | paper, with split-batch |"
MODEL, BUDGET, MOST = M3Config(), 80e9, 1 << 17


def config(way: tuple[str, bool], length: int, group: int, loss: LossConfig) -> TrainConfig:
    """The configuration of one method."""
    split, recomputed = way
    data = DataConfig(
        group_size=group,
        length_boundaries=(length,),
        batch_sizes=(MOST,),
        query_length=QUERY,
        passage_length=length,
    )
    return TrainConfig(
        data=data,
        loss=loss,
        step=StepConfig(split=split, sub_tokens=SUB),  # pyright: ignore
        compute=ComputeConfig(dtype="bfloat16", remat=recomputed),
    )


def representations(queries: int, length: int) -> int:
    """Bytes of the three representations of all texts and of their gradients, float32."""
    tokens = queries * (QUERY + GROUP * length)
    texts = queries * (1 + GROUP)
    d = MODEL.encoder.hidden_size
    return 2 * 4 * (texts * d + tokens * (1 + MODEL.colbert_dim))


def grown(way: str, length: int, queries: int) -> dict[str, Any]:
    """One point of the curves."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    made = config(WAYS[way], length, GROUP, LossConfig(self_distill_start=0))
    begun = time.perf_counter()
    plan = fit_memory.step_memory(made, MODEL, mesh, queries, (QUERY, length))
    return {
        "temporary": plan.temporary,
        "total": plan.total,
        "representations": representations(queries, length),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def largest(way: str, length: int) -> dict[str, Any]:
    """The largest batch of pairs within 80 GB, dense head only, as in the paper's second stage."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    loss = LossConfig(heads=("dense",), self_distill=False)
    try:
        # All of the 80 GB, as nothing else is in the plan.
        made = config(TABLE[way], length, 1, loss)
        size = fit_memory.fit(made, MODEL, mesh, BUDGET / fit_memory.MEMORY_FRACTION)[1][0]
    except ValueError as error:
        print(error)
        return {"batch": 0, "memory": 0}
    return {"batch": size.batch, "memory": size.memory}


def growths(points: dict[str, Any]) -> list[dict[str, Any]]:
    """The growth of temporary memory from 1x to 64x without the representations; what fits."""
    rows = []
    for way in WAYS:
        for length in LENGTHS:
            cells = {
                g: points[f"{way} {length} {g}"] for g in GROWTH if f"{way} {length} {g}" in points
            }
            if not {GROWTH[0], GROWTH[-1]} <= cells.keys():
                continue
            first, last = cells[GROWTH[0]], cells[GROWTH[-1]]
            more = last["representations"] - first["representations"]
            slope = (last["total"] - first["total"]) / (GROWTH[-1] - GROWTH[0])
            fits = max(0, math.floor(GROWTH[0] + (BUDGET - first["total"]) / slope))
            rows.append(
                {
                    "way": way,
                    "length": length,
                    "beyond": (last["temporary"] - more) / first["temporary"] - 1,
                    "temporary": {str(g): cell["temporary"] for g, cell in cells.items()},
                    "representations": last["representations"],
                    "fits": GROUP * fits,
                }
            )
    return rows


def table(result: dict[str, Any]) -> str:
    """The Markdown."""
    times = " | ".join(f"{g}x" for g in GROWTH)
    lines = [
        "# Memory of a training step, XLM-R-large (568M parameters)",
        "",
        "Plans of XLA's CPU compiler (`compiled.memory_analysis()`) without execution, from",
        "`experiments/benchmarks/memory.py`. A GPU needs less: its fused attention writes",
        "no scores, and bfloat16 stays bfloat16. The numbers show the growth.",
        "",
        "Temporary memory in GB as the batch grows from 1 query with 8 passages. The growth is",
        "from 1x to 64x, without the representations and gradients, which every method stores.",
        "",
        f"| way | tokens | {times} | representations at 64x | growth beyond them |",
        "|---|---|" + "---|" * (len(GROWTH) + 2),
    ]
    for row in result["growth"]:
        cells = [row["temporary"].get(str(g)) for g in GROWTH]
        values = " | ".join("" if x is None else f"{x / 1e9:.1f}" for x in cells)
        lines.append(
            f"| {row['way']} | {row['length']} | {values} | "
            f"{row['representations'] / 1e9:.1f} | {row['beyond']:+.1%} |"
        )
    lines += [
        "",
        "Passages that fit into a device of 80 GB, including 6.8 GB of state, interpolated",
        "linearly from 1x and 64x: three heads, a vector for every token. The paper's columns",
        "are its Table 10 (A100, 80 GB).",
        "",
        "| tokens | " + " | ".join(WAYS) + HEAD,
        "|---|" + "---|" * (len(WAYS) + 2),
    ]
    found: dict[tuple[str, int], Any] = {}
    for way in WAYS:
        for length in LENGTHS:
            first = result["points"].get(f"{way} {length} {GROWTH[0]}")
            if first:  # known before the larger sizes are
                fits = first["total"] <= BUDGET
                found[way, length] = f"{GROUP} or more" if fits else f"fewer than {GROUP}"
    found |= {
        (row["way"], row["length"]): row["fits"] or f"fewer than {GROUP}"
        for row in result["growth"]
    }
    for length in LENGTHS:
        cells = [found.get((way, length), "") for way in WAYS]
        lines.append(f"| {length} | " + " | ".join(map(str, (*cells, *PAPER[length]))) + " |")
    if result["table10"]:
        lines += [
            "",
            "The same for pairs with the dense head alone, as in the paper's second",
            "stage (query of 512 tokens; found by compiling, at most 131,072):",
            "",
            "| tokens | " + " | ".join(TABLE) + HEAD,
            "|---|" + "---|" * (len(TABLE) + 2),
        ]
        for length in LENGTHS:
            cells = [result["table10"].get(f"{way} {length}", {}).get("batch", "") for way in TABLE]
            lines.append(f"| {length} | " + " | ".join(map(str, (*cells, *PAPER[length]))) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]]) -> None:
    """Plots temporary memory by batch, one panel for each length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(LENGTHS), figsize=(11, 3.4), layout="constrained")
    for axis, length in zip(axes, LENGTHS, strict=True):
        for row in rows:
            if row["length"] == length:
                sizes = [GROUP * int(g) for g in row["temporary"]]
                heights = [x / 1e9 for x in row["temporary"].values()]
                axis.loglog(sizes, heights, "o-", label=row["way"])
        held = [representations(g, length) / 1e9 for g in GROWTH]
        axis.loglog([GROUP * g for g in GROWTH], held, "k:", label="representations + gradients")
        axis.set(title=f"{length:,} tokens", xlabel="passages", ylabel="temporary GB")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(RESULTS / "memory.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Measures what is missing from the file; prints and writes after every point."""
    path = RESULTS / "memory.json"
    result: dict[str, Any] = {"points": {}, "table10": {}}
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    result["machine"] = f"{platform.machine()}, XLA's {jax.default_backend()} compiler"
    jobs: list[Any] = [
        ("points", f"{way} {length} {queries}", grown, (way, length, queries))
        for queries in (GROWTH[0], GROWTH[-1], *GROWTH[1:-1])
        for way in reversed(WAYS)
        for length in LENGTHS
    ]
    jobs += [
        ("table10", f"{way} {length}", largest, (way, length))
        for way in reversed(TABLE)
        for length in LENGTHS
    ]
    for place, name, measure, arguments in jobs:
        if name not in result[place]:
            result[place][name] = measure(*arguments)
            print(place, name, result[place][name], flush=True)
            write(result, path)
    write(result, path)


def write(result: dict[str, Any], path: Path) -> None:
    """Writes the JSON file, the table and the plot."""
    result["growth"] = growths(result["points"])
    plot(result["growth"])
    (RESULTS / "memory.md").write_text(table(result), encoding="utf-8")
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
