"""M3Embedder: a loaded model; `encode` has the signature and outputs of FlagEmbedding."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from m3jax import pretrained, sharding
from m3jax.config import HEADS, PAPER_FUSION, ComputeConfig, HeadWeights
from m3jax.embed.embeddings import Embeddings, Ragged, concatenate, lexical_dicts, to_int8
from m3jax.embed.encode import CHUNK, Batching, TextEncoder
from m3jax.embed.pairs import late_interaction, pair_scores

Output = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedderOptions:
    """Instructions and lengths of an `M3Embedder`.

    query_instruction, passage_instruction   prepended to each query or passage
    query_max_length, passage_max_length     tokens, at most those of the model
    batch_size                               rows of a batch; None: as many as a token limit allows
    """

    query_instruction: str | None = None
    passage_instruction: str | None = None
    query_max_length: int = 512
    passage_max_length: int = 8192
    batch_size: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """Options of `M3Embedder.encode` beyond FlagEmbedding's.

    sparse_format   "dict": a list of {token id as a string: weight}; "csr": one SciPy CSR array
    colbert_format  "list": one array per text; "ragged": one `Ragged`
    output_dtype    of the vectors; "int8" adds `dense_scales` and `colbert_scales`
    truncate_dim    keeps the first dimensions of `dense_vecs`, normalised again
    cls_every       MCLS [M3 app. B.2]: a [CLS] before every `cls_every` tokens (the paper: 256)
    packing         several short texts in a row; faster on accelerators only
    show_progress   a progress bar; None: on a terminal, if there are many texts
    """

    sparse_format: Literal["dict", "csr"] = "dict"
    colbert_format: Literal["list", "ragged"] = "list"
    output_dtype: Literal["float32", "float16", "int8"] = "float32"
    truncate_dim: int | None = None
    cls_every: int | None = None
    packing: bool = False
    show_progress: bool | None = None

    def __post_init__(self):
        choices = (
            ("sparse_format", ("dict", "csr")),
            ("colbert_format", ("list", "ragged")),
            ("output_dtype", ("float32", "float16", "int8")),
        )
        for name, allowed in choices:
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


class M3Embedder:
    """One encoder that gives three representations; made by `M3Embedder.from_pretrained`.

    Outputs have the keys, types and shapes of FlagEmbedding's BGEM3FlagModel. Beyond it, an
    M3Embedder takes generators in constant memory, returns CSR and ragged arrays, supports MCLS and
    packing, and can be shared between threads.
    """

    def __init__(
        self,
        model: pretrained.Pretrained,
        *,
        mesh: jax.sharding.Mesh | None = None,
        compute: ComputeConfig | None = None,
        **options: Any,
    ):
        """`options` are the fields of `EmbedderOptions`."""
        given = EmbedderOptions(**options)
        self.mesh = sharding.make_mesh() if mesh is None else mesh
        self.compute = compute or ComputeConfig(dtype=sharding.default_dtype(self.mesh))
        self.encoder = TextEncoder(model, self.mesh, self.compute)
        self.query_instruction = given.query_instruction or ""
        self.passage_instruction = given.passage_instruction or ""
        longest = model.config.encoder.max_length
        self.query_max_length = min(given.query_max_length, longest)
        self.passage_max_length = min(given.passage_max_length, longest)
        self.batch_size = given.batch_size

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | Path,
        *,
        mesh: jax.sharding.Mesh | None = None,
        pooling: Literal["cls", "mean"] | None = None,
        cache_dir: str | None = None,
        **options: Any,
    ) -> "M3Embedder":
        """Loads a bundled model, a directory (Hugging Face or m3jax), or a model of the hub.

        `options` are `compute` and the fields of `EmbedderOptions`. A directory without heads is
        loaded with new ones, and a warning is logged.

            >>> model = M3Embedder.from_pretrained("BAAI/bge-m3")  # doctest: +SKIP
        """
        mesh = sharding.make_mesh() if mesh is None else mesh
        model = pretrained.load(name_or_dir, mesh=mesh, pooling=pooling, cache_dir=cache_dir)
        return cls(model, mesh=mesh, **options)

    @property
    def config(self):
        """The M3Config of the model."""
        return self.encoder.model.config

    @property
    def tokenizer(self):
        """The tokenizer of the model."""
        return self.encoder.model.tokenizer

    def fusion(self, method: str) -> HeadWeights:
        """The weights of "dense+sparse" or "all": those tuned for the model, else the paper's."""
        return self.encoder.model.fusion.get(method, PAPER_FUSION)

    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        **options: Any,
    ) -> Output:
        """Encodes one text or many; the outputs are in the order of the input.

        `batch_size` is the number of rows of a batch; None fills each batch up to a fixed number of
        tokens. Texts are truncated to `max_length` tokens (None: `passage_max_length`). `options`
        are the fields of `EncodeOptions`.

        Returns a dict; the value of a representation that was not requested is None:
            dense_vecs       array [n, d] ([d] for one string)
            lexical_weights  list of {token id as a string: weight > 0}; a SciPy CSR array [n, v]
                             with sparse_format="csr"
            colbert_vecs     list of arrays [tokens - 1, c]; one `Ragged` with
                             colbert_format="ragged"
        and with output_dtype="int8" also `dense_scales` [n] and `colbert_scales`, [tokens - 1, 1]
        each.

        Raises TypeError for a text that is not a string, ValueError for sizes out of range.
        """
        chosen = EncodeOptions(**options)
        single = isinstance(sentences, str)
        texts = [sentences] if single else sentences
        heads = _heads(return_dense, return_sparse, return_colbert_vecs)
        batch_size = self.batch_size if batch_size is None else batch_size
        batching = Batching(batch_size, chosen.cls_every, chosen.packing)
        length = self.passage_max_length if max_length is None else max_length
        progress = chosen.show_progress
        chunks = list(self.encoder.encode(texts, heads, length, batching, progress=progress))
        out = _output(concatenate(chunks or [self.encoder.encode_chunk([], heads)]), chosen)
        return {k: v if v is None else v[0] for k, v in out.items()} if single else out

    def encode_queries(self, queries: str | Iterable[str], *args: Any, **kwargs: Any) -> Output:
        """`encode` with the query instruction; `max_length` defaults to `query_max_length`."""
        kwargs = _default_length(args, kwargs, self.query_max_length)
        return self.encode(_prefixed(self.query_instruction, queries), *args, **kwargs)

    def encode_corpus(self, corpus: str | Iterable[str], *args: Any, **kwargs: Any) -> Output:
        """`encode` with the passage instruction; `max_length` defaults to `passage_max_length`."""
        kwargs = _default_length(args, kwargs, self.passage_max_length)
        return self.encode(_prefixed(self.passage_instruction, corpus), *args, **kwargs)

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        heads: tuple[str, ...] = HEADS,
        max_length: int | None = None,
        chunk: int = CHUNK,
        progress: bool | None = None,
        **batching: Any,
    ) -> Iterator[Embeddings]:
        """Yields the `Embeddings` of `chunk` texts at a time, in constant memory.

        `batching` are the fields of `Batching`: batch_size, cls_every, packing.
        """
        length = self.passage_max_length if max_length is None else max_length
        return self.encoder.encode(
            texts, heads, length, Batching(**batching), progress=progress, chunk=chunk
        )

    def compute_score(
        self,
        sentence_pairs: Sequence[Sequence[str]],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """The scores of (query, passage) pairs.

        Returns lists (numbers for a single pair) under the keys "colbert", "sparse", "dense",
        "sparse+dense" and "colbert+sparse+dense". The last two are weighted means; the weights are
        (dense, sparse, colbert), by default 1. Each distinct text is encoded once, and only the
        given pairs are scored.
        """
        single = len(sentence_pairs) == 2 and isinstance(sentence_pairs[0], str)
        pairs: Any = [sentence_pairs] if single else sentence_pairs
        weights = (
            [1.0, 1.0, 1.0]
            if weights_for_different_modes is None
            else list(weights_for_different_modes)
        )
        if len(weights) != 3 or weights[0] + weights[1] == 0 or sum(weights) == 0:
            raise ValueError(
                "weights_for_different_modes needs three numbers (dense, sparse, colbert) "
                f"whose sums are not 0, got {weights_for_different_modes}"
            )
        queries = {text: i for i, text in enumerate(dict.fromkeys(pair[0] for pair in pairs))}
        passages = {text: i for i, text in enumerate(dict.fromkeys(pair[1] for pair in pairs))}
        query_length = max_query_length or self.query_max_length
        passage_length = max_passage_length or self.passage_max_length
        scores = pair_scores(
            self._all_heads(
                _prefixed(self.query_instruction, list(queries)), query_length, batch_size
            ),
            self._all_heads(
                _prefixed(self.passage_instruction, list(passages)), passage_length, batch_size
            ),
            [(queries[q], passages[p]) for q, p in pairs],
        )
        out = {name: values.tolist() for name, values in _fuse(scores, weights).items()}
        return {name: values[0] for name, values in out.items()} if single else out

    def convert_id_to_token(
        self, lexical_weights: dict[str, float] | Sequence[dict[str, float]]
    ) -> dict[str, float] | list[dict[str, float]]:
        """Replaces token ids by the tokens' spelling; for a list of one dict, returns the dict."""
        items = [lexical_weights] if isinstance(lexical_weights, dict) else lexical_weights
        named = [
            {self.tokenizer.decode([int(token)]): weight for token, weight in item.items()}
            for item in items
        ]
        return named[0] if len(named) == 1 else named

    def compute_lexical_matching_score(self, lexical_weights_1: Any, lexical_weights_2: Any) -> Any:
        """sum_t w_1(t) w_2(t) of two dicts; for two lists of dicts, the matrix of all pairs."""
        if isinstance(lexical_weights_1, dict) and isinstance(lexical_weights_2, dict):
            return _lexical_score(lexical_weights_1, lexical_weights_2)
        if isinstance(lexical_weights_1, dict) or isinstance(lexical_weights_2, dict):
            raise ValueError("pass two dicts of weights or two lists of dicts, not one of each")
        return np.array(
            [[_lexical_score(a, b) for b in lexical_weights_2] for a in lexical_weights_1]
        )

    def colbert_score(self, q_reps: np.ndarray, p_reps: np.ndarray) -> float:
        """s_mul of two matrices: the mean over query vectors of the best match."""
        return late_interaction(np.asarray(q_reps), np.asarray(p_reps))

    def _all_heads(self, texts: Any, max_length: int, batch_size: int | None) -> Embeddings:
        heads = _heads(True, True, True)
        batch_size = self.batch_size if batch_size is None else batch_size
        chunks = list(self.encoder.encode(texts, heads, max_length, Batching(batch_size)))
        return concatenate(chunks or [self.encoder.encode_chunk([], heads)])


def _heads(dense: bool, sparse: bool, colbert: bool) -> tuple[str, ...]:
    requested = {"dense": dense, "sparse": sparse, "colbert": colbert}
    return tuple(head for head, returned in requested.items() if returned)


def _prefixed(instruction: str, texts: str | Iterable[str]) -> Any:
    """Prepends an instruction to each text; lists stay lists, generators stay lazy."""
    if not instruction:
        return texts
    if isinstance(texts, str):
        return instruction + texts
    lazy = (instruction + text for text in texts)
    return list(lazy) if isinstance(texts, Sequence) else lazy


def _default_length(args: tuple, kwargs: dict[str, Any], length: int) -> dict[str, Any]:
    given = len(args) > 1 or kwargs.get("max_length") is not None
    return kwargs if given else kwargs | {"max_length": length}


def _lexical_score(first: dict[str, float], second: dict[str, float]) -> float:
    return sum((w * second[token] for token, w in first.items() if token in second), 0.0)


def _fuse(scores: dict[str, np.ndarray], weights: list[float]) -> dict[str, np.ndarray]:
    dense, sparse, colbert = (scores[name] for name in ("dense", "sparse", "colbert"))
    w_dense, w_sparse, w_colbert = weights
    two = w_dense * dense + w_sparse * sparse
    return {
        "colbert": colbert,
        "sparse": sparse,
        "dense": dense,
        "sparse+dense": two / (w_dense + w_sparse),
        "colbert+sparse+dense": (two + w_colbert * colbert) / sum(weights),
    }


def _output(embeddings: Embeddings, options: EncodeOptions) -> Output:
    """The dictionary of `encode`."""
    out: Output = {"dense_vecs": None, "lexical_weights": None, "colbert_vecs": None}
    if embeddings.dense is not None:
        dense = _truncated(embeddings.dense, options.truncate_dim)
        out |= _as_dtype("dense", dense, options.output_dtype)
    if embeddings.sparse is not None:
        sparse = embeddings.sparse
        out["lexical_weights"] = sparse if options.sparse_format == "csr" else lexical_dicts(sparse)
    if embeddings.colbert is not None:
        offsets = embeddings.colbert.offsets
        values = _as_dtype("colbert", embeddings.colbert.values, options.output_dtype)
        ragged = {
            name: Ragged(array if array.ndim == 2 else array[:, None], offsets)
            for name, array in values.items()
        }
        out |= (
            ragged
            if options.colbert_format == "ragged"
            else {n: list(r) for n, r in ragged.items()}
        )
    return out


def _truncated(dense: np.ndarray, dim: int | None) -> np.ndarray:
    if dim is None:
        return dense
    if not 1 <= dim <= dense.shape[1]:
        raise ValueError(f"truncate_dim must be in 1..{dense.shape[1]}, got {dim}")
    kept = dense[:, :dim]
    return kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12)


def _as_dtype(head: str, vectors: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    if dtype == "int8":
        codes, scales = to_int8(vectors)
        return {f"{head}_vecs": codes, f"{head}_scales": scales}
    return {f"{head}_vecs": vectors.astype(dtype, copy=False)}
