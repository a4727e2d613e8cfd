"""The encoder families by the `model_type` of Hugging Face, and the tables of all parameters.

A new family is a module like `xlm_roberta` with its `FAMILY`, and a row here.
"""

from jax.sharding import Mesh, NamedSharding

from m3jax import sharding
from m3jax.config import EncoderConfig
from m3jax.model.heads import HEAD_PARAMETERS
from m3jax.model.parameters import Family, Parameter
from m3jax.model.xlm_roberta import XLM_ROBERTA

FAMILIES: dict[str, Family] = {family.model_type: family for family in (XLM_ROBERTA,)}
# Path -> row. A path that several families use has one sharding and one part.
PARAMETERS: dict[str, Parameter] = {
    row.path: row
    for rows in (
        HEAD_PARAMETERS,
        *(family.parameters + family.pretraining for family in FAMILIES.values()),
    )
    for row in rows
}


def family_of(encoder: EncoderConfig) -> Family:
    """The family of a config."""
    return FAMILIES[encoder.model_type]


def family_named(model_type: str | None) -> Family:
    """The family that Hugging Face calls `model_type`; ValueError for an unsupported one."""
    if model_type is None or model_type not in FAMILIES:
        supported = ", ".join(repr(name) for name in FAMILIES)
        raise ValueError(f"model_type is {model_type!r}, m3jax supports {supported}")
    return FAMILIES[model_type]


def parameter(path: str) -> Parameter:
    """The row of a parameter; ValueError for a path that no table has."""
    if path not in PARAMETERS:
        raise ValueError(f"parameter {path} belongs to no encoder family and no head")
    return PARAMETERS[path]


def param_sharding(path: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """The sharding of a parameter on `mesh`.

    ValueError for an unknown path, another rank, or a dimension that the mesh does not divide.
    """
    return sharding.named_sharding(path, shape, parameter(path).sharding, mesh)
