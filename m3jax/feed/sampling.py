"""The passages of an example that a step sees: hashes of (seed, epoch, example), no state."""

import numpy as np
from jaxtyping import Float64, Integer, UInt64

LONG_TEXT = 100  # characters; only longer texts are shuffled in thirds


def hash64(*numbers: int | Integer[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """A 64-bit hash of a tuple of integers, element by element.

    Applies the finalizer of SplitMix64 (Steele et al. 2014) to each number in turn.
    """
    with np.errstate(over="ignore"):
        state = np.uint64(0x9E3779B97F4A7C15)
        for number in numbers:
            bits = np.asarray(number).astype(np.int64).astype(np.uint64)
            state = (state ^ bits) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state)


def uniform(*numbers: int | Integer[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """`hash64` mapped to [0, 1)."""
    return np.asarray((hash64(*numbers) >> np.uint64(11)).astype(np.float64) / 2.0**53)


def pick_passages(
    seed: int, epoch: int, index: int, positives: int, negatives: int, group_size: int
) -> tuple[int, list[int]]:
    """Indices of one positive and of `group_size - 1` negatives of an example.

    Negatives are drawn without replacement; if there are too few, all of them repeat in turn.
    """
    positive = int(hash64(seed, epoch, index, -1) % np.uint64(positives))
    count = group_size - 1
    if not count:
        return positive, []
    order = np.argsort(hash64(seed, epoch, index, np.arange(negatives)), kind="stable")
    return positive, [int(order[i % negatives]) for i in range(count)]


def shuffled_thirds(text: str, ratio: float, seed: int, epoch: int, index: int) -> str:
    """With probability `ratio`, a long text with its three thirds in random order [M3 app. A.1]."""
    if not ratio or len(text) <= LONG_TEXT or uniform(seed, epoch, index, -2) >= ratio:
        return text
    third = -(-len(text) // 3)
    parts = [text[i : i + third] for i in range(0, len(text), third)]
    order = np.argsort(hash64(seed, epoch, index, -3, np.arange(len(parts))), kind="stable")
    return " ".join(parts[i] for i in order)
