"""FlagEmbedding itself on the same directory: slow, and in a Python of its own.

python -m venv fe && fe/bin/pip install torch FlagEmbedding==1.4.2 transformers==5.12
M3JAX_FLAGEMBEDDING_PYTHON=fe/bin/python python -m pytest -m slow tests/embed/test_flagembedding.py
"""

import pickle
import subprocess

import numpy as np
import pytest
from support.flagembedding import flag_python
from support.real_texts import real_texts
from support.tiny import TEXTS

from m3jax import M3Embedder, pretrained

pytestmark = [pytest.mark.slow, pytest.mark.parity]
# Prints nothing of its own: the outputs go through a file, one text at a time, so that the
# reference's padding (a zero vector that may win the maximum) stays out of the comparison.
CODE = """
import pickle, sys
from FlagEmbedding import BGEM3FlagModel
directory, source, target, length = sys.argv[1:]
texts = pickle.load(open(source, "rb"))
model = BGEM3FlagModel(directory, use_fp16=False, devices=["cpu"])
many = dict(return_dense=True, return_sparse=True, return_colbert_vecs=True)
out = [model.encode([t], max_length=int(length), **many) for t in texts]
pairs = list(zip(texts[:-1], texts[1:]))
scores = [model.compute_score(p, weights_for_different_modes=[0.4, 0.2, 0.4]) for p in pairs[:8]]
plain = [({k: v[0] for k, v in o.items()}) for o in out]
for one in plain:
    one["lexical_weights"] = {k: float(v) for k, v in one["lexical_weights"].items()}
pickle.dump((plain, scores), open(target, "wb"))
"""


@pytest.fixture
def flag(tmp_path):
    """Runs FlagEmbedding on some texts; skips where it is not installed."""

    def encode(directory, texts, length):
        (tmp_path / "texts").write_bytes(pickle.dumps(texts))
        arguments = [str(directory), str(tmp_path / "texts"), str(tmp_path / "out"), str(length)]
        out = subprocess.run(
            [flag_python(), "-c", CODE, *arguments], capture_output=True, text=True, check=False
        )
        assert out.returncode == 0, out.stderr[-3000:]
        return pickle.loads((tmp_path / "out").read_bytes())

    return encode


def assert_equal(model: M3Embedder, texts, length, theirs, scores):
    ours = model.encode(texts, max_length=length, return_sparse=True, return_colbert_vecs=True)
    for i, other in enumerate(theirs):
        np.testing.assert_allclose(ours["dense_vecs"][i], other["dense_vecs"], atol=1e-5)
        np.testing.assert_allclose(ours["colbert_vecs"][i], other["colbert_vecs"], atol=1e-5)
        mine, weights = ours["lexical_weights"][i], other["lexical_weights"]
        for token in mine.keys() | weights.keys():
            assert abs(mine.get(token, 0.0) - weights.get(token, 0.0)) < 1e-5
    pairs = list(zip(texts[:-1], texts[1:], strict=True))[: len(scores)]
    got = model.compute_score(
        pairs, weights_for_different_modes=[0.4, 0.2, 0.4], max_passage_length=min(512, length)
    )
    for i, other in enumerate(scores):
        for key, value in other.items():
            assert got[key][i] == pytest.approx(value, rel=1e-4, abs=2e-5), key


def test_the_tiny_model_agrees(tiny, flag, tmp_path):
    pretrained.save_hugging_face(tmp_path / "hf", tiny.encoder.model)
    texts = [text for text in TEXTS if text]
    theirs, scores = flag(tmp_path / "hf", texts, 128)
    assert_equal(tiny, texts, 128, theirs, [])  # its compute_score tokenises to 512 positions


def test_the_real_encoder_agrees_on_real_texts(backbone_dir, data_dir, flag, tmp_path):
    from m3jax.convert.heads import fit_sparse_head

    loaded = pretrained.load(backbone_dir)
    texts = real_texts(data_dir, 200)
    params = fit_sparse_head(loaded.params, loaded.config, loaded.tokenizer, texts)
    rng = np.random.default_rng(0)
    colbert = {"kernel": rng.normal(0, 0.05, (384, 384)), "bias": rng.normal(0, 0.1, 384)}
    heads = params["heads"] | {"colbert": {k: v.astype(np.float32) for k, v in colbert.items()}}
    import dataclasses

    model = dataclasses.replace(loaded, params=params | {"heads": heads})
    pretrained.save_hugging_face(tmp_path / "hf", model)
    theirs, scores = flag(tmp_path / "hf", texts, 512)
    assert_equal(M3Embedder.from_pretrained(tmp_path / "hf"), texts, 512, theirs, scores)
