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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/m3jax/m3jax/blob/main/notebooks/4_convert_and_verify.ipynb)
#
# # Convert, and verify against PyTorch
# This notebook converts a checkpoint to PyTorch and back, bit for bit. Both models then encode the
# same texts in many languages, and the largest difference of every output is printed.

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
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import torch
import transformers

from m3jax import M3Embedder, sample_passages, to_hf

warnings.filterwarnings("ignore", "os.fork")  # shell commands after JAX has started
WORK = Path("work").resolve()
WORK.mkdir(exist_ok=True)

# %%
# !m3jax info {MODEL}

# %% [markdown]
# ## To PyTorch

# %%
shutil.rmtree(WORK / "hf", ignore_errors=True)
to_hf(MODEL, WORK / "hf", dtype="float32")
sorted(path.name for path in (WORK / "hf").iterdir())

# %% [markdown]
# ## And back: all weights are equal

# %%
models = [M3Embedder.from_pretrained(name) for name in (MODEL, WORK / "hf")]
first, second = (model.encoder.model.params for model in models)
assert jax.tree.structure(first) == jax.tree.structure(second)
assert jax.tree.all(jax.tree.map(np.array_equal, first, second))
leaves = jax.tree.leaves(first)
print(len(leaves), "arrays,", sum(leaf.size for leaf in leaves), "numbers, all equal")

# %% [markdown]
# ## The outputs
# PyTorch uses transformers' XLMRobertaModel, one text at a time.

# %%
# !m3jax convert verify {MODEL} {WORK}/hf --torch --tolerance 2e-5

# %% [markdown]
# The same comparison in Python, for one text. With transformers, the three heads are a few lines:

# %%
text = sample_passages()[0].text
ours = models[0].encode(text, return_sparse=True, return_colbert_vecs=True)

tokens = transformers.AutoTokenizer.from_pretrained(WORK / "hf")(text, return_tensors="pt")
encoder = transformers.AutoModel.from_pretrained(WORK / "hf", add_pooling_layer=False).eval()
colbert_head, sparse_head = (
    torch.load(WORK / "hf" / f"{name}_linear.pt") for name in ("colbert", "sparse")
)
with torch.inference_mode():
    hidden = encoder(**tokens).last_hidden_state[0]
    dense = torch.nn.functional.normalize(hidden[0], dim=0)
    vectors = hidden[1:] @ colbert_head["weight"].T + colbert_head["bias"]
    colbert = torch.nn.functional.normalize(vectors, dim=1)
    weights = torch.relu(hidden @ sparse_head["weight"].T + sparse_head["bias"])[:, 0]

print("dense", np.abs(ours["dense_vecs"] - dense.numpy()).max())
print("multi-vector", np.abs(ours["colbert_vecs"] - colbert.numpy()).max())
ids = tokens["input_ids"][0]
differences = [abs(w - weights[ids == int(t)].max()) for t, w in ours["lexical_weights"].items()]
print("sparse", float(max(differences)))

# %% [markdown]
# ## A smaller model
# int8 rows take a quarter of float32's space. m3-mini is already stored as int8: nothing changes here.

# %%
shutil.rmtree(WORK / "int8", ignore_errors=True)
# !m3jax convert quantize {MODEL} {WORK}/int8
# !m3jax convert verify {MODEL} {WORK}/int8 --tolerance 0.2
