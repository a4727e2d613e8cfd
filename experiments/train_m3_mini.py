"""m3-mini from end to end: from a multilingual E5 backbone to a small model with three heads.

    python experiments/train_m3_mini.py --backbone DIR --data TRAIN --workdir WORK [--scale 1]

DIR: multilingual-e5-small as XLM-RoBERTa. TRAIN: training files, named by type: qa_LANG_*,
xqa_A-B_*, help_LANG, long_LANG, par_LANG-en_*, ntrex/*. Three runs start from the same model: one
stays near the backbone, one moves farther, and in one [CLS] learns only from pairs. The mean of
their parameters is the bundled model. A step is skipped if its output exists, so that the same
command continues after an interruption. The steps:

start        token embeddings in 96 bytes, 8,194 positions, heads: the identity and token weights
             fitted to the backbone
             then in WORK/near, WORK/far and WORK/plain:
cls          trains [CLS] to predict the mean over all tokens, the backbone's vector (not in
             WORK/plain)
contrastive  configs/m3_mini/contrastive.py
heads        the sparse head alone, over frozen hidden states
mine         two hard negatives for each question, by all scores of the contrastive model
finetune     configs/m3_mini/finetune.py
             then in WORK:
merged       the mean of the parameters of the runs
m3-mini      int8

--scale multiplies the examples of all stages; --smoke runs every step on few examples in minutes.
"""

import argparse
import dataclasses
import gzip
import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from settings import CONFIGS, check_settings, run

# All tokens, in few bytes: fewer tokens lose far more (experiments/small_words.py).
TOKEN_BYTES = 96
POSITIONS = 8194
# (files, examples in the near run and in the others, source whose examples share a batch: "" each
# file, "LANG" each language). The files of a row share the number in proportion to the square roots
# of their sizes.
CONTRASTIVE = (
    ("par_*_help*", (1200, 2400), "par_help"),
    ("par_*_mintaka*", (500, 900), "par_mintaka"),
    ("par_*_tatoeba*", (800, 1500), "par_tatoeba"),
    ("par_*_tanaka*", (200, 300), "par_tanaka"),
    ("ntrex/*", (3000, 4800), "ntrex"),
    ("xqa_*_afriqa*", (900, 900), "xqa_afriqa"),
    ("xqa_*-de_mlqa*", (384, 384), "xqa_de"),
    ("xqa_*-es_mlqa*", (384, 384), "xqa_es"),
    ("xqa_*-vi_mlqa*", (384, 384), "xqa_vi"),
    ("xqa_*-zh_mlqa*", (384, 384), "xqa_zh"),
    ("qa_*", (2400, 2600), ""),
    ("help_*", (900, 960), ""),
)
FINETUNE = (
    ("qa_*", (2400, 2800), "LANG"),
    ("xqa_*_afriqa*", (260, 260), "xqa_afriqa"),
    ("xqa_*_mlqa*", (450, 500), "xqa_mlqa"),
    ("help_*", (290, 350), "help"),
    ("par_*_help*", (170, 200), "par_help"),
    ("ntrex/*", (230, 230), "ntrex"),
    ("long_*", (90, 90), "long"),
)
RECIPES = {"contrastive": CONTRASTIVE, "finetune": FINETUNE}
RUNS = ("near", "far", "plain")
# Changes of the configurations, and the seeds of the sampled examples.
FIELDS = {
    "near": {
        "contrastive": ["optimizer.learning_rate=7e-5", "optimizer.freeze_layers=4"],
        "finetune": ["loss.weights.sparse=0.5"],
    },
    "far": {"contrastive": [], "finetune": []},
    "plain": {
        "contrastive": ["optimizer.freeze_layers=0"],
        "finetune": ["loss.weights.sparse=0.1"],
    },
}
SAMPLE_SEEDS = {"near": 1, "far": 1, "plain": 5}
# Not trained on: questions that need their passage as context ("What did the author think?"), which
# many passages answer; texts whose licence forbids derived works, or without a licence.
LEFT_OUT = {"squadshifts-amazon", "squadshifts-reddit", "qnlieu", "korquad-long", "tquad-long"}
# Characters of a passage, except in long_* files.
MAX_CHARACTERS = {"contrastive": 6000, "finetune": 1000}
CLS_PAIRS = 3300  # pairs whose texts train [CLS]


