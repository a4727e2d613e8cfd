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
from pathlib import Path

import numpy as np

from m3jax import M3Embedder, pretrained
from m3jax.cli.main import main
from m3jax.convert.reference import torch_outputs
from m3jax.data import sample
from m3jax.sharding import flatten

WORK = Path("work").resolve()
WORK.mkdir(exist_ok=True)

# %%
main(["info", MODEL])

# %% [markdown]
# ## To PyTorch

# %%
shutil.rmtree(WORK / "hf", ignore_errors=True)
main(["convert", "to-hf", MODEL, str(WORK / "hf"), "--dtype", "float32"])
sorted(path.name for path in (WORK / "hf").iterdir())

# %% [markdown]
# ## And back: all weights are equal

# %%
first, second = (flatten(pretrained.load(name).params) for name in (MODEL, str(WORK / "hf")))
assert first.keys() == second.keys()
assert all(np.array_equal(first[path], second[path]) for path in first)
print(len(first), "arrays,", sum(leaf.size for leaf in first.values()), "numbers, all equal")

# %% [markdown]
# ## The outputs
# PyTorch uses transformers' XLMRobertaModel, one text at a time.

# %%
main(["convert", "verify", MODEL, str(WORK / "hf"), "--torch", "--tolerance", "2e-5"])

# %% [markdown]
# The same comparison in Python, for one text:

# %%
text = sample.passages()[0].text
ours = M3Embedder.from_pretrained(MODEL).encode(text, return_sparse=True, return_colbert_vecs=True)
theirs = torch_outputs(WORK / "hf", [text], 512)
print("dense", np.abs(ours["dense_vecs"] - theirs.dense[0]).max())
print("multi-vector", np.abs(ours["colbert_vecs"] - theirs.colbert[0]).max())
gaps = [abs(weight - theirs.sparse[0][int(t)]) for t, weight in ours["lexical_weights"].items()]
print("sparse", max(gaps, default=0.0))

# %% [markdown]
# ## A smaller model
# int8 rows take a quarter of float32's space. m3-mini is already stored as int8: nothing changes here.

# %%
shutil.rmtree(WORK / "int8", ignore_errors=True)
main(["convert", "quantize", MODEL, str(WORK / "int8")])
main(["convert", "verify", MODEL, str(WORK / "int8"), "--tolerance", "0.2"])
