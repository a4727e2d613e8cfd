"""A longer position table."""

import dataclasses
import json

import numpy as np
import pytest
from support.tiny import TEXTS

from m3jax import M3Embedder, pretrained
from m3jax.convert.positions import extend_positions


def test_longer_positions_do_not_change_shorter_texts(model, tmp_path):
    params, config = extend_positions(model.params, model.config, 402)
    longer = M3Embedder(dataclasses.replace(model, params=params, config=config))
    old = M3Embedder(model)
    a, b = (
        m.encode(TEXTS, max_length=128, return_sparse=True, return_colbert_vecs=True)
        for m in (old, longer)
    )
    np.testing.assert_allclose(a["dense_vecs"], b["dense_vecs"], atol=1e-6)
    table = params["encoder"]["embeddings"]["position"]
    np.testing.assert_array_equal(table[:130], model.params["encoder"]["embeddings"]["position"])
    np.testing.assert_array_equal(table[130], table[2])
    np.testing.assert_array_equal(table[401], table[2 + 399 % 128])
    pretrained.save_hugging_face(tmp_path / "long", longer.encoder.model)
    settings = json.loads((tmp_path / "long" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 400
    assert longer.encode("word " * 500, max_length=400)["dense_vecs"].shape == (32,)
    with pytest.raises(ValueError, match="130 rows already"):
        extend_positions(model.params, model.config, 130)
