"""Exact search compared with other implementations: times and their ratios, in one run.

    python experiments/benchmarks/search.py

Sparse: top 100 of 1 million documents of about 100 tokens, Zipf over 250,002, queries of 12;
compared with SciPy's CSR product (transposed matrix prepared before), and with the reference's loop
over Python dictionaries, timed on 2,000 documents and scaled. Multi-vector: 200 candidates of about
128 vectors of width 1024, queries of 12 and 32; compared with the reference's colbert_score, one
pair at a time in PyTorch, on float32, and with reading the candidates once. Dense: 262,144
documents of width 1024; compared with the matrix product in blocks into reused memory, and with
FAISS.

The third comparison of late interaction uses the vectors of the paragraphs and questions of the
sample corpus, width 384.

Bounds: in the stored run reading the float32 candidates once takes 4.1 ms, and the pairs in PyTorch
20 and 28 ms (12 and 32 random query vectors); with the sample corpus 1.6 and 14 ms. Therefore no
search over float32 vectors can be 10 times as fast. m3jax is 2.9, 2.1 and 5.4 times as fast, with
float16 3.8, 3.1 and 6.5. int8 codes are multiplied with 16-bit queries in integers: 8.5 and 5.1
times, and 11.5 with the sample corpus. Exact ranking (close scores are computed again in float64)
is slower if many scores are close: int8 is then 2.0 and 1.2 times as fast on random vectors, 6.9
times with the sample corpus.

Medians of interleaved repeats, milliseconds per query. Writes results/search.{json,png}.
"""

import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import scipy.sparse
import torch

from m3jax import M3Embedder
from m3jax.data.sample import sample_passages, sample_questions
from m3jax.embed.embeddings import to_int8
from m3jax.embed.vectors import BLOCK, StoredMatrices, StoredVectors, as_stored_vectors
from m3jax.search import sparse
from m3jax.search.colbert import ColbertRetriever
from m3jax.search.dense import DenseRetriever
from m3jax.search.hits import ranked, rescore_close
from m3jax.search.sparse import SparseRetriever
from m3jax.search.threads import cores

RESULTS = Path(__file__).parents[1] / "results"
DOCUMENTS, VOCAB, SHARD, TERMS, TOP = 1_000_000, 250_002, 50_000, 12, 100
rng = np.random.default_rng(0)


def milliseconds(calls: dict[str, Callable[[], Any]], repeats: int, queries: int = 1) -> dict:
    """Medians of several calls, interleaved so that other load affects all of them."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # compiles, touches memory
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(0.25)  # OpenMP's threads of the call before go on spinning for a while
            call()  # a core that has slept runs slowly at first
            start = time.perf_counter()
            call()
            taken[name].append(1000 * (time.perf_counter() - start) / queries)
    return {name: statistics.median(times) for name, times in taken.items()}


def zipf_rows(texts: int, tokens: int) -> scipy.sparse.csr_array:
    """Texts of `tokens` draws from Zipf's law, repeats merged; rarer tokens have higher weights."""
    share = np.cumsum(1 / np.arange(1, VOCAB + 1))
    ids = np.searchsorted(share, rng.random((texts, tokens)) * share[-1]).astype(np.int32)
    ids.sort(axis=1)
    new = np.ones(ids.shape, bool)
    new[:, 1:] = ids[:, 1:] != ids[:, :-1]
    weights = (0.02 + 0.02 * np.log2(2 + ids[new])) * rng.uniform(0.5, 1.5, new.sum())
    ends = np.concatenate([[0], np.cumsum(new.sum(axis=1))])
    values = (weights.astype(np.float32), ids[new], ends)
    return scipy.sparse.csr_array(values, shape=(texts, VOCAB))


def dictionary_score(query: dict[str, float], document: dict[str, float]) -> float:
    """The score of a pair as in the reference: a loop over the query's tokens."""
    score = 0.0
    for token, weight in query.items():
        if token in document:
            score += weight * document[token]
    return score


