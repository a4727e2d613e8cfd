"""m3-mini from end to end: a multilingual E5 backbone to a small model with three heads.

    python experiments/train_m3_mini.py --backbone DIR --data TRAIN --work WORK [--scale 1]

DIR: multilingual-e5-small as XLM-RoBERTa. TRAIN: training files by kind: qa_LANG_*, xqa_A-B_*,
help_LANG, long_LANG, par_LANG-en_*, ntrex/*. Steps, each skipped where its output stands, so that
the same command goes on after a stop:

start        words in 96 bytes, 8,194 positions, heads: the identity and fitted token weights
contrastive  configs/m3_mini/contrastive.py
heads        the sparse head alone, over frozen hidden states
mine         two hard negatives a question, by all scores of the stage before
finetune     configs/m3_mini/finetune.py
bundle       int8

--scale multiplies the examples of both stages; --smoke runs everything on a handful in minutes.
"""

import argparse
import dataclasses
import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

# All pieces stay, in few bytes: fewer pieces cost far more (experiments/small_words.py).
WORD_BYTES = 96
POSITIONS = 8194
CONFIGS = Path(__file__).parents[1] / "configs" / "m3_mini"
# (files, examples in all, name of their batches' source; "": each file is one; "LANG": each
# language). Files of one row share the number in proportion to the roots of their sizes.
CONTRASTIVE = (
    ("par_*_help*", 2400, "par_help"), ("par_*_mintaka*", 900, "par_mintaka"),
    ("par_*_tatoeba*", 1500, "par_tatoeba"), ("par_*_tanaka*", 300, "par_tanaka"),
    ("ntrex/*", 5400, "ntrex"), ("xqa_*_afriqa*", 900, "xqa_afriqa"),
    ("xqa_*-de_mlqa*", 384, "xqa_de"), ("xqa_*-es_mlqa*", 384, "xqa_es"),
    ("xqa_*-vi_mlqa*", 384, "xqa_vi"), ("xqa_*-zh_mlqa*", 384, "xqa_zh"),
    ("qa_*", 1920, ""), ("help_*", 960, ""),
)  # fmt: skip
FINETUNE = (
    ("qa_*", 2400, "LANG"), ("xqa_*_afriqa*", 260, "xqa_afriqa"),
    ("xqa_*_mlqa*", 450, "xqa_mlqa"), ("help_*", 290, "help"), ("par_*_help*", 170, "par_help"),
    ("ntrex/*", 230, "ntrex"), ("long_*", 60, "long"),
)  # fmt: skip
RECIPES = {"contrastive": CONTRASTIVE, "finetune": FINETUNE}
# Not fine-tuned on: questions that only their own passage gives a sense ("What did the author
# think?"), so that many other passages answer them as well; texts whose licence forbids derived
# works, or that have none upstream.
LEFT_OUT = {"squadshifts-amazon", "squadshifts-reddit", "qnlieu", "korquad-long", "tquad-long"}
# Characters: longer passages stay only in long_* files.
LONGEST = {"contrastive": 6000, "finetune": 1000}


