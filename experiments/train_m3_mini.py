"""m3-mini from end to end: a multilingual E5 backbone to a small model with three heads.

    python experiments/train_m3_mini.py --backbone DIR --data TRAIN --work WORK [--scale 1]

DIR: multilingual-e5-small as XLM-RoBERTa. TRAIN: training files by kind: qa_LANG_*, xqa_A-B_*,
help_LANG, long_LANG, par_LANG-en_*, ntrex/*. From one start three runs: one held near to the
backbone, one that goes farther, one whose [CLS] learns from pairs alone; the mean of their
parameters ships. Steps, each skipped where its output stands, so that the same command goes on
after a stop:

start        words in 96 bytes, 8,194 positions, heads: the identity and fitted token weights
             and then in WORK/near, WORK/far and WORK/plain
cls          [CLS] learns what the mean over all tokens, the backbone's own vector, knows (not in
             WORK/plain)
contrastive  configs/m3_mini/contrastive.py
heads        the sparse head alone, over frozen hidden states
mine         two hard negatives a question, by all scores of the stage before
finetune     configs/m3_mini/finetune.py
             and in WORK again
merged       the mean of the parameters of the runs
bundle       int8

--scale multiplies the examples of all stages; --smoke runs everything on a handful in minutes.
"""

import argparse
import dataclasses
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from settings import belongs

# All pieces stay, in few bytes: fewer pieces cost far more (experiments/small_words.py).
WORD_BYTES = 96
POSITIONS = 8194
CONFIGS = Path(__file__).parents[1] / "configs" / "m3_mini"
# (files, examples in the near run and in the others, name of their batches' source; "": each file
# is one; "LANG": each language). Files of one row share the number in proportion to the roots of
# their sizes.
CONTRASTIVE = (
    ("par_*_help*", (1200, 2400), "par_help"), ("par_*_mintaka*", (500, 900), "par_mintaka"),
    ("par_*_tatoeba*", (800, 1500), "par_tatoeba"), ("par_*_tanaka*", (200, 300), "par_tanaka"),
    ("ntrex/*", (3000, 4800), "ntrex"), ("xqa_*_afriqa*", (900, 900), "xqa_afriqa"),
    ("xqa_*-de_mlqa*", (384, 384), "xqa_de"), ("xqa_*-es_mlqa*", (384, 384), "xqa_es"),
    ("xqa_*-vi_mlqa*", (384, 384), "xqa_vi"), ("xqa_*-zh_mlqa*", (384, 384), "xqa_zh"),
    ("qa_*", (2400, 2600), ""), ("help_*", (900, 960), ""),
)  # fmt: skip
FINETUNE = (
    ("qa_*", (2400, 2800), "LANG"), ("xqa_*_afriqa*", (260, 260), "xqa_afriqa"),
    ("xqa_*_mlqa*", (450, 500), "xqa_mlqa"), ("help_*", (290, 350), "help"),
    ("par_*_help*", (170, 200), "par_help"), ("ntrex/*", (230, 230), "ntrex"),
    ("long_*", (90, 90), "long"),
)  # fmt: skip
RECIPES = {"contrastive": CONTRASTIVE, "finetune": FINETUNE}
RUNS = ("near", "far", "plain")
# What differs from the configurations, and the seed that draws the examples.
FIELDS = {
    "near": {"contrastive": ["optimizer.learning_rate=7e-5", "optimizer.freeze_layers=4"],
             "finetune": ["loss.weights.sparse=0.5"]},
    "far": {"contrastive": [], "finetune": []},
    "plain": {"contrastive": ["optimizer.freeze_layers=0"],
              "finetune": ["loss.weights.sparse=0.1"]},
}  # fmt: skip
DRAWS = {"near": 1, "far": 1, "plain": 5}
# Not trained on: questions that only their own passage gives a sense ("What did the author
# think?"), so that many other passages answer them as well; texts whose licence forbids derived
# works, or that have none upstream.
LEFT_OUT = {"squadshifts-amazon", "squadshifts-reddit", "qnlieu", "korquad-long", "tquad-long"}
# Characters: longer passages stay only in long_* files.
LONGEST = {"contrastive": 6000, "finetune": 1000}
CLS_PAIRS = 3300  # whose texts [CLS] learns from