def measure_sparse() -> dict[str, Any]:
    """One query at a time; `m3jax batch`: all queries at once. Both use all cores."""
    shards = [zipf_rows(SHARD, 125) for _ in range(DOCUMENTS // SHARD)]
    postings = sum(shard.nnz for shard in shards)
    index = sparse.build(lambda: shards)
    some = [
        {str(t): float(w) for t, w in zip(shards[0].indices[a:b], shards[0].data[a:b], strict=True)}
        for a, b in zip(shards[0].indptr[:2000], shards[0].indptr[1:2001], strict=True)
    ]
    shards.clear()
    transposed = scipy.sparse.csr_array(
        (index.weights, index.documents, index.offsets), shape=(VOCAB, DOCUMENTS)
    )
    queries = zipf_rows(16, TERMS)
    rows = [queries[[i]] for i in range(16)]
    asked = [{str(t): float(w) for t, w in zip(r.indices, r.data, strict=True)} for r in rows]

    def product() -> None:
        for query in rows:
            scores = query @ transposed
            best = np.argpartition(-scores.data, TOP)[:TOP]
            scores.indices[best[np.argsort(-scores.data[best])]]

    numba, without_numba = (SparseRetriever(index, engine) for engine in ("numba", "scipy"))
    calls = {
        "m3jax": lambda: [numba.search(query, TOP) for query in rows],
        "m3jax without Numba": lambda: [without_numba.search(query, TOP) for query in rows],
        "m3jax batch": lambda: numba.search(queries, TOP),
        "SciPy CSR product": product,
    }
    times = milliseconds(calls, 5, len(rows))
    loop = milliseconds(
        {"loop": lambda: [dictionary_score(q, document) for q in asked for document in some]},
        3,
        len(asked),
    )["loop"]
    times["Python dictionaries (scaled)"] = loop * DOCUMENTS / len(some)
    return {"documents": DOCUMENTS, "tokens a document": postings / DOCUMENTS, "ms": times}


def measure_colbert(vectors: int) -> dict[str, Any]:
    """200 candidates of one query, random vectors."""
    lengths = rng.integers(64, 193, 1000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.standard_normal((int(offsets[-1]), 1024), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    query = values[rng.integers(0, len(values), vectors)]
    return {"ms": time_reranking([query], values, offsets)}


def measure_real_colbert() -> dict[str, Any]:
    """200 of the sample corpus's paragraphs, its questions, the vectors of m3-mini."""
    model = M3Embedder.from_pretrained("m3-mini")
    texts = [[p.text for p in sample_passages()], [q.text for q in sample_questions()]]
    paragraphs, questions = (
        next(model.encode_stream(side, max_length=512, chunk=10**6)).colbert for side in texts
    )
    assert paragraphs is not None and questions is not None
    queries = [np.asarray(questions[i]) for i in range(len(texts[1]))]
    times = time_reranking(queries, np.asarray(paragraphs.values), paragraphs.offsets)
    vectors = statistics.mean(map(len, queries))
    return {"vectors": vectors, "width": paragraphs.values.shape[1], "ms": times}


def time_reranking(
    queries: list[np.ndarray], values: np.ndarray, offsets: np.ndarray
) -> dict[str, float]:
    """Re-ranking by every store, in float32 and exactly, and by the reference."""
    codes, scales = to_int8(values)
    stores = {
        "float32": as_stored_vectors(values),
        "float16": as_stored_vectors(values.astype(np.float16)),
        "int8": StoredVectors((codes,), (scales,)),
    }
    # Drawn anew each time: not in the cache.
    drawn = itertools.cycle([rng.permutation(len(offsets) - 1)[:200] for _ in range(7)])

    def reference() -> None:
        for query in queries:
            scores = []
            for i in next(drawn):
                q = torch.from_numpy(query)
                p = torch.from_numpy(values[offsets[i] : offsets[i + 1]])
                best, _ = torch.einsum("in,jn->ij", q, p).max(-1)
                scores.append(float(torch.sum(best) / q.size(0)))

    def ranking(store: StoredVectors, exact: bool) -> Callable[[], Any]:
        retriever = ColbertRetriever(StoredMatrices(store, (offsets,)))

        def rank(query: np.ndarray) -> None:  # as `methods.search` ranks the dense top
            documents = next(drawn)
            scores = retriever.scores(query, documents)
            if not exact:
                ranked(documents, scores, 200)
                return
            rescore_close(
                documents,
                scores,
                retriever.error_bound(query),
                lambda positions: retriever.scores(query, documents[positions], exact=True),
                200,
            )

        return lambda: [rank(query) for query in queries]

    def read() -> None:  # a lower bound for every search over float32 vectors
        for _ in queries:
            for i in next(drawn):
                values[offsets[i] : offsets[i + 1]].max()

    calls = {f"m3jax {name}": ranking(store, False) for name, store in stores.items()}
    for name in ("float32", "int8"):
        calls[f"m3jax {name}, settled in float64"] = ranking(stores[name], True)
    calls |= {"PyTorch pairs": reference, "reading float32": read}
    return milliseconds(calls, 15, len(queries))


def measure_dense(documents: StoredVectors, queries: np.ndarray, top_k: int) -> dict[str, Any]:
    """Exact search, the matrix product alone, FAISS."""
    (values,) = documents.parts
    out = np.empty((len(queries), BLOCK), np.float32)

    def product() -> None:
        for start in range(0, len(values), BLOCK):
            np.matmul(queries, values[start : start + BLOCK].T, out=out)

    calls = {
        "m3jax": lambda: DenseRetriever(documents).search(queries, top_k),
        "bare product": product,
        "FAISS": lambda: faiss.knn(queries, values, top_k, metric=faiss.METRIC_INNER_PRODUCT),
    }
    times = milliseconds(calls, 7, len(queries))
    return {"ms": times, "over bare product": times["m3jax"] / times["bare product"]}


def plot(ways: dict[str, Any]) -> None:
    """Plots a bar for each implementation, logarithmic if they are far apart."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(4, 2, figsize=(13, 12), layout="constrained")
    for axis, (name, entry) in zip(axes.flat, ways.items(), strict=False):
        names = list(entry["ms"])[::-1]
        times = [entry["ms"][n] for n in names]
        axis.barh(names, times)
        scale = "log" if max(times) > 100 * min(times) else "linear"
        axis.set(xscale=scale, title=name, xlabel="ms per query")
    for axis in axes.flat[len(ways) :]:
        axis.set_axis_off()
    figure.savefig(RESULTS / "search.png", dpi=90)


def main() -> None:
    """Measures every search; prints and writes the table."""
    result = {"sparse, top 100 of 1M": measure_sparse()}
    for vectors in (12, 32):
        result[f"200 candidates, {vectors} vectors"] = measure_colbert(vectors)
    result["200 candidates, real"] = measure_real_colbert()
    values = rng.standard_normal((262_144, 1024), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    documents = as_stored_vectors(values)
    for count, top_k in ((64, 100), (64, 1000), (1, 100)):
        entry = measure_dense(documents, values[:count] * np.float32(0.9), top_k)
        result[f"dense, {count} queries, top {top_k}"] = entry
    for name, entry in result.items():
        ours = entry["ms"].get("m3jax", entry["ms"].get("m3jax float32"))
        for way, ms in entry["ms"].items():
            print(f"{name:30} {way:30} {ms:12.3f} ms  {ms / ours:10.2f}")
    plot(result)
    machine = f"{platform.processor() or platform.machine()}, {cores()} cores"
    text = json.dumps({"machine": machine, "ways": result}, indent=1)
    (RESULTS / "search.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
