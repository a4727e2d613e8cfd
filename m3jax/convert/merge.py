"""The weighted mean of the parameters of models fine-tuned from the same initial model.

Fine-tuned models that differ in data, learning rate or seed are often in one basin of the loss: the
mean of their parameters retrieves better than each of them at no cost [Wortsman et al. 2022, "Model
soups", arXiv 2203.05482]. The mean of a fine-tuned model and its initial model retains general
abilities [Xiao et al. 2023, "LM-Cocktail", arXiv 2311.13534].
"""

from collections.abc import Callable, Sequence

import numpy as np

from m3jax import sharding


def merge_params(loads: Sequence[Callable[[], dict]], weights: Sequence[float]) -> dict:
    """sum_i w_i params_i / sum_i w_i, in float32; `loads` return the parameters, one at a time.

    Parameters that are equal in all models, such as frozen ones, are returned unchanged. ValueError
    if names or shapes differ, or if the weights are not one per model with a positive sum.
    """
    if len(loads) < 2 or len(weights) != len(loads):
        raise ValueError(
            f"{len(loads)} models and {len(weights)} weights: give two or more models and one "
            "weight for each"
        )
    if not np.isfinite(weights).all() or sum(weights) <= 0:
        raise ValueError(f"weights must have a positive sum, got {list(weights)}")
    shares = [weight / sum(weights) for weight in weights]
    first = sharding.flatten(loads[0]())
    total = {name: np.asarray(leaf, np.float32) * shares[0] for name, leaf in first.items()}
    equal = dict.fromkeys(first, True)
    for load, share in zip(loads[1:], shares[1:], strict=True):
        params = sharding.flatten(load())
        check_same_shapes(first, params)
        for name, leaf in params.items():
            total[name] += np.asarray(leaf, np.float32) * share
            equal[name] = equal[name] and np.array_equal(first[name], leaf)
    return sharding.unflatten({name: first[name] if equal[name] else total[name] for name in first})


def check_same_shapes(first: dict, other: dict) -> None:
    """ValueError names a parameter that only one has, or that has two shapes."""
    for name in sorted(first.keys() | other.keys()):
        shapes = [np.shape(params[name]) if name in params else None for params in (first, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"parameter {name}: {shapes[0]} and {shapes[1]}; only models fine-tuned from the "
                "same initial model can be merged"
            )
