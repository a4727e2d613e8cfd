"""Tasks, methods and a model to results: encode once, search by each method, measure, keep."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from m3jax.config import HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.evaluate import embed, results
from m3jax.evaluate import protocol as protocols
from m3jax.evaluate.answer_recall import answer_recall
from m3jax.evaluate.metrics import as_run, per_query
from m3jax.evaluate.protocol import Settings
from m3jax.evaluate.results import Result
from m3jax.evaluate.tasks import QuerySet, Task
from m3jax.io.trec import write_run
from m3jax.search import methods
from m3jax.search.hits import Hits
from m3jax.search.index import Index
from m3jax.search.options import SearchOptions, heads_of
from m3jax.search.queries import EncodedQueries


def evaluate(
    embedder: M3Embedder | None,
    tasks: Iterable[Task],
    output: Path,
    settings: Settings | None = None,
    *,
    cache: Path | None = None,
    tell: Callable[[Result, bool], None] = lambda result, kept: None,
) -> list[Result]:
    """Measures every method on every query set; what `output` holds already is kept.

    Without an embedder only BM25 over words can run. `tell` is called with each result and
    whether it was there before. Raises ValueError for a method that needs a model.
    """
    settings = settings or Settings()
    needs_tokens = "bm25" in settings.methods and settings.bm25_terms == "tokens"
    if embedder is None and (heads_of(settings.methods) or needs_tokens):
        raise ValueError("only BM25 over words works without a model; name one with --model")
    around = protocols.circumstances(embedder)
    model = protocols.describe_model(embedder) if embedder else {}
    store = None
    modes = embed.modes_for(embedder, settings.methods, settings.store)
    if embedder is not None and modes:
        store = embed.Store(
            embedder=embedder,
            fingerprint=model["model_hash"],
            folder=output / "embeddings" if cache is None else cache,
            modes=modes,
            dtype=settings.dtype,
            batch_size=settings.batch_size,
            cls_every=settings.cls_every,
        )
    found = []
    last: dict[Any, Index] = {}  # the index of the last corpus, which united tasks share
    for task in tasks:
        for result, kept in _evaluate_task(
            embedder, store, task, output, settings, model, around, last
        ):
            tell(result, kept)
            found.append(result)
    return found


def _evaluate_task(
    embedder: M3Embedder | None,
    store: embed.Store | None,
    task: Task,
    output: Path,
    settings: Settings,
    model: dict[str, Any],
    around: dict[str, Any],
    last: dict[Any, Index],
) -> Iterator[tuple[Result, bool]]:
    tokens = protocols.lengths(embedder, task, settings)
    index = last.get((task.digest, tokens[1]))
    vocabulary = protocols.describe_vocabulary(embedder, settings)
    own = embedder.encoder.model.fusion if embedder else {}
    for queries in task.query_sets:
        missing = []
        for method in settings.methods:
            protocol = protocols.protocol_of(
                model, task, queries, method, settings, tokens, vocabulary, own
            )
            path = results.path_of(output, task.name, queries.name, method, protocol)
            result = results.read(path)
            if result is None or (settings.save_runs and not _run_of(path).is_file()):
                missing.append((method, path, protocol | around))
            else:
                yield result, True
        if not missing:
            continue
        heads = store is not None and any(method != "bm25" for method, _, _ in missing)
        if index is None or (heads and not _has_vectors(index)):
            last.clear()
            if store is not None and (heads or store.has(task, tokens[1])):
                index = store.corpus(task, tokens[1])
            else:  # BM25 alone reads texts
                index = embed.of_texts(task.documents(), embedder)
            last[task.digest, tokens[1]] = index
        chunks = list(_chunks(store if heads else None, queries, tokens[0]))
        for method, path, protocol in missing:
            yield _measure(index, task, queries, chunks, method, path, protocol, settings), False


def _has_vectors(index: Index) -> bool:
    return any(part is not None for part in (index.dense, index.sparse, index.colbert))


def _chunks(
    store: embed.Store | None, queries: QuerySet, length: int
) -> Iterator[tuple[list[str], EncodedQueries, methods.Cache]]:
    """(ids, queries, lists that methods share) of so many queries at a time."""
    size = embed.QUERY_SHARD
    starts = range(0, len(queries.ids), size)
    parts: Any = [None] * len(starts)
    if store is not None:
        parts = store.queries(queries.ids, queries.texts, length)
    for start, embeddings in zip(starts, parts, strict=True):
        texts = queries.texts[start : start + size]
        yield queries.ids[start : start + size], EncodedQueries(texts, embeddings), methods.Cache()


def _measure(
    index: Index,
    task: Task,
    queries: QuerySet,
    chunks: list[tuple[list[str], EncodedQueries, methods.Cache]],
    method: str,
    path: Path,
    protocol: dict[str, Any],
    settings: Settings,
) -> Result:
    """Searches, measures and writes the result (and the run, where it is asked for)."""
    names = protocol["measures"]
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    everything, seconds = Hits([], []), 0.0
    for ids, encoded, lists in chunks:
        start = time.perf_counter()
        out = _taken_out(queries, ids, settings)
        hits = _search(index, encoded, method, protocol, settings, lists, out)
        seconds += time.perf_counter() - start
        for name, some in _values(index, task, queries, ids, hits, names).items():
            values[name] |= some
        if settings.save_runs:
            everything.documents.extend(hits.documents)
            everything.scores.extend(hits.scores)
    language = dict(zip(queries.ids, queries.languages, strict=True))
    judged = [*queries.ids, *(query for query in queries.qrels if query not in language)]
    result = Result(
        task=task.name,
        family=task.family,
        query_set=queries.name,
        language=queries.language,
        method=method,
        primary=task.protocol.primary if task.protocol.primary in names else names[0],
        queries=judged,
        languages=[language.get(query, queries.language) for query in judged],
        values={name: [some.get(query, 0.0) for query in judged] for name, some in values.items()},
        protocol=protocol,
        seconds=round(seconds, 3),
    )
    if settings.save_runs:
        write_run(_run_of(path), queries.ids, index.ids, everything, f"m3jax-{method}")
    results.write(path, result)
    return result


def _run_of(path: Path) -> Path:
    """Where the run of a result lies."""
    return path.parent.parent / "runs" / f"{path.stem}.trec"


def _search(
    index: Index,
    encoded: EncodedQueries,
    method: str,
    protocol: dict[str, Any],
    settings: Settings,
    lists: methods.Cache,
    out: list[set[str]],
) -> Hits:
    top_k = settings.top_k + max(map(len, out), default=0)
    if method == "bm25":
        hits = index.bm25(settings.bm25_terms).search(encoded.texts, top_k)
    else:
        weights = protocol.get("weights")
        search_options = SearchOptions(
            method=method,
            weights=None if weights is None else HeadWeights(**weights),
            fusion=settings.fusion,
            compat=settings.compat,
            depths=settings.depths,
        )
        hits = methods.search(index, encoded, search_options, top_k=top_k, cache=lists)
    return _without(hits, out, index.ids).cut(settings.top_k) if any(out) else hits


def _taken_out(queries: QuerySet, ids: list[str], settings: Settings) -> list[set[str]]:
    """The documents that do not count of each query `ids`."""
    aside = queries.aside or {}
    own = [{query} if settings.remove_self else set() for query in ids]
    return [some | set(aside.get(query, ())) for query, some in zip(ids, own, strict=True)]


def _without(hits: Hits, out: list[set[str]], document_ids: Any) -> Hits:
    kept = [
        np.array([document_ids[int(d)] not in some for d in documents], bool)
        for some, documents in zip(out, hits.documents, strict=True)
    ]
    return Hits(
        [d[keep] for d, keep in zip(hits.documents, kept, strict=True)],
        [s[keep] for s, keep in zip(hits.scores, kept, strict=True)],
    )


def _values(
    index: Index, task: Task, queries: QuerySet, ids: list[str], hits: Hits, names: list[str]
) -> dict[str, dict[str, float]]:
    """Measure -> query -> value, of the queries `ids`."""
    numbers = [documents.tolist() for documents in hits.documents]
    if task.protocol.judged_by == "answers":
        assert queries.answers is not None
        documents: Any = index.documents
        return answer_recall(
            dict(zip(ids, numbers, strict=True)),
            {query: queries.answers[query] for query in ids},
            lambda number: documents[number].text,
            [int(name.removeprefix("Recall@")) for name in names],
        )
    document_ids: Any = index.ids
    run = as_run(
        (query, [document_ids[d] for d in documents])
        for query, documents in zip(ids, numbers, strict=True)
    )
    return per_query({query: queries.qrels[query] for query in ids}, run, names)
