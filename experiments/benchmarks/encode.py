"""Encoding speed compared with FlagEmbedding and sentence-transformers, on one machine and model.

    python experiments/benchmarks/encode.py --model DIR --flag-python VENV/bin/python

DIR is a Hugging Face directory with heads (`m3jax convert init-heads` makes one of any
XLM-RoBERTa). The texts are paragraphs of the sample corpus truncated to 8 to 512 tokens,
log-uniform. m3jax and FlagEmbedding compute all three outputs; sentence-transformers has only the
dense one. Each library runs in separate processes, interleaved, so that other load on the machine
affects all equally; loading and compilation are measured separately. Prints a table and writes
experiments/results/encode.json.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parents[1] / "results" / "encode.json"
SIDES = {
    "m3jax": "all three",
    "FlagEmbedding, batch 256 (its default)": "all three",
    "FlagEmbedding, batch 32": "all three",
    "sentence-transformers, batch 32": "dense only",
}


def make_texts(model: str, count: int) -> tuple[list[str], int]:
    """`count` texts of 8 to 512 tokens and their total number of tokens."""
    from m3jax.data.sample import sample_passages
    from m3jax.text.tokenizer import load_tokenizer

    tokens = load_tokenizer(model)
    pool = [ids[1:-1] for ids in tokens.encode([p.text for p in sample_passages()], 8192)]
    stream = np.concatenate([pool[i] for i in np.random.default_rng(0).permutation(len(pool))])
    lengths = np.exp(np.random.default_rng(1).uniform(np.log(8), np.log(512), count)).astype(int)
    starts = np.random.default_rng(2).integers(0, len(stream) - 512, count)
    pairs = zip(starts, lengths, strict=True)
    texts = [tokens.decode(stream[a : a + n - 2].tolist()) for a, n in pairs]
    return texts, sum(len(ids) for ids in tokens.encode(texts, 512))


def time_m3jax(model: str, texts: list[str]) -> dict[str, float]:
    """Seconds of a pass, and the additional seconds of the first one."""
    from m3jax import M3Embedder

    embedder = M3Embedder.from_pretrained(model)

    def once() -> float:
        start = time.perf_counter()
        embedder.encode(texts, max_length=512, return_sparse=True, return_colbert_vecs=True)
        return time.perf_counter() - start

    first, second = once(), once()
    return {"seconds": second, "compile_seconds": first - second}


def time_flag(model: str, texts: list[str], batch: int) -> dict[str, float]:
    """Seconds of FlagEmbedding's encode."""
    from FlagEmbedding import BGEM3FlagModel  # pyright: ignore[reportMissingImports]

    embedder = BGEM3FlagModel(model, use_fp16=False, devices=["cpu"])
    outputs = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    embedder.encode(texts[:8], batch_size=8, max_length=512, **outputs)
    start = time.perf_counter()
    embedder.encode(texts, batch_size=batch, max_length=512, **outputs)
    return {"seconds": time.perf_counter() - start}


def time_sentence_transformers(model: str, texts: list[str]) -> dict[str, float]:
    """Seconds of sentence-transformers' encode."""
    from sentence_transformers import SentenceTransformer

    embedder = SentenceTransformer(model, device="cpu")
    embedder.max_seq_length = 512
    embedder.encode(texts[:8])
    start = time.perf_counter()
    embedder.encode(texts, batch_size=32)
    return {"seconds": time.perf_counter() - start}


def worker(side: str, model: str, texts: list[str]) -> dict[str, float]:
    """One measurement, in a new process."""
    if side == "m3jax":
        return time_m3jax(model, texts)
    if side.startswith("FlagEmbedding"):
        return time_flag(model, texts, 256 if "256" in side else 32)
    return time_sentence_transformers(model, texts)


def main() -> None:
    """Measures every library; prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--flag-python", help="a Python that has FlagEmbedding installed")
    parser.add_argument("--texts", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.model, json.load(sys.stdin))))
        return
    texts, tokens = make_texts(options.model, options.texts)
    sides = [s for s in SIDES if options.flag_python or not s.startswith("Flag")]
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.repeats):
        for side in sides:
            python = options.flag_python if side.startswith("Flag") else sys.executable
            command = [python, __file__, "--model", options.model, "--worker", side]
            out = subprocess.run(
                command, input=json.dumps(texts), capture_output=True, text=True, check=True
            )
            runs[side].append(json.loads(out.stdout.splitlines()[-1]))
    ours = statistics.median(run["seconds"] for run in runs["m3jax"])
    rows = []
    for side in sides:
        seconds = statistics.median(run["seconds"] for run in runs[side])
        row = {"side": side, "outputs": SIDES[side], "tokens_per_second": round(tokens / seconds)}
        rows.append(row | {"m3jax_is_faster_by": round(seconds / ours, 2), "runs": runs[side]})
        print(
            f"{side:40} {SIDES[side]:10} {row['tokens_per_second']:7} tokens/s "
            f"{seconds / ours:6.2f}x the time of m3jax"
        )
    machine = f"{platform.processor() or platform.machine()}, {len_cpus()} cores"
    result = {"machine": machine, "texts": len(texts), "tokens": tokens, "sides": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def len_cpus() -> int:
    """The cores this process may use."""
    import os

    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
