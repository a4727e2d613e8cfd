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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/m3jax/m3jax/blob/main/notebooks/1_three_representations.ipynb)
#
# # One text, three representations
# M3-Embedding encodes a text once and computes a dense vector, a weight for each token and a vector
# for each token. This notebook shows all three, and how they match a query with a passage.

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

from m3jax import M3Embedder, explain_passages, plot_explanation

# %matplotlib inline

# %%
model = M3Embedder.from_pretrained(MODEL)
query = "Where do foxes sleep in winter?"
passages = [
    "In winter most red foxes sleep in the open, curled up, the tail over nose and paws.",
    "Im Winter schlafen Füchse meist im Freien, zusammengerollt.",
    "Winter tyres are required on mountain roads.",
]
out = model.encode([query, *passages], return_sparse=True, return_colbert_vecs=True)

# %% [markdown]
# ## Dense: one vector per text
# The score is the inner product of two vectors of length 1. It compares meaning, not words: the
# German passage should have a high score with the English one.

# %%
dense = out["dense_vecs"]
print(dense.shape, np.linalg.norm(dense, axis=1).round(6))
print((dense @ dense.T).round(3))

# %% [markdown]
# ## Sparse: one weight per token
# Only tokens of the text have a weight, as in BM25, but the weights are learned. The score is the sum
# over tokens that both texts contain, so the score of the German passage is almost 0.

# %%
weights = model.convert_id_to_token(out["lexical_weights"])
top = sorted(weights[1].items(), key=lambda item: -item[1])[:15]
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
axes.barh([token for token, _ in top][::-1], [weight for _, weight in top][::-1])
axes.set_title("the heaviest tokens of the first passage")
plt.show()

# %% [markdown]
# ## Multi-vector: one vector per token
# For each query token the most similar passage token is selected; the score is the mean of these
# similarities.

# %%
print([vectors.shape for vectors in out["colbert_vecs"]])
print([round(model.colbert_score(out["colbert_vecs"][0], p), 3) for p in out["colbert_vecs"][1:]])

# %% [markdown]
# ## Why they match
# Left: products of the weights of shared tokens. Right: similarities of all token pairs; squares mark
# the best match of each query token.

# %%
plot_explanation(query, passages[0], model)

# %%
plot_explanation(query, passages[1], model)

# %% [markdown]
# ## All three scores

# %%
for match in explain_passages(model, query, passages):
    print({name: round(score, 3) for name, score in match.scores.items()}, match.passage.text)
