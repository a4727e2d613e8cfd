# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/m3jax/m3jax/blob/main/notebooks/5_self_distillation.ipynb)
#
# # Does self-distillation help? The paper's ablation, small
# Table 6 of the paper: without self-distillation MIRACL falls from 69.2 to 68.7 (dense), from 53.9
# to 36.7 (sparse) and from 70.5 to 69.3 (multi-vector). This notebook makes the same two runs on a few
# hundred pairs, with minutes of training. At best the direction is the same; look at the intervals.
# `experiments/table6_self_distillation.py` has three seeds, more data and, as in the paper, a randomly
# initialised sparse head, for which the gain is largest.

# %% tags=["install"]
# Run this in the folder `notebooks` of a clone; on Colab the repository is cloned first.
import os

if "COLAB_RELEASE_TAG" in os.environ:
    get_ipython().system("git clone -q https://github.com/m3jax/m3jax")
    os.chdir("m3jax/notebooks")
# %pip install -q "..[search,evaluate,torch]"

# %%
MODEL = "m3-mini"  # or "BAAI/bge-m3", or a directory
SIZE = "small"  # "small": minutes on two cores; "large": the config's own number of steps
STEPS = {"small": 45, "large": 300}[SIZE]
SHORT = {"passage_length": 128, "length_boundaries": (128,), "batch_sizes": (12,)}
DATA = {"small": SHORT, "large": {}}[SIZE]  # fields of the config's `data`
RATE = {"small": 5e-5, "large": 2e-5}[SIZE]  # a larger rate for few steps
SEEDS = {"small": [0], "large": [0, 1, 2]}[SIZE]

# %%
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from m3jax import (
    EvaluationOptions,
    M3Embedder,
    evaluate_model,
    read_tasks,
    sample_passages,
    sample_questions,
    train_model,
)

# %matplotlib inline

# %% [markdown]
# ## Data
# Training data is a file with one `{"query": ..., "pos": [...], "neg": [...]}` per line. Here the
# first sentence of each paragraph of the sample corpus is the query, and the rest of the paragraph its
# positive. The human questions about the same corpus are used for evaluation only. The examples of a
# batch come from one `source`, here a language: passages in other languages would be too easy
# negatives.

# %%
WORK = Path("work").resolve()
WORK.mkdir(exist_ok=True)
cut = [(p.lang, re.split(r"(?<=[.!?。！？।؟])\s*", p.text, maxsplit=1)) for p in sample_passages()]
pairs = [(*parts, lang) for lang, parts in cut if len(parts) == 2 and min(map(len, parts)) > 20]
lines = [json.dumps({"query": q, "pos": [rest], "source": lang}) for q, rest, lang in pairs]
(WORK / "pairs.jsonl").write_text("\n".join(lines))
print(len(pairs), "pairs;", pairs[0][0])

# %% [markdown]
# The evaluation task in BEIR's layout: corpus, queries and judgements.

# %%
task = WORK / "task"
(task / "qrels").mkdir(parents=True, exist_ok=True)
corpus = [json.dumps({"_id": p.id, "text": p.text}) for p in sample_passages()]
(task / "corpus.jsonl").write_text("\n".join(corpus))
queries = [json.dumps({"_id": q.id, "text": q.text}) for q in sample_questions()]
(task / "queries.jsonl").write_text("\n".join(queries))
rows = [f"{q.id}\t{q.positive}\t1" for q in sample_questions()]
(task / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))


# %% [markdown]
# ## Two runs that differ in one field

# %%
base = runpy.run_path("../configs/mini/finetune.py")["config"]()
base = replace(
    base,
    model=MODEL,
    train_data=(str(WORK / "pairs.jsonl"),),
    steps=STEPS,
    optimizer=replace(base.optimizer, learning_rate=RATE),
    loss=replace(base.loss, self_distill_start=STEPS // 3),
)
settings = (("without", False), ("with", True))
runs = [(f"{name}-{seed}", seed, distill) for seed in SEEDS for name, distill in settings]
for name, seed, distill in runs:
    config = replace(
        base,
        seed=seed,
        data=replace(base.data, group_size=1, seed=seed, **DATA),
        loss=replace(base.loss, self_distill=distill),
    )
    print(name, train_model(config, WORK / "ablation" / name).step, "steps")

# %% [markdown]
# ## The loss of each head

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
for (name, *_), style in zip(runs[:2], ("--", "-"), strict=True):
    lines = (WORK / "ablation" / name / "metrics.jsonl").read_text().splitlines()
    steps = [row for row in map(json.loads, lines) if "nce/dense" in row]
    for axis, head in zip(axes, ("dense", "sparse", "colbert"), strict=True):
        axis.plot([s["step"] for s in steps], [s[f"nce/{head}"] for s in steps], style, label=name)
        axis.set_title(head)
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Retrieval
# nDCG@10 in percent with 95% intervals (normal approximation). With 43 questions they are wide.

# %%
options = EvaluationOptions(methods=("dense", "sparse", "colbert", "all"))
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for number, (name, *_) in enumerate(runs):
    embedder = M3Embedder.from_pretrained(WORK / "ablation" / name / "model")
    results = evaluate_model(embedder, read_tasks(task), WORK / "results" / name, options)
    values = 100 * np.array([result.values["nDCG@10"] for result in results])
    means, half = values.mean(axis=1), 1.96 * values.std(axis=1) / values.shape[1] ** 0.5
    print(f"{name:10}", dict(zip(options.methods, means.round(1).tolist(), strict=True)))
    positions = np.arange(len(results)) + 0.1 * number
    axes.errorbar(positions, means, half, fmt="o", label=name)
axes.set_xticks(range(len(results)), options.methods)
axes.legend(frameon=False)
plt.show()
