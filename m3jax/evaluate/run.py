"""Evaluation of a model: encode each task once, search by every method, measure, store."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3jax.config import HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.evaluate import embedding_store, results
from m3jax.evaluate.answer_recall import answer_recall
from m3jax.evaluate.embedding_store import EmbeddingStore, modes_for
from m3jax.evaluate.metrics import as_run, per_query
from m3jax.evaluate.options import EvaluationOptions
from m3jax.evaluate.protocol import ModelDescription, describe, environment, lengths, protocol_of
from m3jax.evaluate.results import EvaluationResult
from m3jax.evaluate.tasks import QuerySet, Task
from m3jax.io.trec import write_run
from m3jax.search import methods
from m3jax.search.hits import Hits
from m3jax.search.index import Index
from m3jax.search.options import SearchOptions, heads_of
from m3jax.search.queries import EncodedQueries


def evaluate_model(
    embedder: M3Embedder | None,
    tasks: Iterable[Task],
    output: Path | str,
    options: EvaluationOptions | None = None,
    *,
    cache: Path | str | None = None,
    log: Callable[[str], None] | None = None,
    progress: Callable[[EvaluationResult, bool], None] | None = None,
) -> list[EvaluationResult]:
    """Measures every method of `options` on every query set of `tasks`.

    Results are stored under OUTPUT/results, rankings (with `save_runs`) under OUTPUT/runs,
    embeddings in `cache`, by default OUTPUT/embeddings. A stored result with the same protocol is
    returned without computing it again. `evaluate.report.write_report` makes tables of results.

    Args:
      embedder: the model; None measures BM25 over words only.
      tasks: from `load_tasks` or `read_tasks`, or united by `unite`.
      output: a directory, created if missing.
      options: default: all methods, with the settings of each benchmark.
      cache: a directory of embeddings, which several evaluations may share.
      log: called with one line of text for each result.
      progress: called with each result, and whether it was stored before.

    Returns:
      One result for each task, query set and method, in this order.

    Raises:
      ValueError: a method needs a model and there is none, or a stored result is damaged.
    """
    options = options or EvaluationOptions()
    needs_tokens = "bm25" in options.methods and options.bm25_terms == "tokens"
    if embedder is None and (heads_of(options.methods) or needs_tokens):
        raise ValueError("only BM25 over words works without a model: give one (--model)")
    evaluation = _Evaluation(embedder, Path(output), options, cache)
    evaluated = []
    for task in tasks:
        for result, stored in evaluation.results(task):
            evaluated.append(result)
            if log:
                log(describe_result(result, stored))
            if progress:
                progress(result, stored)
    return evaluated


def describe_result(result: EvaluationResult, stored: bool) -> str:
    """A line of text: task, method, primary measure in percent, queries and seconds."""
    value = 100 * result.measures[result.primary]
    cost = "kept" if stored else f"{len(result.queries)} queries in {result.seconds:.2f} s"
    return f"{result.name:24} {result.method:13} {result.primary} {value:5.1f}   {cost}"


@dataclasses.dataclass(frozen=True)
class _Measurement:
    """A method on a query set, not computed yet."""

    task: Task
    queries: QuerySet
    method: str
    protocol: dict[str, Any]
    path: Path  # of the result

    @property
    def run_path(self) -> Path:
        return self.path.parent.parent / "runs" / f"{self.path.stem}.trec"


class _Chunk(NamedTuple):
    """Queries that are searched together."""

    ids: list[str]
    queries: EncodedQueries
    cache: methods.Cache  # of rankings that several methods use
    excluded: list[set[str]]  # documents removed from each query's ranking


class _Evaluation:
    """A model, its options and its stored embeddings; the index of the last corpus stays open."""

    def __init__(
        self,
        embedder: M3Embedder | None,
        output: Path,
        options: EvaluationOptions,
        cache: Path | str | None,
    ):
        self.embedder = embedder
        self.output = output
        self.options = options
        self.model: ModelDescription = describe(embedder, options)
        self.environment = environment(embedder)
        self.index: Index | None = None
        self.index_key: tuple[str, int] | None = None  # corpus and length of a document
        self.store: EmbeddingStore | None = None
        modes = modes_for(embedder, options.methods, options.store)
        if embedder is not None and modes:
            self.store = EmbeddingStore(
                embedder=embedder,
                fingerprint=self.model.fields["model_hash"],
                folder=output / "embeddings" if cache is None else Path(cache),
                modes=modes,
                dtype=options.storage_dtype,
                batch_size=options.batch_size,
                cls_every=options.cls_every,
            )

    def results(self, task: Task) -> Iterator[tuple[EvaluationResult, bool]]:
        """Every result of a task, and whether it was stored before."""
        query_length, passage_length = lengths(self.model, task, self.options)
        for queries in task.query_sets:
            missing = []
            for method in self.options.methods:
                measurement = self._measurement(task, queries, method)
                result = results.read(measurement.path)
                no_run = self.options.save_runs and not measurement.run_path.is_file()
                if result is None or no_run:
                    missing.append(measurement)
                else:
                    yield result, True
            if not missing:
                continue
            needs_vectors = self.store is not None and any(m.method != "bm25" for m in missing)
            index = self._index_of(task, passage_length, needs_vectors)
            chunks = list(self._chunks(queries, query_length, needs_vectors))
            for measurement in missing:
                yield self._measure(index, measurement, chunks), False

    def _measurement(self, task: Task, queries: QuerySet, method: str) -> _Measurement:
        protocol = protocol_of(method, task, queries, self.model, self.options)
        path = results.path_of(self.output, task.name, queries.name, method, protocol)
        return _Measurement(task, queries, method, protocol | self.environment, path)

    def _index_of(self, task: Task, length: int, needs_vectors: bool) -> Index:
        """The index of a task's corpus; united tasks share one."""
        key = (task.digest, length)
        index = self.index if key == self.index_key else None
        if index is None or (needs_vectors and not _has_vectors(index)):
            self.index = None  # frees the last one first
            if self.store is not None and (needs_vectors or self.store.has(task, length)):
                index = self.store.corpus(task, length)
            else:
                index = embedding_store.text_index(task.documents(), self.embedder)
            self.index, self.index_key = index, key
        return index

    def _chunks(self, queries: QuerySet, length: int, needs_vectors: bool) -> Iterator[_Chunk]:
        size = embedding_store.QUERY_SHARD
        starts = range(0, len(queries.ids), size)
        encoded: Any = [None] * len(starts)
        if self.store is not None and needs_vectors:
            encoded = self.store.queries(queries.ids, queries.texts, length)
        for start, embeddings in zip(starts, encoded, strict=True):
            ids = queries.ids[start : start + size]
            texts = queries.texts[start : start + size]
            excluded = [set((queries.excluded or {}).get(query, ())) for query in ids]
            if self.options.remove_self:
                excluded = [out | {query} for query, out in zip(ids, excluded, strict=True)]
            yield _Chunk(ids, EncodedQueries(texts, embeddings), methods.Cache(), excluded)

    def _measure(
        self, index: Index, measurement: _Measurement, chunks: list[_Chunk]
    ) -> EvaluationResult:
        """Searches, measures and writes the result, and with `save_runs` the ranking."""
        values: dict[str, dict[str, float]] = {n: {} for n in measurement.protocol["measures"]}
        ranking, seconds = Hits([], []), 0.0
        for chunk in chunks:
            start = time.perf_counter()
            hits = self._search(index, measurement, chunk)
            seconds += time.perf_counter() - start
            for name, by_query in _values(index, measurement, chunk.ids, hits).items():
                values[name] |= by_query
            if self.options.save_runs:
                ranking.documents.extend(hits.documents)
                ranking.scores.extend(hits.scores)
        result = _result(measurement, values, seconds)
        if self.options.save_runs:
            name = f"m3jax-{measurement.method}"
            write_run(measurement.run_path, measurement.queries.ids, index.ids, ranking, name)
        results.write(measurement.path, result)
        return result

    def _search(self, index: Index, measurement: _Measurement, chunk: _Chunk) -> Hits:
        options = self.options
        top_k = options.top_k + max(map(len, chunk.excluded), default=0)
        if measurement.method == "bm25":
            hits = index.bm25(options.bm25_terms).search(chunk.queries.texts, top_k)
        else:
            weights = measurement.protocol.get("weights")
            search_options = SearchOptions(
                method=measurement.method,
                weights=None if weights is None else HeadWeights(**weights),
                fusion=options.fusion,
                compat=options.compat,
                depths=options.depths,
            )
            hits = methods.search(
                index, chunk.queries, search_options, top_k=top_k, cache=chunk.cache
            )
        if any(chunk.excluded):
            return _without(hits, chunk.excluded, index.ids).cut(options.top_k)
        return hits


