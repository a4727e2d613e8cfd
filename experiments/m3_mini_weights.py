"""The weights of the bundled model's hybrid: tuned on training pairs that it was not trained on.

    python experiments/m3_mini_weights.py --data TRAIN --work WORK

TRAIN and WORK as for train_m3_mini.py, which leaves out a sixteenth of all passages, and some
sources altogether: texts of a kind that no stage has seen say most about the texts of others.
Questions of ten languages on passages of their own and of six pairs of languages, titles and texts
of help pages in six languages and four pairs, and sentences with their translations; one pool of
all passages. With --long: questions on whole articles, papers and meetings in five languages, cut
at 2,048 tokens. Writes WORK/dev or WORK/dev-long, a task of BEIR's layout, and what `m3jax
tune-weights` finds for both sums to results/m3_mini_weights_*.json; the model (by default
WORK/m3-mini) keeps what suits short texts. 8 minutes on 2 cores.
"""

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from train_m3_mini import pick, run

FILES = (
    "qa_ja_jaquad", "qa_zh_cmrc2018", "qa_id_idkmrc", "qa_th_iapp", "qa_fa_pquad", "qa_de_mlqa",
    "qa_es_mlqa", "qa_fr_piaf", "xqa_zh-de_mlqa", "xqa_hi-es_mlqa", "xqa_ar-vi_mlqa",
    "xqa_es-zh_mlqa", "xqa_de-vi_mlqa", "xqa_swa-en_afriqa",
    "help_de", "help_es", "help_id", "help_ko", "help_ru", "help_zh-CN",
    "par_fr-en_help", "par_tr-en_help", "par_ja-en_help", "par_pl-en_help",
    "par_de-en_tatoeba", "par_ja-en_tatoeba",
)  # fmt: skip
UNSEEN = ("qa_en_squadshifts-amazon", "qa_en_squadshifts-reddit", "qa_eu_qnlieu")
LONG_FILES = tuple(f"long_{language}" for language in ("en", "ja", "zh-Hant", "ko", "fa"))
RESULTS = Path(__file__).parent / "results"
# Of a file, by its kind: questions, and more passages.
QUERIES = {"unseen": 80, "qa": 30, "xqa": 40, "help": 40, "par": 60, "long": 40}
OTHERS = {"unseen": 150, "qa": 100, "xqa": 100, "help": 100, "par": 100, "long": 40}
LONGEST = 1200  # characters, but of a long document


def main() -> None:
    """Writes the task, indexes it, tunes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--model", type=Path, help="a directory (default: WORK/m3-mini)")
    parser.add_argument("--long", action="store_true", help="for long documents")
    options = parser.parse_args()
    model = options.model or options.work / "m3-mini"
    files, length, mark = (LONG_FILES, 2048, "long_") if options.long else (FILES + UNSEEN, 256, "")
    folder = options.work / ("dev-long" if options.long else "dev")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_task(options.data, files, folder)
    run("index", "--model", model, "--corpus", folder / "corpus.jsonl", "--output",
        folder / "index", "--max-length", length)  # fmt: skip
    for method in ("all", "dense+sparse"):
        run("tune-weights", "--index", folder / "index", "--queries", folder / "queries.jsonl",
            "--qrels", folder / "qrels.tsv", "--method", method, "--kinds", "kind",
            "--output", RESULTS / f"m3_mini_weights_{mark}{method}.json",
            *(() if options.long else ("--save", model)))  # fmt: skip


def write_task(data: Path, files: Sequence[str], folder: Path) -> None:
    """Some questions of each file, their passages and more of the same file, none trained on."""
    numbers: dict[str, str] = {}
    queries, judged = [], ["query-id\tcorpus-id\tscore"]
    for name in files:
        kind = "unseen" if name in UNSEEN else name.split("_")[0]
        said = f"par_{name.split('_')[-1]}" if kind == "par" else kind
        rows = rows_of(data / f"{name}.jsonl.gz")
        for row in rows[: QUERIES[kind]]:
            query = f"q{len(queries)}"  # texts of one page have one id in every language
            queries.append({"_id": query, "text": row["query"], "kind": said})
            number = numbers.setdefault(row["pos"][0], f"p{len(numbers)}")
            judged.append(f"{query}\t{number}\t1")
        for row in rows[QUERIES[kind] : QUERIES[kind] + OTHERS[kind]]:
            numbers.setdefault(row["pos"][0], f"p{len(numbers)}")
    corpus = [{"_id": number, "text": text} for text, number in numbers.items()]
    for file, part in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
    (folder / "qrels.tsv").write_text("\n".join(judged) + "\n", encoding="utf-8")


def rows_of(file: Path) -> list[dict]:
    """A file's pairs that no stage has seen, in random order."""
    parts = (True, False) if file.name.split(".")[0] in UNSEEN else (True,)
    rows = [json.loads(line) for dev in parts for line in pick([file], 10**6, 0, dev)]
    random.Random(0).shuffle(rows)
    long = file.name.startswith("long")
    return [row for row in rows if long or len(row["pos"][0]) <= LONGEST]


if __name__ == "__main__":
    main()
