"""Meshes, the sharding of batches, and trees of parameters by path.

The mesh has three axes: `data` splits batches, `fsdp` splits parameters and batches, `tensor`
splits the width of matrices. Which axes split which parameter is in the tables of `model/`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # the mesh axes that split the rows of a batch


def make_mesh(
    data: int | None = None, fsdp: int = 1, tensor: int = 1, devices: list[Any] | None = None
) -> Mesh:
    """A mesh over `devices` (default: all local ones); `data` defaults to the remaining devices.

    ValueError where the sizes do not cover the devices.
    """
    devices = jax.local_devices() if devices is None else devices
    if data is None:
        data = len(devices) // (fsdp * tensor)
    if data * fsdp * tensor != len(devices) or data < 1:
        raise ValueError(
            f"a mesh of data={data} x fsdp={fsdp} x tensor={tensor} does not cover "
            f"{len(devices)} devices"
        )
    return Mesh(np.array(devices).reshape(data, fsdp, tensor), AXES)


def named_sharding(path: str, shape: tuple[int, ...], spec: P, mesh: Mesh) -> NamedSharding:
    """`spec` on `mesh`, checked for the parameter `path`.

    ValueError where the rank differs or the mesh axes do not divide a dimension.
    """
    if len(spec) != len(shape):
        raise ValueError(f"parameter {path} has shape {shape}, its sharding {spec} another rank")
    for size, axes in zip(shape, spec, strict=True):
        names = (axes,) if isinstance(axes, str) else axes or ()
        shards = math.prod(mesh.shape[name] for name in names)
        if size % shards:
            raise ValueError(
                f"parameter {path} of shape {shape} cannot be split in {shards} along {axes}; "
                "choose a mesh whose fsdp and tensor sizes divide the model's widths"
            )
    return NamedSharding(mesh, spec)


def shard_array(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Copies an array from the host to the mesh; each device receives its shard only."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over `data` and `fsdp`."""
    return NamedSharding(mesh, P(BATCH_AXES))


def platform_of(mesh: Mesh) -> str:
    """The platform of the devices of `mesh`: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def default_dtype(mesh: Mesh) -> Literal["float32", "bfloat16"]:
    """The default compute dtype: float32 on CPUs, bfloat16 on accelerators."""
    return "float32" if platform_of(mesh) == "cpu" else "bfloat16"


def batch_shards(mesh: Mesh | None) -> int:
    """Number of shards of a batch: the size of `data` times that of `fsdp`; 1 without a mesh."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dict to {"encoder/layers/query/kernel": leaf}."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def map_params(function: Callable[[str, Any], Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of `function(path, leaf)`."""
    return unflatten({path: function(path, leaf) for path, leaf in flatten(params).items()})