def _has_vectors(index: Index) -> bool:
    return any(part is not None for part in (index.dense, index.sparse, index.colbert))


def _result(
    measurement: _Measurement, values: dict[str, dict[str, float]], seconds: float
) -> EvaluationResult:
    """The result of all judged queries; those that have no text count 0."""
    task, queries = measurement.task, measurement.queries
    language = dict(zip(queries.ids, queries.languages, strict=True))
    judged = [*queries.ids, *(query for query in queries.qrels if query not in language)]
    primary = task.protocol.primary
    return EvaluationResult(
        task=task.name,
        family=task.family,
        query_set=queries.name,
        language=queries.language,
        method=measurement.method,
        primary=primary if primary in values else next(iter(values)),
        queries=judged,
        languages=[language.get(query, queries.language) for query in judged],
        values={name: [row.get(query, 0.0) for query in judged] for name, row in values.items()},
        protocol=measurement.protocol,
        seconds=round(seconds, 3),
    )


def _without(hits: Hits, excluded: list[set[str]], document_ids: Any) -> Hits:
    """The hits except, for each query, its excluded documents."""
    kept = [
        np.array([document_ids[int(d)] not in ids for d in documents], bool)
        for ids, documents in zip(excluded, hits.documents, strict=True)
    ]
    return Hits(
        [d[keep] for d, keep in zip(hits.documents, kept, strict=True)],
        [s[keep] for s, keep in zip(hits.scores, kept, strict=True)],
    )


def _values(
    index: Index, measurement: _Measurement, ids: list[str], hits: Hits
) -> dict[str, dict[str, float]]:
    """Measure -> query -> value, of the queries `ids`."""
    names, queries = measurement.protocol["measures"], measurement.queries
    numbers = [documents.tolist() for documents in hits.documents]
    if measurement.task.protocol.judged_by == "answers":
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
