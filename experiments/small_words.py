"""The loss of quality by a smaller embedding table: fewer tokens, or fewer bytes for each.

    python experiments/small_words.py --backbone DIR --data TRAIN --eval EVAL [--max-queries 50]

DIR: multilingual-e5-small as XLM-RoBERTa, used as published (instructions, mean of all tokens),
without training. Its table of 250,002 tokens is kept, pruned to the tokens that are most frequent
in the training texts, or compressed by product quantisation to 96 and 128 bytes per token. The
tasks: questions in 22 languages with English paragraphs, sentences with their translations. Writes
results/small_words.{json,md}. 20 minutes on 2 cores; the same command continues after an
interruption.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from settings import RESULTS, run

WAYS = {
    "all words, float32": None,
    "all words, 128 bytes": 128,
    "all words, 96 bytes": 96,
    "63,000 pieces, float32": ["--size", "63000", "--language-smoothing", "0.6"],
}
TASKS = ("xquad-x", "tatoeba/deu-eng", "tatoeba/swh-eng", "tatoeba/jpn-eng")


def main() -> None:
    """Makes and measures each model; writes the results after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--eval", required=True, type=Path)
    parser.add_argument("--max-queries", type=int, default=50)
    parser.add_argument("--workdir", type=Path, default=Path("build/small_words"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for number, (name, way) in enumerate(WAYS.items()):
        path = options.workdir / str(number)
        if not path.exists():
            make(options, way, path)
        rows[name] = measure(path, options)
        write(options, rows)


def make(options: argparse.Namespace, way, path: Path) -> None:
    """Writes the backbone with another embedding table."""
    from m3jax import pretrained
    from m3jax.convert import product

    if isinstance(way, list):
        texts = sorted(options.data.glob("**/*.jsonl.gz"))
        run("convert", "prune-vocabulary", options.backbone, path, *way, "--texts", *texts)
        return
    model = pretrained.load(options.backbone)
    encoder = model.params["encoder"]
    if way:
        table = np.asarray(encoder["embeddings"]["word"])
        table = product.decode(*product.fit(table, way))
        encoder = encoder | {"embeddings": encoder["embeddings"] | {"word": table}}
    params = model.params | {"encoder": encoder}
    pretrained.save(path, dataclasses.replace(model, params=params, heads_trained=True))


def measure(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """nDCG@10 in percent: the means of questions and sentences, and the three lowest languages."""
    from m3jax import M3Embedder
    from m3jax.evaluate.options import EvaluationOptions
    from m3jax.evaluate.run import evaluate_model
    from m3jax.evaluate.tasks import read_tasks

    tasks = [
        t
        for name in TASKS
        for t in read_tasks(options.eval / name, max_queries=options.max_queries)
    ]
    model = M3Embedder.from_pretrained(
        path, pooling="mean", query_instruction="query: ", passage_instruction="passage: "
    )
    evaluation_options = EvaluationOptions(methods=("dense",), passage_length=512, store="needed")
    results = evaluate_model(model, tasks, options.workdir, evaluation_options)
    values = {r.name: 100 * r.measures["nDCG@10"] for r in results}
    questions = {k: v for k, v in values.items() if k.startswith("xquad-x")}
    sentences = [v for k, v in values.items() if k not in questions]
    worst = sorted(questions, key=lambda k: questions[k])[:3]
    return {
        "questions": float(np.mean(list(questions.values()))),
        "sentences": float(np.mean(sentences)),
        **{w.partition(":")[2]: questions[w] for w in worst},
    }


def write(options: argparse.Namespace, rows: dict[str, Any]) -> None:
    """Writes the results as JSON and as a table."""
    result = {"measure": "nDCG@10", "max_queries": options.max_queries, "rows": rows}
    path = options.results / "small_words.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# A small embedding table",
        "",
        "nDCG@10 in percent of multilingual-e5-small without training, dense, "
        f"{options.max_queries} queries per set: questions in 22 languages with English "
        "paragraphs, sentences in 3 languages with their translations.",
        "",
        "| table | questions | sentences | lowest languages |",
        "|---|---:|---:|---|",
    ]
    for name, row in rows.items():
        low = ", ".join(f"{k} {v:.1f}" for k, v in list(row.items())[2:])
        lines.append(f"| {name} | {row['questions']:.1f} | {row['sentences']:.1f} | {low} |")
    text = "\n".join(lines) + "\n"
    (options.results / "small_words.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
