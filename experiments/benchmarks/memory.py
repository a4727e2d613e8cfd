"""What a training step of the paper's model takes in memory, by the compiler's plan; nothing runs.

    python experiments/benchmarks/memory.py

Fine-tuning (three heads, self-distillation, 8 passages a query, AdamW, bfloat16) of XLM-R-large on
passages of 1,024, 4,096 and 8,192 tokens, as the batch grows from 1 to 64 queries (8 to 512
passages), in three ways: plain (all rows at once), rematerialised (the paper's split-batch) and
gradient-cached, the latter two in parts of 8,192 tokens with each layer recomputed. Then the
largest batch of pairs that fits 80 GB in the dense stage, beside the paper's Table 10.

These are plans of XLA's CPU compiler: its attention keeps scores of blocks that fused attention on
a GPU never writes, and it widens some bfloat16 to float32. Growth is what they show; absolute
numbers of a GPU are smaller. An hour on 2 cores; run again after a stop, it goes on.

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
TABLE = {"plain": ("none", False), "plain, layers recomputed": ("none", True),
         "rematerialised": ("remat", True), "cached": ("cached", True)}  # fmt: skip
PAPER = {1024: (262, 855), 4096: (25, 258), 8192: (6, 130)}  # Table 10: without, with split-batch
HEAD = " | paper, without | paper, with split-batch |"
MODEL, BUDGET, MOST = M3Config(), 80e9, 1 << 17


def config(way: tuple[str, bool], length: int, group: int, loss: LossConfig) -> TrainConfig:
    """The step of one way."""
    split, recomputed = way
    data = DataConfig(group_size=group, length_boundaries=(length,), batch_sizes=(MOST,),
                      query_length=QUERY, passage_length=length)  # fmt: skip
    return TrainConfig(
        data=data, loss=loss, step=StepConfig(split=split, sub_tokens=SUB),  # pyright: ignore
        compute=ComputeConfig(dtype="bfloat16", remat=recomputed),
    )  # fmt: skip


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
    return {"temporary": plan.temporary, "total": plan.total,
            "representations": representations(queries, length),
            "seconds": round(time.perf_counter() - begun, 1)}  # fmt: skip


def largest(way: str, length: int) -> dict[str, Any]:
    """The largest batch of pairs within 80 GB, dense head only, as in the paper's second stage."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    loss = LossConfig(heads=("dense",), self_distill=False)
    try:
        # All of the 80 GB, as nothing else is in the plan.
        made = config(TABLE[way], length, 1, loss)
        size = fit_memory.fit(made, MODEL, mesh, BUDGET / fit_memory.SHARE)[1][0]
    except ValueError as error:
        print(error)
        return {"batch": 0, "memory": 0}
    return {"batch": size.batch, "memory": size.memory}


def growths(points: dict[str, Any]) -> list[dict[str, Any]]:
    """By how much temporary memory grows from 1x to 64x beyond the representations; what fits."""
    rows = []
    for way in WAYS:
        for length in LENGTHS:
            cells = {g: points[f"{way} {length} {g}"] for g in GROWTH
                     if f"{way} {length} {g}" in points}  # fmt: skip
            if not {GROWTH[0], GROWTH[-1]} <= cells.keys():
                continue
            first, last = cells[GROWTH[0]], cells[GROWTH[-1]]
            more = last["representations"] - first["representations"]
            slope = (last["total"] - first["total"]) / (GROWTH[-1] - GROWTH[0])
            fits = max(0, math.floor(GROWTH[0] + (BUDGET - first["total"]) / slope))
            rows.append({"way": way, "length": length,
                         "beyond": (last["temporary"] - more) / first["temporary"] - 1,
                         "temporary": {str(g): cell["temporary"] for g, cell in cells.items()},
                         "representations": last["representations"],
                         "fits": GROUP * fits})  # fmt: skip
    return rows


