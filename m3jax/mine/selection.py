"""Which of a query's hits become its negatives. No model is involved."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from m3jax.data.cleaning import signature_of
from m3jax.io.hashing import int_digest
from m3jax.mine.options import MiningOptions

_signature = functools.lru_cache(maxsize=8192)(signature_of)


class Hit(NamedTuple):
    """A retrieved passage: its number in the pool, the hash of its text, its score."""

    number: int
    text_hash: int
    score: float


class Constraints(NamedTuple):
    """What the negatives of one query must satisfy."""

    query: str  # with its prompt; seeds the random sample
    positives: Sequence[str]
    excluded: Mapping[int, str]  # hash of a passage that is not a negative -> the reason
    score_limit: float  # exclusive


def select(
    hits: Sequence[Hit],
    text_of: Callable[[int], str],
    constraints: Constraints,
    options: MiningOptions,
    dropped: Counter[str],
) -> list[Hit]:
    """At most `options.negatives` of `hits` (best first), sorted by descending score.

    `text_of` returns the text of a passage number. `dropped` counts the rejected hits by reason;
    near duplicates of positives are searched only until enough negatives are selected, so that
    count is a lower bound. A random sample depends only on the seed, the query and the texts, not
    on the order of the pool.
    """
    candidates = []
    for hit in hits[options.first : options.last]:
        if hit.text_hash in constraints.excluded:
            dropped[constraints.excluded[hit.text_hash]] += 1
        elif not hit.score < constraints.score_limit:
            dropped["score too close to the positive's"] += 1
        else:
            candidates.append(hit)
    if options.sampling == "random":
        candidates.sort(
            key=lambda hit: random_priority(options.seed, constraints.query, hit.text_hash)
        )
    threshold = options.near_duplicates
    selected: list[Hit] = []
    for hit in candidates:
        if len(selected) == options.negatives:
            break
        if threshold and _is_near(text_of(hit.number), constraints.positives, threshold):
            dropped["near duplicate of a positive"] += 1
        else:
            selected.append(hit)
    return sorted(selected, key=lambda hit: (-hit.score, hit.number))


def random_priority(seed: int, query: str, text_hash: int) -> int:
    """A deterministic random 64-bit priority of a (query, passage) pair."""
    return int_digest(f"{seed}\0{text_hash}\0{query}".encode("utf-8", "backslashreplace"))


def _is_near(text: str, positives: Sequence[str], threshold: float) -> bool:
    signature = _signature(text)
    return any(_signature(positive).jaccard(signature) >= threshold for positive in positives)


def lowest_score(scores: np.ndarray) -> float:
    """The lowest of a query's positive scores [n]; infinity if n = 0."""
    return float(scores.min()) if len(scores) else math.inf