def main() -> None:
    """All steps, in order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backbone", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    work, models = options.work, [options.work / name / "finetune" / "model" for name in RUNS]
    belongs(work, backbone=options.backbone, data=options.data, scale=options.scale,
            smoke=options.smoke)  # fmt: skip
    step(work / "start", lambda: start(options.backbone, options.data, work))
    for name in RUNS:
        one_run(name, options.data, work, 0.02 if options.smoke else options.scale, options.smoke)
    step(work / "merged", lambda: run("convert", "merge", *models, work / "merged"))
    step(work / "m3-mini", lambda: run("convert", "quantize", work / "merged", work / "m3-mini"))


def one_run(name: str, data: Path, work: Path, scale: float, smoke: bool) -> None:
    """From the start to a model with three heads in WORK/NAME."""
    here, fields = work / name, FIELDS[name]
    few = ["steps=4", "save_every=0"] if smoke else []
    pairs = sample("contrastive", data, here, scale)
    first = work / "start" if name == "plain" else here / "cls"
    step(first, lambda: cls(work / "start", pairs, here))
    step(here / "contrastive" / "model", lambda: train("contrastive", first, pairs, here,
                                                       fields["contrastive"] + few))  # fmt: skip
    step(here / "heads", lambda: heads(data, here, scale))
    step(here / "mined.jsonl", lambda: mine(here, sample("finetune", data, here, scale)))
    step(here / "finetune" / "model", lambda: train("finetune", here / "heads",
         here / "mined.jsonl", here, fields["finetune"] + few))  # fmt: skip


def step(output: Path, make: Callable[[], None]) -> None:
    """Makes what is not there yet."""
    if not output.exists():
        print(f"-- {output}", flush=True)
        make()


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
    texts = [row["pos"][0] for row in questions(data, 400, 0)]
    params = fit_sparse_head(params | {"encoder": encoder}, config, model.tokenizer, texts)
    pretrained.save(
        work / "start", dataclasses.replace(model, params=params, config=config, heads_trained=True)
    )


def sample(stage: str, data: Path, work: Path, scale: float) -> Path:
    """The examples of a stage of the run in `work`, by a fixed seed, in random order."""
    path, which, draw = work / f"{stage}.jsonl", work.name != "near", DRAWS[work.name]
    if path.is_file():
        return path
    rows = []
    for pattern, counts, source in RECIPES[stage]:
        count = max(2, round(counts[which] * scale))
        for line in pick(sorted(data.glob(f"{pattern}.jsonl.gz")), count, draw):
            record = json.loads(line)
            if record["source"] in LEFT_OUT:
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


def pick(files: list[Path], count: int, seed: int, dev: bool = False) -> list[str]:
    """About `count` lines of files, in proportion to the roots of their sizes; to train on or,
    those that are never trained on, for development."""
    lines = {}
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            name = json.dumps(file.name.split(".")[0])
            kept = (line for line in stream if held_out(json.loads(line)["pos"][0]) == dev)
            lines[file] = [f'{{"file": {name}, {line.lstrip()[1:]}' for line in kept]
    total = sum(len(found) ** 0.5 for found in lines.values())
    draw, out = random.Random(seed), []
    for found in lines.values():
        share = max(1, round(count * len(found) ** 0.5 / total))
        out += draw.sample(found, min(share, len(found)))
    return out


def held_out(passage: str) -> bool:
    """One passage of 16, whatever file it stands in."""
    return hashlib.sha256(passage.encode()).digest()[0] % 16 == 0


def cls(source: Path, pairs: Path, work: Path) -> None:
    """From the mean, the backbone's vector, to [CLS], M3's, in the upper half of the layers."""
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
    pretrained.save(work / "heads", dataclasses.replace(model, params=params, heads_trained=True))


def head_rows(data: Path, scale: float) -> list[dict]:
    """What the sparse head warms up on, in random order."""
    rows = questions(data, round(4000 * scale), 3)
    random.Random(4).shuffle(rows)
    return rows


def questions(data: Path, count: int, seed: int) -> list[dict]:
    """About `count` questions with their passages, of the sources that are trained on."""
    rows = [json.loads(line) for line in pick(sorted(data.glob("qa_*")), count, seed)]
    return [row for row in rows if row["source"] not in LEFT_OUT]


def mine(work: Path, questions: Path) -> None:
    """Hard negatives; where a language has few passages its whole pool serves."""
    run("mine", "--model", work / "heads", "--method", "all", "--input", questions, "--output",
        work / "mined.jsonl", "--range", "1-40", "--max-positive-ratio", "0.97", "--negatives", 2,
        "--same-language", "--allow-small-pool", "--passage-length", 160, "--report",
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
