"""Options of an evaluation."""

import dataclasses

from m3jax.config import HeadWeights
from m3jax.search.options import METHODS, TOKENIZATIONS, Depths, canonical_method, check_fusion

STORES = ("all", "needed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is measured and how. An option that is None takes the benchmark's value.

    methods         names of `search.options.METHODS`
    top_k           documents measured for each query
    depths          of the rankings that are merged or re-ranked
    weights         of the heads in fused methods, or the name of a preset of `search.fuse`. None:
                    with the weighted fusion the weights tuned for the model, else the benchmark's
    fusion, compat  as in `search.options.SearchOptions`
    bm25_terms      "tokens" of the model, as in [M3], or "words"
    query_length    tokens of a query at most
    passage_length  tokens of a document at most
    measures        such as nDCG@10, Recall@100, MRR@10, P@5
    remove_self     removes the document with the query's id from the query's ranking
    store           representations that are stored: "all" that the model has, so that a method
                    added later encodes nothing again, or those that the methods "needed"
    storage_dtype   of stored document vectors: float32, float16 or int8
    batch_size      texts in a batch; None: by tokens
    cls_every       MCLS: a [CLS] for every so many tokens of a document [M3 app. B.2]
    save_runs       also writes each ranking as a TREC run

    Raises ValueError for an unknown name and for an option that another one would ignore.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    top_k: int = 1000
    depths: Depths = Depths()
    weights: HeadWeights | str | None = None
    fusion: str = "weighted"
    compat: str | None = None
    bm25_terms: str = "tokens"
    query_length: int | None = None
    passage_length: int | None = None
    measures: tuple[str, ...] | None = None
    remove_self: bool = False
    store: str = "all"
    storage_dtype: str = "float32"
    batch_size: int | None = None
    cls_every: int | None = None
    save_runs: bool = False

    def __post_init__(self):
        object.__setattr__(self, "methods", tuple(map(canonical_method, self.methods)))
        for name, value, choices in (
            ("bm25_terms", self.bm25_terms, TOKENIZATIONS),
            ("store", self.store, STORES),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        check_fusion(self.fusion, self.weights, self.compat)
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
