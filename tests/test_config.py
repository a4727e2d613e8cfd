"""Configs: overrides, JSON, refusals."""

import pytest

from m3jax.config import (
    ComputeConfig,
    DataConfig,
    EncoderConfig,
    M3Config,
    from_json,
    override,
    to_json,
)


def test_override_changes_one_nested_field():
    config = override(M3Config(), "encoder.layers=3")
    assert config.encoder.layers == 3
    assert override(config, "encoder.layers=24") == M3Config()
    assert override(M3Config(), "pooling=mean").pooling == "mean"
    assert override(M3Config(), "special_ids=[5, 6]").special_ids == (5, 6)
    assert override(M3Config(), "encoder.dropout=0").encoder.dropout == 0.0


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
    import json

    assert from_json(M3Config, json.loads(json.dumps(to_json(config)))) == config


def test_json_with_an_unknown_field_is_refused():
    with pytest.raises(KeyError, match="colour"):
        from_json(M3Config, {"colour": 1})


@pytest.mark.parametrize("assignment", ["dtype=float8", "attention=flash", "query_block=0"])
def test_bad_compute_settings_are_refused(assignment):
    with pytest.raises(ValueError, match=assignment.partition("=")[0]):
        override(ComputeConfig(), assignment)


def test_fields_that_only_fit_together_change_together():
    data = DataConfig(edges=(500,), batch_sizes=(8,))
    changed = override(data, "edges=(32, 64)", "batch_sizes=(8, 4)")
    assert (changed.edges, changed.batch_sizes) == ((32, 64), (8, 4))
    with pytest.raises(ValueError, match="as many"):
        override(data, "edges=(32, 64)")
    with pytest.raises(KeyError, match="layers has no fields"):
        override(M3Config(), "encoder.layers.x=1")