def main() -> None:
    """Runs all steps in order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backbone", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--workdir", metavar="WORK", required=True, type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    work, models = options.workdir, [options.workdir / name / "finetune" / "model" for name in RUNS]
    check_settings(
        work, backbone=options.backbone, data=options.data, scale=options.scale, smoke=options.smoke
    )
    step(work / "start", lambda: start(options.backbone, options.data, work))
    for name in RUNS:
        train_run(name, options.data, work, 0.02 if options.smoke else options.scale, options.smoke)
    step(work / "merged", lambda: run("convert", "merge", *models, work / "merged"))
    step(work / "m3-mini", lambda: run("convert", "quantize", work / "merged", work / "m3-mini"))


def train_run(name: str, data: Path, work: Path, scale: float, smoke: bool) -> None:
    """Trains one of the runs, from the start to a model with three heads in WORK/NAME."""
    here, fields = work / name, FIELDS[name]
    few = ["steps=4", "save_every=0"] if smoke else []
    pairs = sample("contrastive", data, here, scale)
    first = work / "start" if name == "plain" else here / "cls"
    step(first, lambda: cls(work / "start", pairs, here))
    step(
        here / "contrastive" / "model",
        lambda: train("contrastive", first, pairs, here, fields["contrastive"] + few),
    )
    step(here / "heads", lambda: heads(data, here, scale))
    step(here / "mined.jsonl", lambda: mine(here, sample("finetune", data, here, scale)))
    step(
        here / "finetune" / "model",
        lambda: train(
            "finetune", here / "heads", here / "mined.jsonl", here, fields["finetune"] + few
        ),
    )


def step(output: Path, make: Callable[[], None]) -> None:
    """Calls `make` if `output` does not exist."""
    if not output.exists():
        print(f"-- {output}", flush=True)
        make()


def start(backbone: Path, data: Path, work: Path) -> None:
    """Writes the model that training starts from: compressed embeddings, long positions, heads."""
    from m3jax import pretrained
    from m3jax.convert import product
    from m3jax.convert.heads import fit_sparse_head
    from m3jax.convert.positions import extend_positions

    model = pretrained.load(backbone)
    params, config = extend_positions(model.params, model.config, POSITIONS)
    # Dropout takes a fifth of a step on CPUs, and few examples are seen more than once.
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dropout=0.0))
    embeddings = params["encoder"]["embeddings"]
    words = product.decode(*product.fit(np.asarray(embeddings["word"]), TOKEN_BYTES))
    encoder = params["encoder"] | {"embeddings": embeddings | {"word": words}}
    texts = [row["pos"][0] for row in questions(data, 400, 0)]
    params = fit_sparse_head(params | {"encoder": encoder}, config, model.tokenizer, texts)
    pretrained.save(
        work / "start", dataclasses.replace(model, params=params, config=config, heads_trained=True)
    )


def sample(stage: str, data: Path, work: Path, scale: float) -> Path:
    """Samples the examples of a stage of the run in `work` with a fixed seed, in random order."""
    path, which, seed = work / f"{stage}.jsonl", work.name != "near", SAMPLE_SEEDS[work.name]
    if path.is_file():
        return path
    rows = []
    for pattern, counts, source in RECIPES[stage]:
        count = max(2, round(counts[which] * scale))
        for line in pick(sorted(data.glob(f"{pattern}.jsonl.gz")), count, seed):
            record = json.loads(line)
            if record["source"] in LEFT_OUT:
                continue
            if pattern.startswith("long") or len(record["pos"][0]) <= MAX_CHARACTERS[stage]:
                rows.append(record | {"source": source_name(source, record)})
    random.Random(2).shuffle(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    os.replace(scratch, path)
    return path


def source_name(source: str, record: dict) -> str:
    """The source whose examples share a batch."""
    return f"qa_{record['lang']}" if source == "LANG" else source or record["file"]


def pick(files: list[Path], count: int, seed: int, dev: bool = False) -> list[str]:
    """Samples about `count` lines of files, in proportion to the square roots of their sizes; with
    `dev`, lines that are never trained on."""
    lines = {}
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            name = json.dumps(file.name.split(".")[0])
            kept = (line for line in stream if held_out(json.loads(line)["pos"][0]) == dev)
            lines[file] = [f'{{"file": {name}, {line.lstrip()[1:]}' for line in kept]
    total = sum(len(rows) ** 0.5 for rows in lines.values())
    rng, picked = random.Random(seed), []
    for rows in lines.values():
        share = max(1, round(count * len(rows) ** 0.5 / total))
        picked += rng.sample(rows, min(share, len(rows)))
    return picked


def held_out(passage: str) -> bool:
    """Whether a passage is for development: one of 16, by a hash of its text."""
    return hashlib.sha256(passage.encode()).digest()[0] % 16 == 0


def cls(source: Path, pairs: Path, work: Path) -> None:
    """Trains [CLS] to predict the mean over all tokens, in the upper half of the layers."""
    from m3jax import pretrained
    from m3jax.train.cls_from_mean import CLSFromMeanOptions, distill_mean_pooling

    def progress(done: int, steps: int, loss: float) -> None:
        if done % 10 == 0 or done == steps:
            print(f"step {done} of {steps}  loss {loss:.4f}", flush=True)

    rows = [json.loads(line) for line in pairs.open(encoding="utf-8")][:CLS_PAIRS]
    texts = list(dict.fromkeys(text for row in rows for text in (row["query"], row["pos"][0])))
    model = pretrained.load(source)
    options = CLSFromMeanOptions(
        freeze_layers=model.config.encoder.layers // 2,
        rows=min(16, 1 + len(texts) // 40),  # few texts in a smoke run
    )
    params = distill_mean_pooling(
        model.params, model.config, model.tokenizer, texts, options, progress=progress
    )
    pretrained.save(work / "cls", dataclasses.replace(model, params=params, heads_trained=True))


def heads(data: Path, work: Path, scale: float) -> None:
    """Trains the sparse head alone, with a high learning rate."""
    from m3jax import pretrained
    from m3jax.train.sparse_head import warm_up_sparse_head

    model = pretrained.load(work / "contrastive" / "model")
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in head_rows(data, scale):
        if len(row["pos"][0]) <= MAX_CHARACTERS["contrastive"]:
            groups.setdefault(row["lang"], []).append((row["query"], row["pos"][0]))
    parts = [pairs[at : at + 250] for pairs in groups.values() for at in range(0, len(pairs), 250)]
    # Small remainders have few negatives; in a smoke run all parts are small.
    parts = [part for part in parts if len(part) >= min(30, len(max(parts, key=len)))]
    params = warm_up_sparse_head(model.params, model.config, model.tokenizer, parts)
    pretrained.save(work / "heads", dataclasses.replace(model, params=params, heads_trained=True))


def head_rows(data: Path, scale: float) -> list[dict]:
    """The questions that the sparse head trains on, in random order."""
    rows = questions(data, round(4000 * scale), 3)
    random.Random(4).shuffle(rows)
    return rows


def questions(data: Path, count: int, seed: int) -> list[dict]:
    """About `count` questions with their passages, without the sources of `LEFT_OUT`."""
    rows = [json.loads(line) for line in pick(sorted(data.glob("qa_*")), count, seed)]
    return [row for row in rows if row["source"] not in LEFT_OUT]


def mine(work: Path, questions: Path) -> None:
    """Mines hard negatives; the pool of a language may be smaller than the range of ranks."""
    run(
        *("mine", "--same-language", "--allow-small-pool"),
        model=work / "heads",
        method="all",
        input=questions,
        output=work / "mined.jsonl",
        range="1-40",
        max_positive_ratio=0.97,
        negatives=2,
        passage_length=160,
        report=work / "mined.json",
    )


def train(stage: str, model: Path, examples: Path, work: Path, fields: list[str]) -> None:
    """Runs `m3jax train`."""
    config = CONFIGS / "m3_mini" / f"{stage}.py"
    run("train", config=config, model=model, data=examples, workdir=work / stage, set=fields)


if __name__ == "__main__":
    main()
