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
# Hard negatives are mined, the three heads are trained together, their sum teaches each of them;
# the losses of each head are drawn, and retrieval is measured before and after.

# %% tags=["install"]
# In this folder of a clone of the repository; on Colab it is cloned first.
import os

if "COLAB_RELEASE_TAG" in os.environ:
    get_ipython().system("git clone -q https://github.com/m3jax/m3jax")
    os.chdir("m3jax/notebooks")
# %pip install -q "..[search,evaluate,torch]"

# %%
MODEL = "m3-mini"  # or "BAAI/bge-m3", or a directory
SIZE = "small"  # "small": minutes on two cores; "large": the config's own number of steps
STEPS = {"small": 45, "large": 300}[SIZE]
BATCHES = {"small": ["data.passage_length=128", "data.length_boundaries=(128,)", "data.batch_sizes=(8,)"],
           "large": []}[SIZE]  # fmt: skip

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
# Your own would be a file with `{"query": ..., "pos": [...], "neg": [...]}` a line. Here the first
# sentence of each paragraph of the sample corpus asks for the rest of it; the questions that people
# asked about the same corpus are kept for the measurement.

# %%
WORK = Path("work").resolve()
WORK.mkdir(exist_ok=True)
cut = [re.split(r"(?<=[.!?。！？।؟])\s*", p.text, maxsplit=1) for p in sample.passages()]
pairs = [(parts[0], parts[1]) for parts in cut if len(parts) == 2 and min(map(len, parts)) > 20]
lines = [json.dumps({"query": first, "pos": [rest]}) for first, rest in pairs]
(WORK / "pairs.jsonl").write_text("\n".join(lines))
print(len(pairs), "pairs;", pairs[0][0])

# %% [markdown]
# The measurement, in the layout of BEIR: corpus, queries and judgements.

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
# What the model ranks high and is not the answer; below 95% of the positive's score, so that few
# right passages are taken for wrong.

# %%
shutil.rmtree(WORK / "mined.jsonl.work", ignore_errors=True)
(WORK / "mined.jsonl").unlink(missing_ok=True)
files = ["--input", str(WORK / "pairs.jsonl"), "--output", str(WORK / "mined.jsonl")]
rules = ["--range", "1-50", "--negatives", "4", "--max-share", "0.95", "--small-pools"]
main(["mine", "--model", MODEL, *files, *rules])

# %% [markdown]
# ## Train
# The same command from a shell: `m3jax train --config ../configs/mini/finetune.py ...`. Interrupt
# the cell and run it again: it goes on where it was.

# %%
arguments = ["--config", "../configs/mini/finetune.py", "--model", MODEL]
arguments += ["--data", str(WORK / "mined.jsonl"), "--workdir", str(WORK / "run")]
for change in (f"steps={STEPS}", f"loss.self_distill_start={STEPS // 3}", *BATCHES):
    arguments += ["--set", change]
main(["train", *arguments])

# %% [markdown]
# The loss of each head, the distillation from the moment it sets in, and the share of queries whose
# positive ranks first in its batch.

# %%
display(Image(str(WORK / "run" / "curves.png")))

# %% [markdown]
# ## Before and after
# The bundled model knows texts like these: 43 questions leave little to gain and wide intervals. On
# a field of your own the difference is what to look at: here it is one or two points down, well
# within the intervals. The rest of the report stands in the file.

# %%
for name, model in (("before", MODEL), ("after", str(WORK / "run" / "model"))):
    main(["evaluate", "--model", model, "--task", str(task), "--output", str(WORK / name)])
    report = (WORK / name / "results.md").read_text().partition("## Other")[0]
    display(Markdown(f"**{name}**"), Markdown(report))

# %% [markdown]
# ## Take it elsewhere
# A PyTorch directory that FlagEmbedding, sentence-transformers and transformers load.

# %%
shutil.rmtree(WORK / "for-pytorch", ignore_errors=True)
main(["convert", "to-hf", str(WORK / "run" / "model"), str(WORK / "for-pytorch")])
