"""Configs: overrides, JSON, refusals."""

import json
import logging

import pytest

from m3jax.config import ComputeConfig, DataConfig, EncoderConfig, M3Config, TrainConfig
from m3jax.io.fields import from_json, override, to_json


def test_override_changes_one_nested_field():
    config = override(M3Config(), "encoder.layers=3")
    assert config.encoder.layers == 3
    assert override(config, "encoder.layers=24") == M3Config()
    assert override(M3Config(), "pooling=mean").pooling == "mean"
    assert override(M3Config(), "special_ids=[5, 6]").special_ids == (5, 6)
    assert override(M3Config(), "encoder.dropout=0").encoder.dropout == 0.0


def test_fields_that_belong_together_change_together():
    boundaries = "length_boundaries=(64,128)"
    data = override(DataConfig(), boundaries, "batch_sizes=(12,8)", "seed=1", "seed=2")
    assert (data.length_boundaries, data.batch_sizes, data.seed) == ((64, 128), (12, 8), 2)
    with pytest.raises(ValueError, match="must have the same length"):
        override(DataConfig(), boundaries)
    both = override(M3Config(), "encoder.hidden_size=96", "encoder.heads=6", "colbert_dim=96")
    assert (both.encoder.hidden_size, both.encoder.heads, both.colbert_dim) == (96, 6, 96)
    with pytest.raises(KeyError, match="encoder.layers.x"):
        override(M3Config(), "encoder.layers.x=1")


@pytest.mark.parametrize(
    ("assignment", "error", "message"),
    [
        ("encoder.layer=3", KeyError, "layer"),
        ("encoder.layers=three", ValueError, "encoder.layers"),
        ("encoder.layers=1.5", ValueError, "layers"),
        ("encoder.layers=True", ValueError, "layers"),
        ("pooling=max", ValueError, "max"),
        ("encoder.heads=7", ValueError, "multiple"),
        ("encoder.dropout=1.0", ValueError, "dropout"),
        ("layers", ValueError, "FIELD=VALUE"),
    ],
)
def test_override_refuses(assignment, error, message):
    with pytest.raises(error, match=message):
        override(M3Config(), assignment)


def test_json_round_trip():
    config = M3Config(encoder=EncoderConfig(layers=2, eps=1e-12), pooling="mean")
    assert from_json(M3Config, to_json(config)) == config
    assert from_json(M3Config, json.loads(json.dumps(to_json(config)))) == config


def test_json_with_an_unknown_field_is_refused():
    with pytest.raises(KeyError, match="colour"):
        from_json(M3Config, {"colour": 1})


def test_former_names_are_accepted_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        old = override(
            TrainConfig(), "data.layout=group", "data.edges=(64,)", "data.batch_sizes=(8,)"
        )
    assert "data.layout is deprecated, use data.batching" in caplog.text
    assert (old.data.batching, old.data.length_boundaries) == ("padded_to_group", (64,))
    assert override(DataConfig(), "layout=packed").batching == "packed"
    assert (
        override(DataConfig(), "seed=1", "batching=packed", "layout='bucket'").batching == "padded"
    )
    assert override(
        DataConfig(), "batching=padded", "layout=bucket", "batching=packed"
    ).batching == ("packed")
    stored = to_json(old)
    data = stored["data"]
    data["edges"] = data.pop("length_boundaries")
    data["layout"] = {"padded_to_group": "group"}[data.pop("batching")]
    assert from_json(TrainConfig, json.loads(json.dumps(stored))) == old
    with pytest.raises(ValueError, match="batching must be one of padded, padded_to_group, packed"):
        override(DataConfig(), "layout=rows")


@pytest.mark.parametrize("assignment", ["dtype=float8", "attention=flash", "query_block=0"])
def test_bad_compute_settings_are_refused(assignment):
    with pytest.raises(ValueError, match=assignment.partition("=")[0]):
        override(ComputeConfig(), assignment)
