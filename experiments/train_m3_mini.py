"""m3-mini from end to end: a multilingual E5 backbone to a small model with three heads.

    python experiments/train_m3_mini.py --backbone DIR --data TRAIN --work WORK [--scale 1]

DIR: multilingual-e5-small as XLM-RoBERTa. TRAIN: training files by kind: qa_LANG_*, xqa_A-B_*,
help_LANG, long_LANG, par_LANG-en_*, ntrex/*. Steps, each skipped where its output stands, so that
the same command goes on after a stop:

start        words in 96 bytes, 8,194 positions, heads: the identity and fitted token weights
contrastive  configs/m3_mini/contrastive.py
mine         two hard negatives a question, by the dense vectors of the stage before
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
# (files, examples in all, name of their batches' source; "": each file is one). Files of one row
# share the number in proportion to the roots of their sizes.
CONTRASTIVE = (
    ("par_*_help*", 4000, "par_help"), ("par_*_mintaka*", 1500, "par_mintaka"),
    ("par_*_tatoeba*", 2500, "par_tatoeba"), ("par_*_tanaka*", 500, "par_tanaka"),
    ("ntrex/*", 9000, "ntrex"), ("xqa_*_afriqa*", 1500, "xqa_afriqa"),
    ("xqa_*-de_mlqa*", 640, "xqa_de"), ("xqa_*-es_mlqa*", 640, "xqa_es"),
    ("xqa_*-vi_mlqa*", 640, "xqa_vi"), ("xqa_*-zh_mlqa*", 640, "xqa_zh"),
    ("qa_*", 3200, ""), ("help_*", 1600, ""),
)  # fmt: skip
FINETUNE = (
    ("qa_*", 9000, ""), ("xqa_*_afriqa*", 900, "xqa_afriqa"), ("xqa_*_mlqa*", 1500, "xqa_mlqa"),
    ("help_*", 1600, "help"), ("par_*_help*", 800, "par_help"), ("ntrex/*", 1600, "ntrex"),
    ("long_*", 300, "long"),
)  # fmt: skip
SHORT = 6000  # characters: longer passages stay only in long_* files


def main() -> None:
    """All steps, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--until", choices=("start", "contrastive", "mine", "finetune", "bundle"),
                        default="bundle")  # fmt: skip
    options = parser.parse_args()
    work, scale = options.work, 0.02 if options.smoke else options.scale
    fields = ["steps=4", "save_every=0"] if options.smoke else []
    steps = {
        "start": lambda: start(options.backbone, options.data, work),
        "contrastive": lambda: train("contrastive", work / "start",
                                     sample(CONTRASTIVE, options.data, work / "contrastive.jsonl",
                                            scale), work, fields),
        "mine": lambda: mine(work, sample(FINETUNE, options.data, work / "finetune.jsonl", scale)),
        "finetune": lambda: train("finetune", work / "contrastive" / "model",
                                  work / "mined.jsonl", work, fields),
        "bundle": lambda: run("convert", "quantize", work / "finetune" / "model", work / "m3-mini"),
    }  # fmt: skip
    outputs = {"start": "start", "contrastive": "contrastive/model", "mine": "mined.jsonl",
               "finetune": "finetune/model", "bundle": "m3-mini"}  # fmt: skip
    for name, step in steps.items():
        if not (work / outputs[name]).exists():
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


def sample(recipe, data: Path, path: Path, scale: float) -> Path:
    """The examples of a stage, by a fixed seed, in random order."""
    if path.is_file():
        return path
    rows = []
    for pattern, count, source in recipe:
        for line in pick(sorted(data.glob(f"{pattern}.jsonl.gz")), max(2, round(count * scale)), 1):
            record = json.loads(line)
            if pattern.startswith("long") or len(record["pos"][0]) <= SHORT:
                rows.append(record | {"source": source or record["file"]})
    random.Random(2).shuffle(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    os.replace(scratch, path)
    return path


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


def mine(work: Path, questions: Path) -> None:
    """Hard negatives; where a language has few passages its whole pool serves."""
    run("mine", "--model", work / "contrastive" / "model", "--input", questions, "--output",
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
