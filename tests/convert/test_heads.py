"""Heads for an encoder that has none."""

import dataclasses

import numpy as np
from support.model_files import assert_same_bits
from support.tiny import write_tiny_model

from m3jax import M3Embedder, pretrained, sharding
from m3jax.cli.main import main
from m3jax.convert.heads import fit_sparse_head


def test_a_model_without_heads_gets_initial_ones_with_a_warning(tmp_path, caplog):
    write_tiny_model(tmp_path / "plain", heads=False)
    with caplog.at_level("WARNING"):
        model = pretrained.load(tmp_path / "plain")
    assert "train them before use" in caplog.text and not model.heads_trained
    np.testing.assert_array_equal(model.params["heads"]["colbert"]["kernel"], np.eye(32))
    again = pretrained.load(tmp_path / "plain")
    assert_same_bits(sharding.flatten(model.params), sharding.flatten(again.params))


def test_untrained_heads_are_marked_in_every_format(tmp_path, capsys):
    """No format that is written from an encoder without heads claims to have trained heads."""
    write_tiny_model(tmp_path / "plain", heads=False)
    assert main(["convert", "from-hf", str(tmp_path / "plain"), str(tmp_path / "ours")]) == 0
    plain, longer = map(str, (tmp_path / "plain", tmp_path / "long"))
    assert main(["convert", "extend-positions", plain, longer, "--to", "258"]) == 0
    assert not list((tmp_path / "long").glob("*.pt"))
    for name in ("ours", "long"):
        assert not pretrained.load(tmp_path / name).heads_trained
        made = str(tmp_path / f"{name}2")
        assert main(["convert", "init-heads", str(tmp_path / name), made]) == 0
        assert pretrained.load(made).heads_trained


def test_fitted_token_weights_follow_rarity(tmp_path):
    write_tiny_model(tmp_path / "plain", heads=False)
    model = pretrained.load(tmp_path / "plain")
    texts = ["the cat sat", "the dog sat", "the fox sat", "the owl sat"] * 4
    params = fit_sparse_head(model.params, model.config, model.tokenizer, texts)
    out = M3Embedder(dataclasses.replace(model, params=params)).encode(texts[0], return_sparse=True)
    spelt = {
        model.tokenizer.token(int(token)): weight
        for token, weight in out["lexical_weights"].items()
    }
    common = max((spelt.get(piece, 0.0) for piece in ("▁the", "▁sat")), default=0.0)
    rare = [w for piece, w in spelt.items() if piece not in ("▁the", "▁sat")]
    assert rare and common < 0.05 < max(rare) < 0.5