def main() -> None:
    """All steps, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--until", default="bundle", choices=(
        "start", "contrastive", "heads", "mine", "finetune", "bundle"))  # fmt: skip
    options = parser.parse_args()
    work, scale = options.work, 0.02 if options.smoke else options.scale
    fields = ["steps=4", "save_every=0"] if options.smoke else []
    steps = {
        "start": lambda: start(options.backbone, options.data, work),
        "contrastive": lambda: train("contrastive", work / "start",
                                     sample("contrastive", options.data, work, scale), work,
                                     fields),
        "heads": lambda: heads(options.data, work, scale),
        "mine": lambda: mine(work, sample("finetune", options.data, work, scale)),
        "finetune": lambda: train("finetune", work / "heads", work / "mined.jsonl", work, fields),
        "bundle": lambda: run("convert", "quantize", work / "finetune" / "model", work / "m3-mini"),
    }  # fmt: skip
    outputs = {"contrastive": "contrastive/model", "mine": "mined.jsonl",
               "finetune": "finetune/model", "bundle": "m3-mini"}  # fmt: skip
    for name, step in steps.items():
        if not (work / outputs.get(name, name)).exists():
            print(f"-- {name}", flush=True)
            step()
        if name == options.until:
            break


def start(backbone: Path, data: Path, work: Path) -> None:
    """What training starts from: words as they will be stored, long positions, token weights."""
    from m3jax import pretrained
    from m3jax.convert import product
    from m3jax.convert.heads import fit_sparse_head
    from m3jax.convert.positions import extend_positions

    model = pretrained.load(backbone)
    params, config = extend_positions(model.params, model.config, POSITIONS)
    # Dropout's random numbers take a fifth of a step on CPUs, and no example is seen often.
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dropout=0.0))
    embeddings = params["encoder"]["embeddings"]
    words = product.decode(*product.fit(np.asarray(embeddings["word"]), WORD_BYTES))
    encoder = params["encoder"] | {"embeddings": embeddings | {"word": words}}
    texts = [json.loads(line)["pos"][0] for line in pick(sorted(data.glob("qa_*")), 400, 0)]
    params = fit_sparse_head(params | {"encoder": encoder}, config, model.tokenizer, texts)
    pretrained.save(
        work / "start", dataclasses.replace(model, params=params, config=config, notes=())
    )


def sample(stage: str, data: Path, work: Path, scale: float) -> Path:
    """The examples of a stage, by a fixed seed, in random order."""
    path = work / f"{stage}.jsonl"
    if path.is_file():
        return path
    rows = []
    for pattern, count, source in RECIPES[stage]:
        for line in pick(sorted(data.glob(f"{pattern}.jsonl.gz")), max(2, round(count * scale)), 1):
            record = json.loads(line)
            if stage == "finetune" and record["source"] in LEFT_OUT:
                continue
            if pattern.startswith("long") or len(record["pos"][0]) <= LONGEST[stage]:
                rows.append(record | {"source": named(source, record)})
    random.Random(2).shuffle(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    os.replace(scratch, path)
    return path


def named(source: str, record: dict) -> str:
    """The source whose examples share a batch."""
    return f"qa_{record['lang']}" if source == "LANG" else source or record["file"]


def pick(files: list[Path], count: int, seed: int) -> list[str]:
    """About `count` lines of files, in proportion to the roots of their sizes."""
    lines = {}
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            name = json.dumps(file.name.split(".")[0])
            lines[file] = [f'{{"file": {name}, {line.lstrip()[1:]}' for line in stream]
    total = sum(len(found) ** 0.5 for found in lines.values())
    draw, out = random.Random(seed), []
    for found in lines.values():
        share = max(1, round(count * len(found) ** 0.5 / total))
        out += draw.sample(found, min(share, len(found)))
    return out


def heads(data: Path, work: Path, scale: float) -> None:
    """A warm-up of the sparse head: it moves fast, and not through the encoder."""
    from m3jax import pretrained
    from m3jax.train.sparse_head import warm_up_sparse_head

    model = pretrained.load(work / "contrastive" / "model")
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in head_rows(data, scale):
        if len(row["pos"][0]) <= LONGEST["contrastive"]:
            groups.setdefault(row["lang"], []).append((row["query"], row["pos"][0]))
    parts = [pairs[at : at + 250] for pairs in groups.values() for at in range(0, len(pairs), 250)]
    # Small remainders teach little; a smoke run has nothing else.
    parts = [part for part in parts if len(part) >= min(30, len(max(parts, key=len)))]
    params = warm_up_sparse_head(model.params, model.config, model.tokenizer, parts)
    pretrained.save(work / "heads", dataclasses.replace(model, params=params, notes=()))


def head_rows(data: Path, scale: float) -> list[dict]:
    """What the sparse head warms up on, in random order."""
    rows = [json.loads(line) for line in pick(sorted(data.glob("qa_*")), round(4000 * scale), 3)]
    random.Random(4).shuffle(rows)
    return rows


def mine(work: Path, questions: Path) -> None:
    """Hard negatives; where a language has few passages its whole pool serves."""
    run("mine", "--model", work / "heads", "--method", "all", "--input", questions, "--output",
        work / "mined.jsonl", "--range", "1-40", "--max-share", "0.97", "--negatives", 2,
        "--same-language", "--small-pools", "--passage-length", 160, "--report",
        work / "mined.json")  # fmt: skip


def train(stage: str, model: Path, examples: Path, work: Path, fields: list[str]) -> None:
    """`m3jax train`, as a user runs it."""
    sets = [part for field in fields for part in ("--set", field)]
    run("train", "--config", CONFIGS / f"{stage}.py", "--model", model, "--data", examples,
        "--workdir", work / stage, *sets)  # fmt: skip


def run(*arguments) -> None:
    """A command of m3jax."""
    subprocess.run([sys.executable, "-m", "m3jax", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
