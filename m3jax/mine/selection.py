"""Which of a query's hits become its negatives: rules alone, no model.

    ranks       hits first + 1 ... last count, the query's own positives among them as they stand
    max_share   s(q, n) < max_share * s(q, p+)   [de Souza Moreira et al. 2024, TopK-PercPos]
    margin      s(q, n) < s(q, p+) - margin      [the same, TopK-MarginPos]

p+ is the query's positive with the lowest score. A share says nothing of a negative score, which a
dense cosine may be: there the negative must score below the positive itself.
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from m3jax.data.cleaning import signature_of
from m3jax.io.hashing import int_digest

PICKS = ("sample", "top")
_signature = functools.lru_cache(maxsize=8192)(signature_of)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What a negative must satisfy, and how many are taken."""

    negatives: int = 15
    first: int = 10  # hits passed over
    last: int = 210  # hits looked at
    max_share: float | None = None
    margin: float | None = None
    near_duplicates: float = 0.8  # similarity to a positive from which a passage is dropped; 0: off
    pick: Literal["sample", "top"] = "sample"
    seed: int = 0

    def __post_init__(self):
        if self.negatives < 1:
            raise ValueError(f"negatives must be at least 1, got {self.negatives}")
        if not 0 <= self.first < self.last:
            raise ValueError(f"a range of ranks must rise from 0, got {self.first}-{self.last}")
        if self.max_share is not None and not 0 < self.max_share <= 1:
            raise ValueError(f"max_share must lie in (0, 1], got {self.max_share}")
        if self.margin is not None and not (0 <= self.margin < math.inf):
            raise ValueError(f"margin must be 0 or more, got {self.margin}")
        if not 0 <= self.near_duplicates <= 1:
            raise ValueError(f"near_duplicates must lie in [0, 1], got {self.near_duplicates}")
        if self.pick not in PICKS:
            raise ValueError(f"pick must be one of {', '.join(PICKS)}, got {self.pick!r}")

    @property
    def by_score(self) -> bool:
        """Do the positives' scores decide?"""
        return self.max_share is not None or self.margin is not None

    def limit(self, positive: float) -> float:
        """The score that a negative must stay below, from the lowest of the positives."""
        limits = [math.inf]
        if self.max_share is not None:
            limits.append(self.max_share * positive if positive > 0 else positive)
        if self.margin is not None:
            limits.append(positive - self.margin)
        return min(limits)


class Hit(NamedTuple):
    """A passage of the pool that a query found."""

    number: int
    key: int
    score: float


def choose(
    hits: Sequence[Hit],
    text_of: Callable[[int], str],
    positives: Sequence[str],
    forbidden: dict[int, str],
    limit: float,
    rules: Rules,
    salt: str,
    dropped: Counter[str],
) -> list[Hit]:
    """At most `rules.negatives` of the hits, which begin with the best; `dropped` counts others.

    `forbidden` says of a key why it is no negative. A sample depends on the seed, `salt` and the
    texts alone, not on the order of anything. Near duplicates are looked for among what would be
    taken, so only those are counted.
    """
    left = []
    for hit in hits[rules.first : rules.last]:
        if hit.key in forbidden:
            dropped[forbidden[hit.key]] += 1
        elif not hit.score < limit:
            dropped["score too close to the positive's"] += 1
        else:
            left.append(hit)
    if rules.pick == "sample":
        left.sort(key=lambda hit: lot(rules.seed, salt, hit.key))
    taken: list[Hit] = []
    for hit in left:
        if len(taken) == rules.negatives:
            break
        if rules.near_duplicates and _close(text_of(hit.number), positives, rules.near_duplicates):
            dropped["near duplicate of a positive"] += 1
        else:
            taken.append(hit)
    return sorted(taken, key=lambda hit: (-hit.score, hit.number))


def lot(seed: int, salt: str, key: int) -> int:
    """A number drawn for a passage of a query: the same in every run."""
    return int_digest(f"{seed}\0{key}\0{salt}".encode("utf-8", "backslashreplace"))


def _close(text: str, positives: Sequence[str], threshold: float) -> bool:
    signature = _signature(text)
    return any(_signature(positive).jaccard(signature) >= threshold for positive in positives)


def lowest(scores: np.ndarray) -> float:
    """The lowest score of the positives; no bound where there is none."""
    return float(scores.min()) if len(scores) else math.inf