def table(result: dict[str, Any]) -> str:
    """The Markdown."""
    times = " | ".join(f"{g}x" for g in GROWTH)
    lines = [
        "# Memory of a training step, XLM-R-large (568M parameters)", "",
        "Plans of XLA's CPU compiler (`compiled.memory_analysis()`), nothing was run; made by",
        "`experiments/benchmarks/memory.py`. A GPU's plan is smaller: its fused attention writes",
        "no scores, and bfloat16 stays bfloat16. The growth is what these numbers show.", "",
        "Temporary memory in GB as the batch grows from 1 query with 8 passages; growth is that",
        "from 1x to 64x beyond the representations and their gradients, which all must hold.",
        "", f"| way | tokens | {times} | representations at 64x | growth beyond them |",
        "|---|---|" + "---|" * (len(GROWTH) + 2),
    ]  # fmt: skip
    for row in result["growth"]:
        cells = [row["temporary"].get(str(g)) for g in GROWTH]
        told = " | ".join("" if x is None else f"{x / 1e9:.1f}" for x in cells)
        lines.append(f"| {row['way']} | {row['length']} | {told} | "
                     f"{row['representations'] / 1e9:.1f} | {row['beyond']:+.1%} |")  # fmt: skip
    lines += ["", "Passages a device of 80 GB, its state of 6.8 GB included, on the straight line",
              "through 1x and 64x: three heads, a vector of every token kept. The paper's columns",
              "are its Table 10 (A100, 80 GB).", "",
              "| tokens | " + " | ".join(WAYS) + HEAD,
              "|---|" + "---|" * (len(WAYS) + 2)]  # fmt: skip
    found: dict[tuple[str, int], Any] = {}
    for way in WAYS:
        for length in LENGTHS:
            first = result["points"].get(f"{way} {length} {GROWTH[0]}")
            if first:  # known before the larger sizes are
                fits = first["total"] <= BUDGET
                found[way, length] = f"{GROUP} or more" if fits else f"fewer than {GROUP}"
    found |= {(row["way"], row["length"]): row["fits"] or f"fewer than {GROUP}"
              for row in result["growth"]}  # fmt: skip
    for length in LENGTHS:
        cells = [found.get((way, length), "") for way in WAYS]
        lines.append(f"| {length} | " + " | ".join(map(str, (*cells, *PAPER[length]))) + " |")
    if result["table10"]:
        lines += ["", "The same for pairs with the dense head alone, as in the paper's second",
                  "stage (query of 512 tokens; found by compiling, at most 131,072):", "",
                  "| tokens | " + " | ".join(TABLE) + HEAD,
                  "|---|" + "---|" * (len(TABLE) + 2)]  # fmt: skip
        for length in LENGTHS:
            cells = [result["table10"].get(f"{way} {length}", {}).get("batch", "") for way in TABLE]
            lines.append(f"| {length} | " + " | ".join(map(str, (*cells, *PAPER[length]))) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]]) -> None:
    """Temporary memory against the batch, a panel a length."""
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
    """Measures what is not in the file yet, prints, writes after every point."""
    path = RESULTS / "memory.json"
    result: dict[str, Any] = {"points": {}, "table10": {}}
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    result["machine"] = f"{platform.machine()}, XLA's {jax.default_backend()} compiler"
    jobs: list[Any] = [("points", f"{way} {length} {queries}", grown, (way, length, queries))
            for queries in (GROWTH[0], GROWTH[-1], *GROWTH[1:-1])
            for way in reversed(WAYS) for length in LENGTHS]  # fmt: skip
    jobs += [("table10", f"{way} {length}", largest, (way, length))
             for way in reversed(TABLE) for length in LENGTHS]  # fmt: skip
    for place, name, measure, arguments in jobs:
        if name not in result[place]:
            result[place][name] = measure(*arguments)
            print(place, name, result[place][name], flush=True)
            write(result, path)
    write(result, path)


def write(result: dict[str, Any], path: Path) -> None:
    """The file and what is made from it."""
    result["growth"] = growths(result["points"])
    plot(result["growth"])
    (RESULTS / "memory.md").write_text(table(result), encoding="utf-8")
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
