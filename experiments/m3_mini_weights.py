"""The weights of the bundled model's hybrid: tuned on training pairs that it was not trained on.

    python experiments/m3_mini_weights.py --data TRAIN --work WORK

TRAIN and WORK as for train_m3_mini.py. Questions of eight languages on passages of their own and
of six pairs of languages, titles and texts of help pages in six languages and four pairs, and
sentences with their translations; one pool of all passages. Writes WORK/dev, a task of BEIR's
layout, and what `m3jax tune-weights` finds for both sums to results/m3_mini_weights_*.json.
5 minutes on 2 cores.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

from train_m3_mini import head_rows, pick, run

FILES = (
    "qa_ja_jaquad", "qa_zh_cmrc2018", "qa_id_idkmrc", "qa_th_iapp", "qa_fa_pquad", "qa_de_mlqa",
    "qa_es_mlqa", "qa_fr_piaf", "xqa_zh-de_mlqa", "xqa_hi-es_mlqa", "xqa_ar-vi_mlqa",
    "xqa_es-zh_mlqa", "xqa_de-vi_mlqa", "xqa_swa-en_afriqa",
    "help_de", "help_es", "help_id", "help_ko", "help_ru", "help_zh-CN",
    "par_fr-en_help", "par_tr-en_help", "par_ja-en_help", "par_pl-en_help",
    "par_de-en_tatoeba", "par_ja-en_tatoeba",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"
QUERIES, PASSAGES, LONGEST = 80, 180, 1200  # of a file; characters


def main() -> None:
    """Writes the task, indexes it, tunes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--model", default="m3-mini")
    options = parser.parse_args()
    folder = options.work / "dev"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_task(options.data, used(options.data, options.work), folder)
    run("index", "--model", options.model, "--corpus", folder / "corpus.jsonl", "--output",
        folder / "index", "--max-length", 256)  # fmt: skip
    for method in ("all", "dense+sparse"):
        run("tune-weights", "--index", folder / "index", "--queries", folder / "queries.jsonl",
            "--qrels", folder / "qrels.tsv", "--method", method,
            "--output", RESULTS / f"m3_mini_weights_{method}.json")  # fmt: skip


def used(data: Path, work: Path) -> set[str]:
    """The passages of every stage of the training."""
    files = (work / "contrastive.jsonl", work / "finetune.jsonl")
    rows = (json.loads(line) for file in files for line in file.open(encoding="utf-8"))
    return {row["pos"][0] for row in (*rows, *head_rows(data, 1.0))}


def write_task(data: Path, seen: set[str], folder: Path) -> None:
    """Some questions of each file, their passages and more of the same file."""
    numbers: dict[str, str] = {}
    queries, judged = [], ["query-id\tcorpus-id\tscore"]
    for name in FILES:
        lines = pick([data / f"{name}.jsonl.gz"], 10**6, 0)
        rows = [row for row in map(json.loads, lines)
                if row["pos"][0] not in seen and len(row["pos"][0]) <= LONGEST]  # fmt: skip
        random.Random(0).shuffle(rows)
        for row in rows[:QUERIES]:
            query = f"q{len(queries)}"  # texts of one page have one id in every language
            queries.append({"_id": query, "text": row["query"]})
            number = numbers.setdefault(row["pos"][0], f"p{len(numbers)}")
            judged.append(f"{query}\t{number}\t1")
        for row in rows[QUERIES:PASSAGES]:
            numbers.setdefault(row["pos"][0], f"p{len(numbers)}")
    corpus = [{"_id": number, "text": text} for text, number in numbers.items()]
    for file, part in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
    (folder / "qrels.tsv").write_text("\n".join(judged) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
