"""What a search can be asked for, by name: methods, fusions, engines and depths.

The names of the command line, of `SearchOptions` and of stored results come from the tables here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from m3jax.config import HEADS, HeadWeights, current_name


class Method(NamedTuple):
    """A way to search."""

    label: str  # in tables and figures
    heads: tuple[str, ...]  # representations that it searches and scores with
    summed: tuple[str, ...]  # heads whose weighted sum is its score


METHODS: Mapping[str, Method] = {
    "bm25": Method("BM25", (), ()),
    "dense": Method("Dense", ("dense",), ("dense",)),
    "sparse": Method("Sparse", ("sparse",), ("sparse",)),
    "colbert": Method("Multi-vector", ("dense", "colbert"), ("colbert",)),
    "dense+sparse": Method("Dense+Sparse", ("dense", "sparse"), ("dense", "sparse")),
    "all": Method("All", HEADS, HEADS),
}
FUSED = ("dense+sparse", "all")  # methods that weigh several heads
FUSIONS = ("weighted", "rrf", "minmax", "zscore")
TOKENIZATIONS = ("tokens", "words")  # of BM25
# Retriever -> its engines besides "auto", which takes the fastest one for this machine.
ENGINES: Mapping[str, tuple[str, ...]] = {
    "bm25": ("numba", "scipy"),
    "dense": ("numpy", "jax", "faiss"),
    "sparse": ("numba", "scipy"),
    "colbert": ("numba", "numpy", "jax"),
}
ENGINE_NAMES = ("auto", *sorted({name for names in ENGINES.values() for name in names}))


def canonical_method(name: str) -> str:
    """The method of this name; a former name is accepted with a warning, as by `current_name`.

    Raises ValueError for any other name.
    """
    name = current_name(name)
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    return name


def method_label(method: str) -> str:
    """A method's name in tables and figures; any other name as it is."""
    return METHODS[method].label if method in METHODS else method


def heads_of(methods: Sequence[str]) -> tuple[str, ...]:
    """The representations that `methods` need, in the model's order."""
    needed = {head for method in methods for head in METHODS[canonical_method(method)].heads}
    return tuple(head for head in HEADS if head in needed)


def check_fusion(fusion: str, weights: object, compat: str | None) -> None:
    """Raises ValueError for an unknown fusion and for an option that it would ignore."""
    if fusion not in FUSIONS:
        raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
    if compat not in (None, "flagembedding"):
        raise ValueError(f"compat must be None or 'flagembedding', got {compat!r}")
    if fusion == "rrf" and weights is not None:
        raise ValueError("fusion rrf adds reciprocal ranks, without weights; leave weights out")
    if fusion != "weighted" and compat is not None:
        raise ValueError(f"compat {compat} is for the weighted fusion, not for {fusion}")


def check_engine(retriever: str, engine: str) -> None:
    """Raises ValueError where a retriever has no engine of this name."""
    if engine not in ("auto", *ENGINES[retriever]):
        names = ", ".join(("auto", *ENGINES[retriever]))
        raise ValueError(f"engine must be one of {names}, got {engine!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depths:
    """How many documents a ranking holds before rankings are merged or re-ranked."""

    dense: int = 1000
    sparse: int = 1000
    rerank_top_k: int = 200  # of the dense ranking, re-ranked by late interaction

    def __post_init__(self):
        if min(self.dense, self.sparse, self.rerank_top_k) < 1:
            raise ValueError(f"depths must be at least 1, got {self}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How an index is searched.

    method   one of `METHODS`
    weights  of the heads in the methods dense+sparse and all. None: with the weighted fusion the
             weights tuned for the model, else the paper's 1, 0.3, 1
    fusion   "weighted" (sum of the scores), "rrf" (reciprocal rank fusion, k = 60), "minmax" or
             "zscore" (weighted sums of scores normalised over a query's candidates)
    compat   "flagembedding": a document missing from one of two rankings scores 0 there
    depths   of the rankings that are merged
    engine   "auto", or an engine of `ENGINES`: retrievers that have it use it, the others choose
             their own. Rankings are the same with every engine.

    Raises ValueError for an unknown name and for an option without effect.
    """

    method: str = "all"
    weights: HeadWeights | None = None
    fusion: str = "weighted"
    compat: str | None = None
    depths: Depths = Depths()
    engine: str = "auto"

    def __post_init__(self):
        object.__setattr__(self, "method", canonical_method(self.method))
        check_fusion(self.fusion, self.weights, self.compat)
        names = [e for retriever in self.retrievers for e in ENGINES[retriever]]
        if self.engine not in ("auto", *names):
            known = ", ".join(dict.fromkeys(("auto", *names)))
            raise ValueError(f"engine of {self.method} must be one of {known}, got {self.engine!r}")

    @property
    def retrievers(self) -> tuple[str, ...]:
        """The keys of `ENGINES` that the method searches with."""
        return METHODS[self.method].heads or ("bm25",)

    def engine_of(self, retriever: str) -> str:
        """`engine` where `retriever` has it, else "auto"."""
        return self.engine if self.engine in ENGINES[retriever] else "auto"
