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
SHORT = ["data.passage_length=128", "data.length_boundaries=(128,)", "data.batch_sizes=(12,)"]
BATCHES = {"small": SHORT, "large": []}[SIZE]
RATE = {"small": "5e-5", "large": "2e-5"}[SIZE]  # a larger rate for few steps
SEEDS = {"small": [0], "large": [0, 1, 2]}[SIZE]

# %%
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Image, Markdown, display

from m3jax.cli.main import main
from m3jax.data import sample
from m3jax.train.run_log import read_metrics

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
cut = [(p.lang, re.split(r"(?<=[.!?。！？।؟])\s*", p.text, maxsplit=1)) for p in sample.passages()]
pairs = [(*parts, lang) for lang, parts in cut if len(parts) == 2 and min(map(len, parts)) > 20]
lines = [json.dumps({"query": q, "pos": [rest], "source": lang}) for q, rest, lang in pairs]
(WORK / "pairs.jsonl").write_text("\n".join(lines))
print(len(pairs), "pairs;", pairs[0][0])

# %% [markdown]
# The evaluation task in BEIR's layout: corpus, queries and judgements.

# %%
task = WORK / "task"
(task / "qrels").mkdir(parents=True, exist_ok=True)
corpus = [json.dumps({"_id": p.id, "text": p.text}) for p in sample.passages()]
(task / "corpus.jsonl").write_text("\n".join(corpus))
queries = [json.dumps({"_id": q.id, "text": q.text}) for q in sample.questions()]
(task / "queries.jsonl").write_text("\n".join(queries))
rows = [f"{q.id}\t{q.positive}\t1" for q in sample.questions()]
(task / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))


# %% [markdown]
# ## Two runs that differ in one field

# %%
common = ["--config", "../configs/mini/finetune.py", "--model", MODEL]
common += ["--data", str(WORK / "pairs.jsonl"), "--set", f"steps={STEPS}"]
common += ["--set", f"optimizer.learning_rate={RATE}"]
common += ["--set", "data.group_size=1", "--set", f"loss.self_distill_start={STEPS // 3}"]
settings = (("without", False), ("with", True))
runs = [(f"{name}-{seed}", seed, distill) for seed in SEEDS for name, distill in settings]
for name, seed, distill in runs:
    changes = [f"loss.self_distill={distill}", f"seed={seed}", f"data.seed={seed}", *BATCHES]
    extra = [part for change in changes for part in ("--set", change)]
    main(["train", *common, *extra, "--workdir", str(WORK / "ablation" / name)])

# %% [markdown]
# ## The loss of each head

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
for (name, *_), style in zip(runs[:2], ("--", "-"), strict=True):
    steps = [row for row in read_metrics(WORK / "ablation" / name) if "nce/dense" in row]
    for axis, head in zip(axes, ("dense", "sparse", "colbert"), strict=True):
        axis.plot([s["step"] for s in steps], [s[f"nce/{head}"] for s in steps], style, label=name)
        axis.set_title(head)
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Retrieval
# The intervals are from a bootstrap; with 43 questions they are wide.

# %%
for name, *_ in runs:
    model, output = str(WORK / "ablation" / name / "model"), WORK / "results" / name
    methods = "dense,sparse,colbert,all"
    arguments = ["--model", model, "--task", str(task), "--methods", methods]
    main(["evaluate", *arguments, "--output", str(output)])
    display(Markdown(f"**{name}**"), Image(str(output / "results.png")))
