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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/m3jax/m3jax/blob/main/notebooks/2_hybrid_search.ipynb)
#
# # Hybrid search over a multilingual corpus
# The corpus is bundled: 237 paragraphs in 15 languages and 43 human questions. This notebook searches
# it with every method, and compares the hits, then nDCG and recall.

# %% tags=["install"]
# Run this in the folder `notebooks` of a clone; on Colab the repository is cloned first.
import os

if "COLAB_RELEASE_TAG" in os.environ:
    get_ipython().system("git clone -q https://github.com/m3jax/m3jax")
    os.chdir("m3jax/notebooks")
# %pip install -q "..[search,evaluate,torch]"

# %%
MODEL = "m3-mini"  # or "BAAI/bge-m3", or a directory

# %%
import matplotlib.pyplot as plt

from m3jax import M3Embedder
from m3jax.data import sample
from m3jax.embed.embeddings import concatenate
from m3jax.evaluate.metrics import as_run, means, per_query
from m3jax.search import FUSIONS, METHODS, Document, Index, encode_queries, preset

# %matplotlib inline

# %%
model = M3Embedder.from_pretrained(MODEL)
passages, questions = sample.passages(), sample.questions()
embeddings = concatenate(list(model.encode_stream([p.text for p in passages], max_length=512)))
documents = [Document(p.id, p.text) for p in passages]
index = Index.from_embeddings(embeddings, documents, model=model)

# %% [markdown]
# ## One question, every method

# %%
question = next(q for q in questions if q.lang == "en")
print(question.text, "->", question.positive)
for method in METHODS:
    hits = index.search([question.text], method=method, top_k=3)
    print(f"{method:13}", [documents[i].id for i in hits.documents[0]])

# %% [markdown]
# ## All questions: nDCG@10 and recall
# `dense+sparse` and `all` follow the paper: a weighted sum over the union of the two rankings, and the
# top dense hits re-ranked with all three heads.

# %%
encoded = encode_queries(model, [q.text for q in questions])
qrels = {q.id: {q.positive: 1} for q in questions}
measures = ["nDCG@10", "Recall@1", "Recall@5", "Recall@20"]
results = {}
for method in METHODS:
    hits = index.search(encoded, method=method, top_k=20)
    rows = [[documents[i].id for i in found] for found in hits.documents]
    run = as_run(zip([q.id for q in questions], rows, strict=True))
    results[method] = means(per_query(qrels, run, measures))
    print(f"{method:13}", {name: round(value, 3) for name, value in results[method].items()})

# %%
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for number, measure in enumerate(measures):
    positions = [i + 0.2 * number for i in range(len(METHODS))]
    axes.bar(positions, [results[m][measure] for m in METHODS], 0.18, label=measure)
axes.set_xticks([i + 0.3 for i in range(len(METHODS))], METHODS)
axes.set_ylim(0, 1)
axes.legend(ncols=4, frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Other fusion methods
# Reciprocal rank fusion and sums of normalised scores need no weights. The paper's weights for long
# documents give the sparse head the largest weight.

# %%
for fusion in FUSIONS:
    hits = index.search(encoded, top_k=20, fusion=fusion)
    rows = [[documents[i].id for i in found] for found in hits.documents]
    run = as_run(zip([q.id for q in questions], rows, strict=True))
    print(f"{fusion:9}", round(means(per_query(qrels, run, ["nDCG@10"]))["nDCG@10"], 3))
print("long documents:", preset("mldr", "all"))
