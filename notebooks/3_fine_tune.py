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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/m3jax/m3jax/blob/main/notebooks/3_fine_tune.ipynb)
#
# # Fine-tune on your own data, with self-distillation
# This notebook mines hard negatives, trains the three heads together with their sum as the teacher of
# each, plots the loss of each head, and evaluates retrieval before and after.

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
SHORT = {"passage_length": 128, "length_boundaries": (128,), "batch_sizes": (8,)}
DATA = {"small": SHORT, "large": {}}[SIZE]  # fields of the config's `data`

# %%
import json
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from IPython.display import Image, display

from m3jax import (
    M3Embedder,
    MiningOptions,
    evaluate_model,
    mine_negatives,
    read_tasks,
    sample_passages,
    sample_questions,
    to_hf,
    train_model,
)

# %% [markdown]
# ## Data
# Training data is a file with one `{"query": ..., "pos": [...], "neg": [...]}` per line. Here the
# first sentence of each paragraph of the sample corpus is the query, and the rest of the paragraph its
# positive. The human questions about the same corpus are used for evaluation only.

# %%
WORK = Path("work").resolve()
WORK.mkdir(exist_ok=True)
cut = [re.split(r"(?<=[.!?。！？।؟])\s*", p.text, maxsplit=1) for p in sample_passages()]
pairs = [(parts[0], parts[1]) for parts in cut if len(parts) == 2 and min(map(len, parts)) > 20]
lines = [json.dumps({"query": first, "pos": [rest]}) for first, rest in pairs]
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
# `m3jax data check` prints statistics and errors of training files.

# %%
# !m3jax data check {WORK}/pairs.jsonl

# %% [markdown]
# ## Hard negatives
# Hard negatives are passages that the model ranks high but that are not the positive. Their score must
# be below 95% of the positive's score, which leaves few false negatives.

# %%
shutil.rmtree(WORK / "mined.jsonl.work", ignore_errors=True)
(WORK / "mined.jsonl").unlink(missing_ok=True)
model = M3Embedder.from_pretrained(MODEL)
options = MiningOptions(
    first=1, last=50, negatives=4, max_positive_ratio=0.95, allow_small_pool=True
)
mined = mine_negatives(WORK / "pairs.jsonl", WORK / "mined.jsonl", model, options)
print(mined.negatives, "negatives for", mined.queries, "queries; dropped:", dict(mined.dropped))

# %% [markdown]
# ## Train
# In a shell the command is `m3jax train --config ../configs/mini/finetune.py ...`. An interrupted cell
# resumes from the last checkpoint when it is run again.

# %%
config = runpy.run_path("../configs/mini/finetune.py")["config"]()
config = replace(
    config,
    model=MODEL,
    train_data=(str(WORK / "mined.jsonl"),),
    steps=STEPS,
    data=replace(config.data, **DATA),
    loss=replace(config.loss, self_distill_start=STEPS // 3),
)
run = train_model(config, WORK / "run")
print(run.step, "steps; the model:", run.model)

# %% [markdown]
# The plots show the loss of each head, the distillation loss from its first step, and the fraction of
# queries whose positive ranks first in the batch.

# %%
display(Image(str(WORK / "run" / "curves.png")))

# %% [markdown]
# ## Before and after
# nDCG@10 in percent with 95% intervals (normal approximation). The bundled model was trained on similar
# texts, so there is little to gain here, and with 43 questions the intervals are wide. `m3jax evaluate`
# also writes tables with bootstrap intervals and paired tests.

# %%
for name, source in (("before", MODEL), ("after", WORK / "run" / "model")):
    embedder = M3Embedder.from_pretrained(source)
    for result in evaluate_model(embedder, read_tasks(task), WORK / name):
        values = 100 * np.array(result.values["nDCG@10"])
        half = 1.96 * values.std() / len(values) ** 0.5
        print(f"{name:6} {result.method:13} {values.mean():.1f} +- {half:.1f}")

# %% [markdown]
# ## Export to PyTorch
# FlagEmbedding, sentence-transformers and transformers load this directory.

# %%
shutil.rmtree(WORK / "for-pytorch", ignore_errors=True)
to_hf(WORK / "run" / "model", WORK / "for-pytorch")
sorted(path.name for path in (WORK / "for-pytorch").iterdir())
