"""Batch sizes for a given memory: the largest that the compiler's plan holds, kept by a run."""

import dataclasses
import json

import jax
import pytest
from support.training import write_examples

from m3jax import pretrained, sharding
from m3jax.cli.main import main
from m3jax.config import DataConfig, LossConfig, RetroMAEConfig, StepConfig, TrainConfig
from m3jax.train import fit_memory, setup
from m3jax.train.gradcache import num_microbatches

DATA = DataConfig(
    group_size=2,
    query_length=16,
    passage_length=64,
    length_boundaries=(32, 64),
    batch_sizes=(512, 512),
)
DENSE = LossConfig(heads=("dense",), self_distill=False)
PLAIN = TrainConfig(data=DATA, loss=DENSE)
CACHED = dataclasses.replace(PLAIN, step=StepConfig(split="cached", sub_tokens=4096))


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def model(tiny_dir, mesh):
    return pretrained.load(tiny_dir, mesh=mesh).config


@pytest.fixture
def planned(monkeypatch):
    """Plans without a compiler: a state, then bytes for what is alive at once; the calls made."""
    calls = []

    def memory(config, model, mesh, queries, widths):
        calls.append((queries, widths))
        local = queries // sharding.batch_shards(mesh)
        tokens = local * (widths[0] + config.data.group_size * widths[1])
        alive = tokens
        if config.step.split != "none":
            rows = local * config.data.group_size
            alive = rows // num_microbatches(rows, widths[1], 1, config.step.sub_tokens) * widths[1]
        total = 100_000 + 1000 * alive + 8 * tokens + local**2
        return fit_memory.Memory(total, total - 100_000, 100_000)

    monkeypatch.setattr(fit_memory, "step_memory", memory)
    return calls


@pytest.mark.parametrize("allowed", [0.4e6, 2e6, 11e6, 40e6])
def test_the_largest_batches_that_fit_are_found_with_few_compilations(
    planned, model, mesh, allowed
):
    lines = []
    fitted, sizes = fit_memory.fit(
        PLAIN, model, mesh, allowed / fit_memory.MEMORY_FRACTION, lines.append
    )
    made = len(planned)
    assert made <= 2 * (2 + fit_memory.MAX_TRIES) and len(lines) == 2
    for group, (batch, size) in enumerate(zip(fitted.data.batch_sizes, sizes, strict=True)):
        widths = 16, DATA.length_boundaries[group]

        def taken(batch, widths=widths):
            return fit_memory.step_memory(PLAIN, model, mesh, batch, widths).total

        assert size.memory == taken(batch) <= allowed
        assert taken(batch + 1) > allowed or taken(batch) >= fit_memory.TOLERANCE * allowed
    assert fitted.data.batch_sizes[0] >= fitted.data.batch_sizes[1]


def test_batch_sizes_that_fit_are_unchanged(planned, model, mesh):
    fitted, sizes = fit_memory.fit(PLAIN, model, mesh, 1e12)
    assert fitted == PLAIN and [size.batch for size in sizes] == [512, 512]
    assert len(planned) == 2


def test_micro_batches_shrink_before_batches_do(planned, model, mesh):
    one = fit_memory.fit(PLAIN, model, mesh, 3e6)[0]
    many, sizes = fit_memory.fit(CACHED, model, mesh, 3e6)
    assert 64 <= many.step.sub_tokens < 4096
    assert all(size.rows * size.length <= many.step.sub_tokens for size in sizes)
    assert many.data.batch_sizes[1] > 2 * one.data.batch_sizes[1]
    assert fit_memory.fit(CACHED, model, mesh, 1e12)[0] == CACHED


def test_devices_share_a_batch(planned, model):
    eight = sharding.make_mesh(4, 2, 1)
    fitted, _ = fit_memory.fit(PLAIN, model, eight, 1.2e6)
    assert all(size % 8 == 0 for size in fitted.data.batch_sizes)
    alone = fit_memory.fit(PLAIN, model, sharding.make_mesh(devices=jax.devices()[:1]), 1.2e6)[0]
    assert fitted.data.batch_sizes[1] >= 7 * alone.data.batch_sizes[1]


def test_too_little_memory_and_packed_rows_are_errors(planned, model, mesh):
    with pytest.raises(ValueError, match="data.length_boundaries 32: the smallest batch takes"):
        fit_memory.fit(PLAIN, model, mesh, 1000.0)
    packed = dataclasses.replace(PLAIN, data=dataclasses.replace(DATA, batching="packed"))
    with pytest.raises(ValueError, match="padded rows"):
        fit_memory.fit(packed, model, mesh, 1e9)


def test_units_of_memory():
    assert fit_memory.device_memory("80GB") == fit_memory.device_memory("80e9") == 80e9
    assert fit_memory.device_memory("1.5gib") == 1.5 * (1 << 30)
    for wrong in ("many", "-1GB", "0", "nan", "GB"):
        with pytest.raises(ValueError, match="--fit-memory must be"):
            fit_memory.device_memory(wrong)
    with pytest.raises(ValueError, match="does not report its memory"):
        fit_memory.device_memory("auto")


def test_the_compilers_plan_counts_state_and_activations(model, mesh):
    few, many = (fit_memory.step_memory(PLAIN, model, mesh, n, (16, 64)) for n in (8, 64))
    assert many.temporary > 4 * few.temporary
    parameters = sum(x.size * 4 for x in jax.tree.leaves(fit_memory.abstract_params(model)))
    assert few.arguments > 2.9 * parameters  # and both moments


@pytest.mark.slow
def test_plain_texts_have_a_plan_too(model, mesh):
    config = dataclasses.replace(PLAIN, objective="retromae", retromae=RetroMAEConfig(mask_id=3))
    few, many = (fit_memory.step_memory(config, model, mesh, n, (16, 64)) for n in (4, 64))
    assert many.total > few.total


def test_a_resumed_run_keeps_its_batch_sizes(planned, tiny_dir, tmp_path, monkeypatch, capsys):
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    write_examples(tmp_path / "pairs.jsonl")
    (tmp_path / "mine.py").write_text(
        "from m3jax.config import *\n"
        "def config():\n"
        "    data = DataConfig(group_size=2, query_length=16, passage_length=64,"
        " length_boundaries=(64,), batch_sizes=(512,), batching='padded_to_group')\n"
        "    return TrainConfig(steps=1, data=data,"
        " loss=LossConfig(heads=('dense',), self_distill=False))\n"
    )
    arguments = [
        "train",
        "--config",
        str(tmp_path / "mine.py"),
        "--model",
        str(tiny_dir),
        "--data",
        str(tmp_path / "pairs.jsonl"),
        "--workdir",
        str(tmp_path / "run"),
        "--fit-memory",
        "1MB",
    ]
    assert main(arguments) == 0
    assert 'to skip this search: --set "data.batch_sizes=(' in capsys.readouterr().out
    kept = json.loads((tmp_path / "run" / "sizes.json").read_text())
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["data"]["batch_sizes"] == kept["batch_sizes"] != [512]
    tried = len(planned)
    assert main(arguments) == 0
    assert "batch sizes from" in capsys.readouterr().out and len(planned) == tried
    assert "data" not in setup.RESUMABLE_FIELDS  # batch sizes determine the results
    assert main([*arguments[:-1], "1kB"]) == 1
    assert "--fit-memory must be" in capsys.readouterr().err
