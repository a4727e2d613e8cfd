"""Baselines on small tasks: BM25 and a mean-pooled E5 backbone.

    python experiments/baselines.py --model DIR --eval EVAL [--max-queries 300] [--name NAME]

DIR is a multilingual E5 model (Hugging Face layout); EVAL holds tasks of BEIR's layout: XQuAD in
six languages, XQuAD questions in 22 languages with English paragraphs, Tatoeba sentences with
English translations, and long documents. The backbone gets the instructions "query: " and
"passage: ", its dense vector is the mean of all tokens, and passages are truncated to 512 tokens;
BM25 reads 8,192. About 15 minutes on 2 cores; the same command continues after an interruption.
Writes experiments/results/baselines.*.
"""

import argparse
from pathlib import Path

from settings import RESULTS, log
from summary import keep_report

TASKS = [
    *(f"xquad/{language}" for language in ("en", "de", "ar", "zh", "ru", "th")),
    "xquad-x",
    *(f"tatoeba/{language}-eng" for language in ("deu", "swh", "jpn")),
    "longdoc/en",
    "longdoc-man/de",
]


def main() -> None:
    """Evaluates the baselines and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", help="of the model in the tables (default: its directory's)")
    parser.add_argument("--eval", required=True, help="a directory of task families")
    parser.add_argument("--max-queries", type=int, help="a fixed random sample of each query set")
    parser.add_argument("--passage-length", type=int, default=512)
    parser.add_argument(
        "--workdir", default="build/baselines", help="embeddings and stored results"
    )
    options = parser.parse_args()

    from m3jax import M3Embedder
    from m3jax.evaluate.options import EvaluationOptions
    from m3jax.evaluate.run import evaluate_model
    from m3jax.evaluate.tasks import read_task

    tasks = [
        read_task(Path(options.eval) / name, name=name, max_queries=options.max_queries)
        for name in TASKS
    ]
    embedder = M3Embedder.from_pretrained(
        options.model, pooling="mean", query_instruction="query: ", passage_instruction="passage: "
    )
    evaluation_options = EvaluationOptions(
        methods=("bm25", "dense"), passage_length=options.passage_length, store="needed"
    )
    results = evaluate_model(embedder, tasks, options.workdir, evaluation_options, log=log)
    for result in results:  # without the path of the model
        result.protocol["model"] = options.name or Path(options.model).name
    keep_report(RESULTS, results, "baselines")


if __name__ == "__main__":
    main()
