"""The tables of parameters: complete, and true of the modules, the meshes and the checkpoints."""

import collections
import math

import jax
import pytest

from m3jax import sharding
from m3jax.config import EncoderConfig, M3Config
from m3jax.model.families import FAMILIES, PARAMETERS, family_named, family_of, param_sharding
from m3jax.model.heads import HEAD_PARAMETERS
from m3jax.model.m3 import abstract_params
from m3jax.model.retromae import abstract_retromae

# Every axis has another size, so that no two can be confused.
CONFIG = M3Config(
    encoder=EncoderConfig(
        vocab_size=600, hidden_size=32, layers=3, heads=4, intermediate_size=64, max_positions=130
    ),
    colbert_dim=16,
)


def test_every_parameter_has_one_row_with_its_shape():
    family = family_of(CONFIG.encoder)
    for rows, params in (
        ((*family.parameters, *HEAD_PARAMETERS), abstract_params(CONFIG)),
        (family.pretraining, abstract_retromae(CONFIG)),
    ):
        shapes = {path: leaf.shape for path, leaf in sharding.flatten(params).items()}
        assert len(rows) == len(shapes)
        assert {row.path: row.shape(CONFIG) for row in rows} == shapes


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_rows_agree_with_each_other(family):
    converted = (*family.parameters, *HEAD_PARAMETERS)
    names = collections.Counter(row.torch for row in converted)
    assert None not in names and set(names.values()) == {1}
    for row in (*converted, *family.pretraining):
        assert ("{}" in (row.torch or "{}" * row.stacked)) == row.stacked, row.path
        assert PARAMETERS[row.path] == row, "a path has one row in all families"
        assert not row.transpose or len(row.axes.split()) - row.stacked == 2
    assert all(row.part in ("embeddings", "layers") for row in family.parameters)
    assert {row.part for row in family.pretraining} == {"pretraining"}


@pytest.mark.parametrize("sizes", [(1, 4, 2), (1, 2, 4), (8, 1, 1)])
def test_every_parameter_has_a_sharding_on_any_mesh(sizes):
    mesh = sharding.make_mesh(*sizes, devices=jax.devices())
    for row in PARAMETERS.values():
        shape = row.shape(CONFIG)
        shard = param_sharding(row.path, shape, mesh).shard_shape(shape)
        # Each mesh axis splits a parameter at most once; large ones are split by both.
        parts = math.prod(shape) // math.prod(shard)
        assert parts in {1, sizes[1], sizes[2], sizes[1] * sizes[2]}, row.path
    with pytest.raises(ValueError, match="belongs to no encoder family"):
        param_sharding("encoder/layers/query/weight", (2, 2), mesh)
    with pytest.raises(ValueError, match="another rank"):
        param_sharding("heads/colbert/bias", (2, 2), mesh)


def test_an_unknown_family_is_an_error_that_names_the_supported_ones():
    assert family_named("xlm-roberta").name == "XLM-RoBERTa"
    with pytest.raises(ValueError, match="model_type is 'bert', m3jax supports 'xlm-roberta'"):
        family_named("bert")
