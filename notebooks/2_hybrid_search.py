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
import numpy as np

from m3jax import Document, HeadWeights, Index, M3Embedder, sample_passages, sample_questions

METHODS = ("bm25", "dense", "sparse", "colbert", "dense+sparse", "all")

# %matplotlib inline

# %%
model = M3Embedder.from_pretrained(MODEL)
passages, questions = sample_passages(), sample_questions()
documents = [Document(p.id, p.text) for p in passages]
# One chunk of texts, so one `Embeddings`.
(embeddings,) = model.encode_stream([p.text for p in passages], max_length=512)
index = Index.from_embeddings(embeddings, documents, model=model)

# %% [markdown]
# ## One question, every method

# %%
question = next(q for q in questions if q.lang == "en")
print(question.text, "->", question.positive)
for method in METHODS:
    hits = index.search([question.text], method=method, top_k=3)
    print(f"{method:13}", [document.id for document in index.documents_of(hits)[0]])

# %% [markdown]
# ## All questions: nDCG@10 and recall
# `dense+sparse` and `all` follow the paper: a weighted sum over the union of the two rankings, and the
# top dense hits re-ranked with all three heads. Each question has one relevant passage, at rank r of
# the hits. Its nDCG@10 is 1 / log2(r + 1) if r is at most 10, and its recall@k is 1 if r is at most k.


# %%
def ranks_of(hits):
    rows = [[document.id for document in row] for row in index.documents_of(hits)]
    pairs = [(row, q.positive) for row, q in zip(rows, questions, strict=True)]
    return np.array([row.index(p) + 1 if p in row else np.inf for row, p in pairs])


def ndcg(ranks):
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean()


texts = [q.text for q in questions]
results = {}
for method in METHODS:
    ranks = ranks_of(index.search(texts, method=method, top_k=20))
    recall = {f"Recall@{k}": (ranks <= k).mean() for k in (1, 5, 20)}
    results[method] = {"nDCG@10": ndcg(ranks), **recall}
    print(f"{method:13}", {name: round(float(value), 3) for name, value in results[method].items()})

# %%
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for number, measure in enumerate(results["all"]):
    positions = [i + 0.2 * number for i in range(len(METHODS))]
    axes.bar(positions, [results[m][measure] for m in METHODS], 0.18, label=measure)
axes.set_xticks([i + 0.3 for i in range(len(METHODS))], METHODS)
axes.set_ylim(0, 1)
axes.legend(ncols=4, frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Other fusion methods
# Reciprocal rank fusion and sums of normalised scores need no tuned weights. The paper's weights for
# long documents give the sparse head the largest weight.

# %%
for fusion in ("weighted", "rrf", "minmax", "zscore"):
    hits = index.search(texts, top_k=20, fusion=fusion)
    print(f"{fusion:9} {ndcg(ranks_of(hits)):.3f}")
long_documents = HeadWeights(dense=0.15, sparse=0.5, colbert=0.35)
hits = index.search(texts, top_k=20, weights=long_documents)
print(f"weighted, for long documents {ndcg(ranks_of(hits)):.3f}")
