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
SHORT = ["data.passage_length=128", "data.length_boundaries=(128,)", "data.batch_sizes=(8,)"]
BATCHES = {"small": SHORT, "large": []}[SIZE]

# %%
import json
import re
import shutil
from pathlib import Path

from IPython.display import Image, Markdown, display

from m3jax.cli.main import main
from m3jax.data import sample

# %% [markdown]
# ## Data
# Training data is a file with one `{"query": ..., "pos": [...], "neg": [...]}` per line. Here the
# first sentence of each paragraph of the sample corpus is the query, and the rest of the paragraph its
# positive. The human questions about the same corpus are used for evaluation only.

# %%
WORK = Path("work").resolve()
WORK.mkdir(exist_ok=True)
cut = [re.split(r"(?<=[.!?。！？।؟])\s*", p.text, maxsplit=1) for p in sample.passages()]
pairs = [(parts[0], parts[1]) for parts in cut if len(parts) == 2 and min(map(len, parts)) > 20]
lines = [json.dumps({"query": first, "pos": [rest]}) for first, rest in pairs]
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


# %%
main(["data", "check", str(WORK / "pairs.jsonl")])

# %% [markdown]
# ## Hard negatives
# Hard negatives are passages that the model ranks high but that are not the positive. Their score must
# be below 95% of the positive's score, which leaves few false negatives.

# %%
shutil.rmtree(WORK / "mined.jsonl.work", ignore_errors=True)
(WORK / "mined.jsonl").unlink(missing_ok=True)
files = ["--input", str(WORK / "pairs.jsonl"), "--output", str(WORK / "mined.jsonl")]
rules = ["--range", "1-50", "--negatives", "4"]
rules += ["--max-positive-ratio", "0.95", "--allow-small-pool"]
main(["mine", "--model", MODEL, *files, *rules])

# %% [markdown]
# ## Train
# From a shell the same command is `m3jax train --config ../configs/mini/finetune.py ...`. An
# interrupted cell resumes from the last checkpoint when it is run again.

# %%
arguments = ["--config", "../configs/mini/finetune.py", "--model", MODEL]
arguments += ["--data", str(WORK / "mined.jsonl"), "--workdir", str(WORK / "run")]
for change in (f"steps={STEPS}", f"loss.self_distill_start={STEPS // 3}", *BATCHES):
    arguments += ["--set", change]
main(["train", *arguments])

# %% [markdown]
# The plots show the loss of each head, the distillation loss from its first step, and the fraction of
# queries whose positive ranks first in the batch.

# %%
display(Image(str(WORK / "run" / "curves.png")))

# %% [markdown]
# ## Before and after
# The bundled model was trained on similar texts, so there is little to gain here, and with 43 questions
# the intervals are wide: the scores fall by one or two points, well within the intervals. On data from
# another domain, compare the two reports. The file has the full report.

# %%
for name, model in (("before", MODEL), ("after", str(WORK / "run" / "model"))):
    main(["evaluate", "--model", model, "--task", str(task), "--output", str(WORK / name)])
    report = (WORK / name / "results.md").read_text().partition("## Other")[0]
    display(Markdown(f"**{name}**"), Markdown(report))

# %% [markdown]
# ## Export to PyTorch
# FlagEmbedding, sentence-transformers and transformers load this directory.

# %%
shutil.rmtree(WORK / "for-pytorch", ignore_errors=True)
main(["convert", "to-hf", str(WORK / "run" / "model"), str(WORK / "for-pytorch")])
