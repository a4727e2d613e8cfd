"""The fusion weights of the bundled model, tuned on training pairs that it was not trained on.

    python experiments/m3_mini_weights.py --data TRAIN --workdir WORK

TRAIN and WORK are those of train_m3_mini.py, which leaves out a sixteenth of all passages, and some
sources completely: those represent unseen domains best. The pairs are questions in ten languages
with passages in the same language or (six pairs) another one, titles and texts of help pages in six
languages and four pairs, and sentences with their translations, in one pool of all passages. With
--long: questions on articles, papers and meetings in five languages, truncated to 2,048 tokens.
Writes WORK/dev or WORK/dev-long, a task in BEIR's layout, and the weights that `m3jax tune-weights`
finds for both fused methods to results/m3_mini_weights_*.json; the weights for short texts are
stored in the model (by default WORK/m3-mini). 8 minutes on 2 cores.
"""

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from settings import RESULTS, run
from train_m3_mini import pick

FILES = tuple(
    """
    qa_ja_jaquad qa_zh_cmrc2018 qa_id_idkmrc qa_th_iapp qa_fa_pquad qa_de_mlqa qa_es_mlqa
    qa_fr_piaf xqa_zh-de_mlqa xqa_hi-es_mlqa xqa_ar-vi_mlqa xqa_es-zh_mlqa xqa_de-vi_mlqa
    xqa_swa-en_afriqa help_de help_es help_id help_ko help_ru help_zh-CN par_fr-en_help
    par_tr-en_help par_ja-en_help par_pl-en_help par_de-en_tatoeba par_ja-en_tatoeba
    """.split()
)
UNSEEN = ("qa_en_squadshifts-amazon", "qa_en_squadshifts-reddit", "qa_eu_qnlieu")
LONG_FILES = tuple(f"long_{language}" for language in ("en", "ja", "zh-Hant", "ko", "fa"))
# Of each file, by its type: questions, and more passages.
QUERIES = {"unseen": 80, "qa": 30, "xqa": 40, "help": 40, "par": 60, "long": 40}
OTHERS = {"unseen": 150, "qa": 100, "xqa": 100, "help": 100, "par": 100, "long": 40}
MAX_CHARACTERS = 1200  # of a passage, except long documents


def main() -> None:
    """Writes the task, indexes it, tunes the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--workdir", metavar="WORK", required=True, type=Path)
    parser.add_argument("--model", type=Path, help="a directory (default: WORK/m3-mini)")
    parser.add_argument("--long", action="store_true", help="for long documents")
    options = parser.parse_args()
    model = options.model or options.workdir / "m3-mini"
    files, length, mark = (LONG_FILES, 2048, "long_") if options.long else (FILES + UNSEEN, 256, "")
    folder = options.workdir / ("dev-long" if options.long else "dev")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_task(options.data, files, folder)
    corpus, index = folder / "corpus.jsonl", folder / "index"
    run("index", model=model, corpus=corpus, output=index, max_length=length)
    for method in ("all", "dense+sparse"):
        run(
            "tune-weights",
            *(() if options.long else ("--save", model)),
            index=index,
            queries=folder / "queries.jsonl",
            qrels=folder / "qrels.tsv",
            method=method,
            group_by="group",
            output=RESULTS / f"m3_mini_weights_{mark}{method}.json",
        )


def write_task(data: Path, files: Sequence[str], folder: Path) -> None:
    """Writes a task: questions of each file, their passages and more of the file, all held out."""
    numbers: dict[str, str] = {}
    queries, judged = [], ["query-id\tcorpus-id\tscore"]
    for name in files:
        group = "unseen" if name in UNSEEN else name.split("_")[0]
        label = f"par_{name.split('_')[-1]}" if group == "par" else group
        rows = rows_of(data / f"{name}.jsonl.gz")
        for row in rows[: QUERIES[group]]:
            query = f"q{len(queries)}"  # ids of the files repeat in every language
            queries.append({"_id": query, "text": row["query"], "group": label})
            number = numbers.setdefault(row["pos"][0], f"p{len(numbers)}")
            judged.append(f"{query}\t{number}\t1")
        for row in rows[QUERIES[group] : QUERIES[group] + OTHERS[group]]:
            numbers.setdefault(row["pos"][0], f"p{len(numbers)}")
    corpus = [{"_id": number, "text": text} for text, number in numbers.items()]
    for file, part in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
    (folder / "qrels.tsv").write_text("\n".join(judged) + "\n", encoding="utf-8")


def rows_of(file: Path) -> list[dict]:
    """The held-out pairs of a file, in random order."""
    parts = (True, False) if file.name.split(".")[0] in UNSEEN else (True,)
    rows = [json.loads(line) for dev in parts for line in pick([file], 10**6, 0, dev)]
    random.Random(0).shuffle(rows)
    long = file.name.startswith("long")
    return [row for row in rows if long or len(row["pos"][0]) <= MAX_CHARACTERS]


if __name__ == "__main__":
    main()
