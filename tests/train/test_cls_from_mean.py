"""[CLS] takes over what the mean of a text's tokens says, and nothing frozen moves."""

import json
import re

import numpy as np
import pytest
from support.tiny import write_tiny_model

from m3jax import pretrained, sharding
from m3jax.cli.main import main
from m3jax.model.heads import normalize, pool
from m3jax.model.m3 import hidden_states
from m3jax.text.batches import rows_of_tokens
from m3jax.train.cls_from_mean import CLSFromMeanOptions, distill_mean_pooling

WORDS = "the cat dog fox owl ant bee cow emu sat on mat".split()


def test_cls_learns_the_centered_mean_and_frozen_parameters_do_not_change(tmp_path):
    write_tiny_model(tmp_path / "plain", heads=False)
    model = pretrained.load(tmp_path / "plain")
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(3, 9))) for _ in range(600)]

    def vectors(params, pooling):
        ids = model.tokenizer.encode(texts[:64], 32)
        rows = rows_of_tokens(ids, [[i] for i in range(64)], 32, pad_id=model.config.encoder.pad_id)
        hidden = hidden_states(params, rows[0], model.config)
        return np.asarray(normalize(pool(hidden, rows[0], pooling)))[:, 0]

    def agreement(params) -> float:
        mean = vectors(model.params, "mean")
        mean = mean - mean.mean(axis=0)
        own = vectors(params, "cls")
        cosines = np.sum(own * mean, axis=1) / np.linalg.norm(mean, axis=1)
        return float(np.mean(cosines))

    losses = []
    options = CLSFromMeanOptions(freeze_layers=1, width=32, rows=4, learning_rate=3e-3)
    after = distill_mean_pooling(
        model.params,
        model.config,
        model.tokenizer,
        texts,
        options,
        progress=lambda step, steps, loss: losses.append((step, steps, loss)),
    )
    assert agreement(after) > agreement(model.params) + 0.2
    assert [step for step, _, _ in losses] == list(range(1, losses[0][1] + 1))
    assert losses[-1][2] < losses[0][2] - 0.2
    old, new = (sharding.flatten(params) for params in (model.params, after))
    assert set(old) == set(new)
    for path in old:
        same = np.asarray(old[path]) == np.asarray(new[path])
        if path.startswith("encoder/layers/"):
            assert same[0].all()
        else:
            assert same.all(), path
    with pytest.raises(ValueError, match="do not fill one step"):
        distill_mean_pooling(model.params, model.config, model.tokenizer, texts[:3])


def test_init_heads_trains_the_upper_half_and_fits_token_weights(tmp_path, capsys):
    write_tiny_model(tmp_path / "plain", heads=False)
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(5, 20))) for _ in range(300)]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (tmp_path / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    command = ["convert", "init-heads", str(tmp_path / "plain"), str(tmp_path / "start")]
    assert main([*command, "--cls-from-mean"]) == 1
    assert "--cls-from-mean needs --texts" in capsys.readouterr().err
    assert main([*command, "--cls-from-mean", "--texts", str(tmp_path / "texts.jsonl")]) == 0
    shown = capsys.readouterr()
    assert re.search(r"step (\d+) of \1  1 - cosine 0\.\d+", shown.err)
    assert "token weights fitted to 300 texts" in shown.out
    plain, start = (pretrained.load(tmp_path / name) for name in ("plain", "start"))
    assert not plain.heads_trained and start.heads_trained
    old, new = (
        np.asarray(model.params["encoder"]["layers"]["query"]["kernel"]) for model in (plain, start)
    )
    moved = [not np.array_equal(*pair) for pair in zip(old, new, strict=True)]
    half = len(old) // 2
    assert moved == [False] * half + [True] * (len(old) - half)
