"""The options of `mine_negatives`."""

import dataclasses
import math
from typing import Any, Literal

from m3jax.config import HeadWeights
from m3jax.data.examples import Paths
from m3jax.io.trec import Qrels
from m3jax.search.options import canonical_method

SAMPLING = ("random", "top")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiningOptions:
    """How candidates are retrieved, and which of them become negatives.

    The candidates of a query are its hits at ranks `first` + 1 to `last`, positives included in the
    count. With p the lowest score among the query's positives, a candidate of score s is kept if

        s < max_positive_ratio * p    [de Souza Moreira et al. 2024, TopK-PercPos]
        s < p - margin                [the same, TopK-MarginPos]

    where these are set. The ratio is undefined for p <= 0, which a dense cosine can be: there the
    condition is s < p.

    Raises ValueError for an unknown method, for a value out of range, and for BM25 with a corpus
    and a limit by score.
    """

    # Retrieval
    method: str = "dense"
    weights: HeadWeights | None = None  # for dense+sparse and all; None: those of the model
    bm25_terms: str = "words"  # or "tokens": those of the model's tokenizer
    passage_length: int | None = None  # tokens, passages are truncated; None: the model's maximum
    dtype: str = "float16"  # of the vectors on disk
    batch_size: int | None = None  # rows; None: chosen by the number of tokens
    # Pool
    corpus: Paths | None = None  # None: all passages of the training files
    exclude: Qrels | None = None  # further relevant passages, by id (see `build_pool`)
    same_language: bool = False  # negatives in the language of the positives (pos_lang, else lang)
    allow_small_pool: bool = False  # accept pools with fewer than `last` passages
    # Selection
    negatives: int = 15  # per query
    first: int = 10
    last: int = 210
    max_positive_ratio: float | None = None
    margin: float | None = None
    near_duplicates: float = 0.8  # Jaccard similarity to a positive that drops a passage; 0: off
    sampling: Literal["random", "top"] = "random"
    seed: int = 0
    # Records
    keep_negatives: bool = False  # the record's negatives stay, in front of the mined ones
    skip_bad: int = 0  # invalid records that are skipped before one is an error

    def __post_init__(self):
        object.__setattr__(self, "method", canonical_method(self.method))
        if self.negatives < 1:
            raise ValueError(f"negatives must be at least 1, got {self.negatives}")
        if not 0 <= self.first < self.last:
            raise ValueError(f"ranks must satisfy 0 <= first < last, got {self.first}-{self.last}")
        if self.max_positive_ratio is not None and not 0 < self.max_positive_ratio <= 1:
            raise ValueError(f"max_positive_ratio must be in (0, 1], got {self.max_positive_ratio}")
        if self.margin is not None and not (0 <= self.margin < math.inf):
            raise ValueError(f"margin must be 0 or more, got {self.margin}")
        if not 0 <= self.near_duplicates <= 1:
            raise ValueError(f"near_duplicates must be in [0, 1], got {self.near_duplicates}")
        if self.sampling not in SAMPLING:
            raise ValueError(
                f"sampling must be one of {', '.join(SAMPLING)}, got {self.sampling!r}"
            )
        limited = self.max_positive_ratio is not None or self.margin is not None
        if self.method == "bm25" and self.corpus is not None and limited:
            raise ValueError(
                "BM25 scores only passages of its pool, so limits by the scores of positives need "
                "the pool of the training files: omit --corpus, or --max-positive-ratio and "
                "--margin"
            )

    def score_limit(self, positive: float) -> float:
        """The exclusive upper bound of a negative's score, given the lowest positive score."""
        limits = [math.inf]
        if self.max_positive_ratio is not None:
            limits.append(self.max_positive_ratio * positive if positive > 0 else positive)
        if self.margin is not None:
            limits.append(positive - self.margin)
        return min(limits)

    def selection_record(self) -> dict[str, Any]:
        """The selection options as reports and the names of working directories hold them.

        The keys and values are those of the first release, so that its directories stay valid.
        """
        return {
            "negatives": self.negatives,
            "first": self.first,
            "last": self.last,
            "max_share": self.max_positive_ratio,
            "margin": self.margin,
            "near_duplicates": self.near_duplicates,
            "pick": "sample" if self.sampling == "random" else self.sampling,
            "seed": self.seed,
        }
