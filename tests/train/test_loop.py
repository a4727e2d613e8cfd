"""Runs: they resume bit for bit, refuse what would be wrong, and leave a model that works."""

import argparse
import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest
import tokenizers
from support.examples_in_memory import make_examples
from support.training import losses, write_examples

from m3jax import M3Embedder, pretrained
from m3jax.cli.main import main
from m3jax.cli.train import read_config
from m3jax.config import (
    DataConfig,
    HeadWeights,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
    RetroMAEConfig,
    StepConfig,
    TrainConfig,
)
from m3jax.sharding import flatten
from m3jax.train import loop, setup
from m3jax.train.run_log import read_metrics


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_dir):
    directory = tmp_path_factory.mktemp("data")
    write_examples(directory / "pairs.jsonl")
    lines = [{"text": f"{e.query} {e.positives[0]}"} for e in make_examples(40)]
    texts = "\n".join(map(json.dumps, lines))
    (directory / "texts.jsonl").write_text(texts, encoding="utf-8")
    return directory


@pytest.fixture
def one_device(monkeypatch):
    """Programs for one device compile faster; what meshes change has tests of its own."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


@pytest.fixture(scope="module")
def config(tiny_dir, files):
    return TrainConfig(
        model=str(tiny_dir),
        train_data=(str(files / "pairs.jsonl"),),
        steps=6,
        save_every=2,
        log_every=1,
        data=DataConfig(
            group_size=2,
            query_length=16,
            passage_length=32,
            length_boundaries=(32,),
            batch_sizes=(8,),
            batching="padded_to_group",
        ),
        loss=LossConfig(self_distill_start=3),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_ratio=0.2),
    )


def run(config, workdir, evaluate=None, wrap_update=lambda update: update):
    workdir.mkdir(exist_ok=True)
    config, prepared = setup.prepare(config, workdir)
    trainer = prepared.trainer._replace(update=wrap_update(prepared.trainer.update))
    prepared = dataclasses.replace(prepared, trainer=trainer)
    return loop.train(config, prepared, workdir, evaluate)


@pytest.fixture(scope="module")
def unbroken(config, tmp_path_factory):
    """The losses of an uninterrupted run on one device."""
    workdir = tmp_path_factory.mktemp("unbroken")
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as few:
        few.setattr(jax, "devices", lambda: first)
        run(config, workdir)
    return losses(workdir)


@pytest.mark.usefixtures("one_device")
def test_a_run_leaves_a_model_curves_and_metrics(config, tmp_path):
    stopped = run(config, tmp_path / "run")
    assert stopped.finished and stopped.step == 6 and stopped.model is not None
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(6))
    wanted = {"loss", "nce/dense", "nce/sparse", "nce/colbert", "nce/fused", "accuracy/dense"}
    assert wanted | {"gradient_norm", "learning_rate", "sparse_active"} <= rows[0].keys()
    assert [row["learning_rate"] for row in rows] == pytest.approx(
        [0, 1e-3, 0.8e-3, 0.6e-3, 0.4e-3, 0.2e-3]
    )
    assert (tmp_path / "run" / "curves.png").is_file()
    before = M3Embedder.from_pretrained(config.model).encode(["the encoder"])["dense_vecs"]
    after = M3Embedder.from_pretrained(stopped.model).encode(["the encoder"])["dense_vecs"]
    assert 1e-4 < np.abs(before - after).max() < 1
    tuned = HeadWeights(dense=0.2, sparse=0.1, colbert=0.7)
    pretrained.write_fusion(stopped.model, "all", tuned)
    assert run(config, tmp_path / "run").finished  # once more: nothing to do, and no harm
    assert losses(tmp_path / "run") == [row["loss"] for row in rows]
    assert pretrained.read_fusion(stopped.model) == {"all": tuned}


@pytest.mark.usefixtures("one_device")
def test_the_loss_falls_on_training_data(config, tmp_path):
    config = dataclasses.replace(
        config, steps=30, save_every=0, loss=LossConfig(self_distill=False, temperature=0.2)
    )
    run(config, tmp_path / "run")
    got = losses(tmp_path / "run")
    assert np.mean(got[-5:]) < 0.9 * np.mean(got[:5])


class Killed(BaseException):
    """What no handler of the run expects."""


@pytest.mark.usefixtures("one_device")
def test_a_killed_run_resumes_bit_for_bit(config, unbroken, tmp_path):
    def dies(update):
        def wrapped(state, batches, key):
            if int(state.step) == 3:
                raise Killed
            return update(state, batches, key)

        return wrapped

    with pytest.raises(Killed):
        run(config, tmp_path / "killed", wrap_update=dies)
    assert run(config, tmp_path / "killed").finished
    assert losses(tmp_path / "killed") == unbroken


@pytest.mark.usefixtures("one_device")
def test_sigterm_saves_and_the_same_command_resumes(config, unbroken, tmp_path):

    def asks(model):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"ndcg@10": 0.5}

    config = dataclasses.replace(config, evaluate_every=3, evaluate_task="given")
    stopped = run(config, tmp_path / "stopped", asks)
    assert (stopped.step, stopped.finished, stopped.model) == (3, False, None)
    assert (tmp_path / "stopped" / "best" / "m3jax.json").is_file()
    assert run(config, tmp_path / "stopped", lambda model: {"ndcg@10": 0.4}).finished
    assert losses(tmp_path / "stopped") == unbroken
    best = json.loads((tmp_path / "stopped" / "best.json").read_text())
    assert (best["step"], best["score"]) == (3, 0.5)


@pytest.mark.parametrize(
    "sizes",
    [
        (2, 2, 2),
        pytest.param((8, 1, 1), marks=pytest.mark.slow),
        pytest.param((2, 4, 1), marks=pytest.mark.slow),
    ],
)
def test_meshes_give_the_losses_of_one_device(config, unbroken, tmp_path, sizes):
    data, fsdp, tensor = sizes
    mesh = MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
    run(dataclasses.replace(config, mesh=mesh), tmp_path / "run")
    np.testing.assert_allclose(losses(tmp_path / "run"), unbroken, rtol=2e-4)


@pytest.mark.slow
def test_a_run_moves_to_another_mesh(config, unbroken, tmp_path):
    half = dataclasses.replace(config, mesh=MeshConfig(data=4, tensor=2))
    asking = dataclasses.replace(half, evaluate_every=2, evaluate_task="given")
    assert run(asking, tmp_path / "moved", _ask_to_stop).step == 2
    assert run(dataclasses.replace(config, mesh=MeshConfig(fsdp=8)), tmp_path / "moved").finished
    np.testing.assert_allclose(losses(tmp_path / "moved"), unbroken, rtol=2e-4)


def _ask_to_stop(model):
    os.kill(os.getpid(), signal.SIGTERM)
    return {"ndcg@10": 0.0}


def test_the_mask_is_the_tokenizers_own(tiny):
    start = tiny.encoder.model
    with pytest.raises(ValueError, match="has no <mask>"):
        setup.with_mask(RetroMAEConfig(), start)
    assert setup.with_mask(RetroMAEConfig(mask_id=3), start).mask_id == 3
    backend = tokenizers.Tokenizer.from_str(start.tokenizer.backend.to_str())
    backend.add_special_tokens(["<mask>"])
    own = dataclasses.replace(start.tokenizer, backend=backend)
    found = setup.with_mask(RetroMAEConfig(), dataclasses.replace(start, tokenizer=own))
    assert found.mask_id == backend.get_vocab_size() - 1


@pytest.mark.usefixtures("one_device")
def test_retromae_learns_and_exports_an_encoder(config, files, tmp_path):
    config = dataclasses.replace(
        config,
        objective="retromae",
        train_data=(str(files / "texts.jsonl"),),
        steps=25,
        save_every=0,
        data=dataclasses.replace(config.data, query_length=32),
        retromae=RetroMAEConfig(mask_id=3),
        optimizer=OptimizerConfig(learning_rate=3e-3),
    )
    stopped = run(config, tmp_path / "run")
    got = losses(tmp_path / "run")
    assert np.mean(got[-5:]) < 0.8 * got[0]
    assert stopped.model is not None
    before, after = (flatten(pretrained.load(x).params) for x in (config.model, stopped.model))
    assert before.keys() == after.keys()
    assert np.abs(after["encoder/embeddings/word"] - before["encoder/embeddings/word"]).max() > 1e-4
    assert np.array_equal(after["heads/sparse/kernel"], before["heads/sparse/kernel"])  # untrained


@pytest.mark.usefixtures("one_device")
def test_accumulation_keeps_its_own_negatives(config, tmp_path):
    """Two batches a step: the loss is the mean of what each alone gives to the same weights."""
    start = pretrained.load(config.model)  # the same weights give the same loss without dropout
    encoder = dataclasses.replace(start.config.encoder, dropout=0.0)
    no_dropout = dataclasses.replace(start.config, encoder=encoder)
    pretrained.save(tmp_path / "model", dataclasses.replace(start, config=no_dropout))
    still = dataclasses.replace(
        config,
        model=str(tmp_path / "model"),
        steps=4,
        save_every=0,
        optimizer=OptimizerConfig(learning_rate=0.0),
        loss=LossConfig(self_distill_start=0),
    )
    run(still, tmp_path / "one")
    both = dataclasses.replace(still, steps=2, step=StepConfig(accumulate=2))
    run(both, tmp_path / "two")
    one = losses(tmp_path / "one")
    np.testing.assert_allclose(
        losses(tmp_path / "two"), [np.mean(one[:2]), np.mean(one[2:])], rtol=1e-5
    )


@pytest.mark.usefixtures("one_device")
def test_another_config_or_other_data_is_refused(config, files, tmp_path):
    run(dataclasses.replace(config, steps=2), tmp_path / "run")
    with pytest.raises(ValueError, match="different steps: 2 there, 6 here"):
        run(config, tmp_path / "run")
    changed = dataclasses.replace(config, steps=2, optimizer=OptimizerConfig(learning_rate=9e-4))
    kept = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(ValueError, match="different optimizer"):
        run(changed, tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == kept
    assert json.loads(kept)["optimizer"]["learning_rate"] == 1e-3


def test_data_that_has_changed_is_read_again(config, files, tmp_path):
    """A run without a checkpoint trains on what its files hold now."""
    pairs = tmp_path / "pairs.jsonl"
    lines = (files / "pairs.jsonl").read_text().splitlines(keepends=True)
    config = dataclasses.replace(config, train_data=(str(pairs),))
    for count in (10, 20):
        pairs.write_text("".join(lines[:count]))
        _, prepared = setup.prepare(config, tmp_path)
        assert len(prepared.batch_source.examples) == count
    pairs.unlink()  # what was built serves
    assert len(setup.prepare(config, tmp_path)[1].batch_source.examples) == 20


def test_queries_without_negatives_are_reported(config, files, tmp_path):
    rows = [json.loads(line) for line in (files / "pairs.jsonl").read_text().splitlines()][:20]
    for name, off in (("some", 5), ("all", 20)):
        alone = [
            {"query": r["query"], "pos": r["pos"], "in_batch": i >= off} for i, r in enumerate(rows)
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in alone))
        given = dataclasses.replace(config, train_data=(str(path),))
        messages: list[str] = []
        (tmp_path / name).mkdir()
        if name == "all":
            with pytest.raises(ValueError, match="no example has negatives"):
                setup.prepare(given, tmp_path / name)
        else:
            setup.prepare(given, tmp_path / name, log=messages.append)
            assert any("5 of 20 examples have a loss of 0" in line for line in messages)


@pytest.mark.usefixtures("one_device")
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_checkpoint(config, tmp_path):
    wild = dataclasses.replace(
        config,
        steps=40,
        optimizer=OptimizerConfig(learning_rate=1e30, clip_norm=0.0, warmup_ratio=0.0),
        loss=LossConfig(heads=("dense", "colbert"), self_distill=False),
    )
    with pytest.raises(FloatingPointError, match="Last good checkpoint: "):
        run(wild, tmp_path / "run")


@pytest.mark.usefixtures("one_device")
def test_the_command(config, files, tmp_path, tiny_dir, capsys):
    config_file = tmp_path / "mine.py"
    config_file.write_text(
        "from m3jax.config import *\n"
        "def config():\n"
        "    data = DataConfig(group_size=2, length_boundaries=(32,), query_length=16,"
        " passage_length=32, batch_sizes=(8,))\n"
        "    step = StepConfig(split='cached', sub_tokens=64)\n"
        "    return TrainConfig(steps=2, data=data, step=step)\n"
    )
    arguments = [
        "train",
        "--config",
        str(config_file),
        "--model",
        str(tiny_dir),
        "--data",
        str(files / "pairs.jsonl"),
        "--workdir",
        str(tmp_path / "run"),
    ]
    assert main([*arguments, "--set", "loss.temperature=0.05"]) == 0
    assert "2 steps done" in capsys.readouterr().out
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["loss"]["temperature"] == 0.05
    assert main([*arguments, "--set", "loss.temprature=0.05"]) == 1
    assert "no field 'temprature'" in capsys.readouterr().err
    assert main([*arguments, "--set", "loss.temperature=0.05", "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"]["temperature"] == 0.05
    assert main(["train", "--config", "none.py", "--workdir", str(tmp_path / "x")]) == 1
    assert "no such file: none.py" in capsys.readouterr().err


def test_a_run_too_short_for_self_distillation_is_reported(config, tmp_path):
    for start, steps, expected in ((6, 6, True), (5, 6, False)):
        messages: list[str] = []
        loss = dataclasses.replace(config.loss, self_distill_start=start)
        short = dataclasses.replace(config, steps=steps, loss=loss)
        setup.prepare(short, tmp_path, log=messages.append)
        assert any("starts at step 6, but the run has 6" in line for line in messages) == expected


def test_too_long_and_wrong_data_are_errors(config, files, tmp_path):
    long = dataclasses.replace(config, data=DataConfig(query_length=16, passage_length=8192))
    with pytest.raises(ValueError, match="extend-positions"):
        setup.prepare(long, tmp_path)
    texts = dataclasses.replace(config, objective="retromae")
    with pytest.raises(ValueError, match="missing"):
        setup.prepare(texts, tmp_path)


@pytest.mark.parametrize("stage", ["retromae", "contrastive", "finetune"])
@pytest.mark.parametrize("folder", ["configs", "configs/mini"])
def test_every_config_is_read(stage, folder, request):
    path = request.config.rootpath / folder / f"{stage}.py"
    options = argparse.Namespace(config=str(path), model="m", data=["d"], set=["steps=7"])
    made = read_config(options)
    assert (made.model, made.train_data, made.steps) == ("m", ("d",), 7)
    assert made.objective == ("retromae" if stage == "retromae" else "m3")
