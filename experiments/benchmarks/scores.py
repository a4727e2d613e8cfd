"""In-batch scores with gradients, compared with the reference's in PyTorch: time and peak memory.

    python experiments/benchmarks/scores.py

Sparse: 8 queries and 8 passages of 512 tokens, vocabulary 250,002. Multi-vector: 64 queries of 32
vectors, 512 passages of 256, width 384. Forward and backward, float32, each measurement in a
separate process. Memory is the increase of the process at its peak over its state before the call,
after a warm-up, without the gradients, which both need; for JAX the larger of that and XLA's count
of temporary memory.

Writes experiments/results/scores.{json,png}.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results"
VOCAB, WIDTH = 250_002, 384
MAIN = {"sparse": (8, 512, 8, 512), "colbert": (64, 32, 512, 256)}
CURVE = {
    "sparse": [(b, 64, 8 * b, 512) for b in (1, 2, 4, 8, 16, 32)],
    "colbert": [(b, 32, 8 * b, 256) for b in (4, 8, 16, 32, 64, 128)],
}


def arrays(head: str, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Queries and passages of one head."""
    b, s, p, t = shape
    rng = np.random.default_rng(0)
    if head == "sparse":
        ids = [rng.integers(4, VOCAB, size).astype(np.int32) for size in ((b, s), (p, t))]
        weights = [rng.random(size).astype(np.float32) for size in ((b, s), (p, t))]
        return ids[0], weights[0], ids[1], weights[1]
    vectors = [rng.normal(size=(n, m, WIDTH)).astype(np.float32) for n, m in ((b, s), (p, t))]
    return vectors[0], np.ones((b, s), bool), vectors[1], np.ones((p, t), bool)


def in_torch(head: str, inputs: tuple[np.ndarray, ...]) -> Callable[[], Any]:
    """The reference's formulas: a vocabulary axis, a tensor of all token products."""
    import torch

    q_first, q_second, p_first, p_second = (torch.from_numpy(x) for x in inputs)
    first, second = (q_second, p_second) if head == "sparse" else (q_first, p_first)
    first.requires_grad_()
    second.requires_grad_()

    def wide(ids, weights):
        table = torch.zeros(*ids.shape, VOCAB)
        return torch.scatter(table, -1, ids.long()[..., None], weights[..., None]).max(1).values

    def once():
        first.grad = second.grad = None
        if head == "sparse":
            scores = wide(q_first, q_second) @ wide(p_first, p_second).T
        else:
            best = torch.einsum("qic,pjc->qipj", q_first, p_first).max(-1).values
            scores = best.sum(1) / q_second.sum(-1, keepdim=True)
        (scores * scores).sum().backward()
        return scores

    return once


def in_jax(head: str, inputs: tuple[np.ndarray, ...]) -> tuple[Callable[[], Any], int]:
    """The function of m3jax, and XLA's count of its temporary bytes."""
    import jax
    import jax.numpy as jnp

    from m3jax.scores.colbert import colbert_scores
    from m3jax.scores.sparse import sparse_scores

    function = sparse_scores if head == "sparse" else colbert_scores
    argnums = (1, 3) if head == "sparse" else (0, 2)
    grad = jax.value_and_grad(lambda *x: jnp.sum(function(*x) ** 2), argnums)
    compiled = jax.jit(grad).lower(*inputs).compile()
    on_device = tuple(map(jnp.asarray, inputs))
    memory = compiled.memory_analysis()
    assert memory is not None
    return lambda: jax.block_until_ready(compiled(*on_device)), memory.temp_size_in_bytes


def prepare(side: str, head: str, inputs: tuple[np.ndarray, ...]) -> tuple[Callable[[], Any], int]:
    """The function of one library, compiled for JAX, and its temporary bytes if known."""
    return in_jax(head, inputs) if side == "m3jax" else (in_torch(head, inputs), 0)


def measure(side: str, head: str, shape: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Seconds, and the increase of the process in bytes at its peak."""
    inputs = arrays(head, shape)
    once, temporary = prepare(side, head, inputs)
    prepare(side, head, arrays(head, (2, 8, 4, 8)))[0]()  # the run time's own first pages
    gradients = sum(x.nbytes for x in inputs if x.dtype == np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    once()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    beyond = max(peak - gradients, temporary)
    return {
        "seconds": statistics.median(seconds),
        "memory": beyond,
        "peak_rss": peak,
        "xla_temporary": temporary,
    }


def in_process(side: str, head: str, shape: tuple[int, ...], repeats: int) -> dict[str, float]:
    """`measure` in a new process, so that the peak is that of one measurement."""
    call = json.dumps([side, head, shape, repeats])
    command = [sys.executable, __file__, "--one", call]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def plot(curve: dict[str, list[dict[str, Any]]]) -> None:
    """Time and memory against queries x passages."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for head, rows in curve.items():
        pairs = [row["shape"][0] * row["shape"][2] for row in rows]
        axes[0].loglog(pairs, [row["seconds"] for row in rows], "o-", label=head)
        axes[1].loglog(pairs, [row["xla_temporary"] / 1e6 for row in rows], "o-", label=head)
    for axis, label in zip(axes, ("seconds, forward + backward", "temporary MB"), strict=True):
        axis.set(xlabel="queries x passages", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(RESULTS / "scores.png", dpi=110)


def main() -> None:
    """Measures both libraries, interleaved, then m3jax's curve; prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, head, shape, repeats = json.loads(options.one)
        print(json.dumps(measure(side, head, tuple(shape), repeats)))
        return
    result: dict[str, Any] = {"main": {}, "curve": {}}
    for head, shape in MAIN.items():
        ours = in_process("m3jax", head, shape, 5)
        theirs = in_process("PyTorch", head, shape, 3)
        again = in_process("m3jax", head, shape, 5)
        ours["seconds"] = max(ours["seconds"], again["seconds"])
        result["main"][head] = {"shape": shape, "m3jax": ours, "PyTorch": theirs}
        for side, row in (("m3jax", ours), ("PyTorch", theirs)):
            print(f"{head:8} {side:8} {row['seconds']:8.4f} s {row['memory'] / 1e6:9.1f} MB")
        faster, less = (theirs[k] / ours[k] for k in ("seconds", "memory"))
        print(f"{head:8} {faster:.1f} times faster, {less:.0f} times less memory")
    for head, shapes in CURVE.items():
        rows: list[dict[str, Any]] = [
            {"shape": s, **in_process("m3jax", head, s, 3)} for s in shapes
        ]
        result["curve"][head] = rows
        for row in rows:
            print(
                f"{head:8} {row['shape']!s:22} {row['seconds']:8.4f} s "
                f"{row['xla_temporary'] / 1e6:8.1f} MB"
            )
    plot(result["curve"])
    (RESULTS / "scores.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
