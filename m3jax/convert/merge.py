"""The weighted mean of the parameters of models trained from one start.

Runs of one start with other data, rates or seeds lie in one basin: the mean of their parameters
often finds better than each of them, and costs nothing at search time [Wortsman et al. 2022,
"Model soups", arXiv 2203.05482]; a tuned model and the one it came from, mixed, keep what tuning
forgot [Xiao et al. 2023, "LM-Cocktail", arXiv 2311.13534].
"""

from collections.abc import Callable, Sequence

import numpy as np

from m3jax import sharding


def merge(loads: Sequence[Callable[[], dict]], weights: Sequence[float]) -> dict:
    """sum_i w_i params_i / sum_i w_i, in float32; each is loaded in its turn.

    What is equal in all, such as frozen parts, stays equal to the last bit. ValueError where
    parameters differ in name or shape, or weights do not fit.
    """
    if len(loads) < 2 or len(weights) != len(loads):
        raise ValueError(f"{len(loads)} models and {len(weights)} weights: two or more, one each")
    if not np.isfinite(weights).all() or sum(weights) <= 0:
        raise ValueError(f"weights must have a positive sum, got {list(weights)}")
    shares = [weight / sum(weights) for weight in weights]
    first = sharding.flatten(loads[0]())
    total = {name: np.asarray(leaf, np.float32) * shares[0] for name, leaf in first.items()}
    equal = dict.fromkeys(first, True)
    for load, share in zip(loads[1:], shares[1:], strict=True):
        params = sharding.flatten(load())
        check(first, params)
        for name, leaf in params.items():
            total[name] += np.asarray(leaf, np.float32) * share
            equal[name] = equal[name] and np.array_equal(first[name], leaf)
    return sharding.unflatten({name: first[name] if equal[name] else total[name] for name in first})


def check(first: dict, other: dict) -> None:
    """ValueError that names a parameter which only one has, or of another shape."""
    for name in sorted(first.keys() | other.keys()):
        shapes = [np.shape(params[name]) if name in params else None for params in (first, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"parameter {name}: {shapes[0]} and {shapes[1]}; only models trained "
                             "from one start can be merged")  # fmt: skip
