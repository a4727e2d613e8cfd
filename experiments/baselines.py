"""BM25 and a mean-pooled E5 backbone on small real tasks: what an M3 must beat.

    python experiments/baselines.py --model DIR --eval EVAL [--max-queries 300] [--name NAME]

DIR is a multilingual E5 model (Hugging Face layout); EVAL holds tasks of BEIR's layout: XQuAD in
six languages, XQuAD questions in 22 languages against English paragraphs, Tatoeba sentences to
English, and long documents. The backbone reads "query: " and "passage: " in front of texts, its
dense vector is the mean of all tokens, and passages are cut at 512 tokens; BM25 sees 8,192. About
15 minutes on 2 cores. Run again after a stop, it goes on. Writes experiments/results/baselines.*.
"""

import argparse
from pathlib import Path

from summary import RESULTS, keep_report

TASKS = [
    *(f"xquad/{language}" for language in ("en", "de", "ar", "zh", "ru", "th")),
    "xquad-x",
    *(f"tatoeba/{language}-eng" for language in ("deu", "swh", "jpn")),
    "longdoc/en",
    "longdoc-man/de",
]


def main() -> None:
    """Encodes, searches, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", help="of the model in the tables (default: its folder's)")
    parser.add_argument("--eval", required=True, help="a folder of task families")
    parser.add_argument("--max-queries", type=int, help="a fixed random sample of each query set")
    parser.add_argument("--passage-length", type=int, default=512)
    parser.add_argument("--work", default="build/baselines", help="embeddings and single results")
    options = parser.parse_args()

    from m3jax import M3Embedder
    from m3jax.evaluate.protocol import Settings
    from m3jax.evaluate.run import evaluate
    from m3jax.evaluate.tasks import read_task

    tasks = [
        read_task(Path(options.eval) / name, name=name, max_queries=options.max_queries)
        for name in TASKS
    ]
    embedder = M3Embedder.from_pretrained(
        options.model, pooling="mean", query_instruction="query: ", passage_instruction="passage: "
    )
    settings = Settings(
        methods=("bm25", "dense"), passage_length=options.passage_length, store="needed"
    )
    results = evaluate(embedder, tasks, Path(options.work), settings, tell=tell)
    for result in results:  # where the model lay is nobody's business
        result.protocol["model"] = options.name or Path(options.model).name
    keep_report(RESULTS, results, "baselines")


def tell(result, kept: bool) -> None:
    """One line a result."""
    value = 100 * result.measures[result.primary]
    where = ":".join(part for part in (result.task, result.query_set) if part)
    print(f"{where:24} {result.method:6} {result.primary} {value:.1f}{' kept' * kept}", flush=True)


if __name__ == "__main__":
    main()
