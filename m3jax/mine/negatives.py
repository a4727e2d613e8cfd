"""Hard negatives: passages that a model ranks high for a query and that are not relevant to it.

    training files -> pool.py -> retrieve.py (an index on disk) -> selection.py -> the records of
    the files with new negatives

[ANCE, Xiong et al. 2021]. Results are stored chunk by chunk in the working directory: an
interrupted run resumes.
"""

import array
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3jax.data.cleaning import signature_of
from m3jax.data.examples import Example, Paths, example_files, read_records_of
from m3jax.embed.embedder import M3Embedder
from m3jax.io.atomic import new_file
from m3jax.io.jsonl import BadRecords
from m3jax.mine.options import MiningOptions
from m3jax.mine.pool import KnownPositives, Pool, build_pool, text_hash
from m3jax.mine.records import passage_language, record_line
from m3jax.mine.resume import json_digest, resumable
from m3jax.mine.retrieve import LanguagePool, Retrieval
from m3jax.mine.selection import Constraints, Hit, lowest_score, random_priority, select
from m3jax.search.queries import EncodedQueries

CHUNK = 256  # queries searched at once
PoolOf = Callable[[str], LanguagePool | None]


class TrainingQuery(NamedTuple):
    """A record, the example that it contains, and the language of its passages."""

    record: dict[str, Any]
    example: Example
    language: str


def _no_scores() -> dict[str, array.array]:
    return {group: array.array("f") for group in ("positive", "mined", "random")}


@dataclasses.dataclass
class MiningResult:
    """Counts of queries, negatives and dropped passages, and the scores of passages."""

    queries: int = 0
    negatives: int = 0
    incomplete: int = 0  # queries with fewer negatives than requested
    empty: int = 0  # queries without negatives
    bad_records: int = 0
    neg_scores_removed: int = 0  # records whose neg_scores no longer fit
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)  # passages by reason
    pools: dict[str, int] = dataclasses.field(default_factory=dict)  # passages by language
    # float32 scores of positives, of mined negatives and of random passages, for comparison
    scores: dict[str, array.array] = dataclasses.field(default_factory=_no_scores)

    def add(self, mined: dict[str, Any]) -> None:
        """Adds the dropped passages and the scores of a chunk."""
        self.dropped.update(mined["dropped"])
        for group, values in mined["scores"].items():
            self.scores[group].extend(values)

    def score_statistics(self) -> dict[str, dict[str, Any]]:
        """{group: {"count", "mean", "deviation"}} of `scores`, empty groups left out."""
        statistics = {}
        for group, values in self.scores.items():
            if values:
                scores = np.frombuffer(values, np.float32).astype(np.float64)
                mean, deviation = round(float(scores.mean()), 6), round(float(scores.std()), 6)
                statistics[group] = {"count": len(scores), "mean": mean, "deviation": deviation}
        return statistics


def mine_negatives(
    inputs: Paths,
    output: Path | str,
    embedder: M3Embedder | None = None,
    options: MiningOptions | None = None,
    *,
    workdir: Path | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> MiningResult:
    """Writes the records of training files, in order, to one file with mined negatives.

    inputs    files, directories and globs of {"query", "pos", "neg"} records
    output    a new JSON Lines file, compressed if its name ends in .gz or .zst
    embedder  the model that retrieves; None for BM25 over words
    workdir   indexes and finished chunks, reused by later runs (default: OUTPUT.work)
    progress  called with the number of finished queries

    All other fields of a record stay, except "neg_scores" if the negatives change. Positives of
    the query in any record, the query itself and near duplicates of its positives are never mined.

    Raises FileExistsError if `output` exists, ValueError for an invalid record and for a pool with
    fewer than `options.last` passages.
    """
    options, output = options or MiningOptions(), Path(output)
    if output.exists():
        raise FileExistsError(f"{output} already exists; name a new file or remove it first")
    workdir = Path(f"{output}.work" if workdir is None else workdir)
    files = example_files(inputs)
    retrieval = Retrieval(embedder, options)
    if options.near_duplicates:
        signature_of("")  # raises if the library is missing
    bad = BadRecords(options.skip_bad)
    pool, known = build_pool(files, options, workdir, bad)
    _check_sizes(pool, known, options)
    result = MiningResult(bad_records=bad.count, pools=pool.sizes)
    pool_of = _language_pools(pool, retrieval, workdir)
    settings = [options.same_language, options.keep_negatives, options.selection_record()]
    identity = [pool.name, known.digest(), retrieval.identity, settings]
    folder = workdir / f"mined-{json_digest(identity)}"
    with new_file(output) as write:
        for chunk, mined in _mined_chunks(files, pool_of, known, options, folder):
            for query, numbers in zip(chunk, mined["taken"], strict=True):
                passages = pool_of(query.language)
                texts = [passages.text(number) for number in numbers] if passages else []
                _count(result, query, len(texts), options)
                write(_line(query, texts, options.keep_negatives))
            result.add(mined)
            if progress:
                progress(result.queries)
    return result


def _mined_chunks(
    files: list[Path],
    pool_of: PoolOf,
    known: KnownPositives,
    options: MiningOptions,
    folder: Path,
) -> Iterator[tuple[list[TrainingQuery], dict[str, Any]]]:
    """Chunks of queries with what `_mine_chunk` returns for them, stored in `folder`."""
    return resumable(
        _queries(files, options.same_language),
        CHUNK,
        folder,
        identity=lambda query: [query.record, query.language],
        compute=lambda chunk: _mine_chunk(chunk, pool_of, known, options),
    )


def _language_pools(pool: Pool, retrieval: Retrieval, workdir: Path) -> PoolOf:
    """The passages of a language, opened on first use; None if the pool lacks the language."""

    @functools.cache
    def pool_of(language: str) -> LanguagePool | None:
        if language not in pool.sizes:
            return None
        return LanguagePool(pool, language, retrieval, workdir)

    return pool_of


def _queries(files: list[Path], same_language: bool) -> Iterator[TrainingQuery]:
    # Invalid records were counted by `build_pool`.
    for place, record, example in read_records_of(files, "examples", lambda error: None):
        language = passage_language(record, example, place) if same_language else ""
        yield TrainingQuery(record, example, language)


def _check_sizes(pool: Pool, known: KnownPositives, options: MiningOptions) -> None:
    languages = set(known.languages) if pool.by_language else {""}
    sizes = {language: pool.sizes.get(language, 0) for language in languages}
    small = {language: size for language, size in sizes.items() if size < options.last}
    any_candidates = any(size > options.first for size in pool.sizes.values())
    if not small or (options.allow_small_pool and any_candidates):
        return
    listed = ", ".join(
        f"{language or 'no language' if pool.by_language else 'the pool'} {size:,}"
        for language, size in sorted(small.items())
    )
    raise ValueError(
        f"fewer passages than the {options.last} that the ranks {options.first}-{options.last} "
        f"need: {listed}; use a smaller --range, a larger --corpus, or --allow-small-pool"
    )


def _mine_chunk(
    chunk: list[TrainingQuery], pool_of: PoolOf, known: KnownPositives, options: MiningOptions
) -> dict[str, Any]:
    """The selected passage numbers of each query, the dropped passages by reason, and scores."""
    selected: list[list[int]] = [[] for _ in chunk]
    dropped: Counter[str] = Counter()
    scores: dict[str, list[float]] = {"positive": [], "mined": [], "random": []}
    for language in dict.fromkeys(query.language for query in chunk):
        passages = pool_of(language)
        if passages is None:
            continue
        numbers = [i for i, query in enumerate(chunk) if query.language == language]
        examples = [chunk[i].example for i in numbers]
        # Prompt and query, as in training.
        queries = passages.encode([example.prompt + example.query for example in examples])
        ranking = passages.search(queries, min(options.last, len(passages)))
        positive_scores = passages.positive_scores(queries, [e.positives for e in examples])
        for i, example in enumerate(examples):
            constraints = Constraints(
                query=example.prompt + example.query,
                positives=example.positives,
                excluded=_excluded(example, known, options.keep_negatives),
                score_limit=options.score_limit(lowest_score(positive_scores[i])),
            )
            hits = [
                Hit(number, int(passages.text_hashes[number]), float(score))
                for number, score in zip(
                    ranking.documents[i].tolist(), ranking.scores[i], strict=True
                )
            ]
            negatives = select(hits, passages.text, constraints, options, dropped)
            selected[numbers[i]] = [hit.number for hit in negatives]
            scores["positive"] += positive_scores[i].tolist()
            scores["mined"] += [hit.score for hit in negatives]
            scores["random"] += _random_score(passages, queries, i, constraints, options.seed)
    return {"taken": selected, "dropped": dict(dropped), "scores": scores}


def _excluded(example: Example, known: KnownPositives, keep: bool) -> dict[int, str]:
    """Hashes of the passages that are not negatives of a query, with the reason."""
    reasons = dict.fromkeys(known.text_hashes(example), "known to be right for the query")
    if keep:
        reasons |= dict.fromkeys(map(text_hash, example.negatives), "already a negative")
    reasons[text_hash(example.query)] = "the query itself"
    return reasons | dict.fromkeys(map(text_hash, example.positives), "a positive")


def _random_score(
    passages: LanguagePool,
    queries: EncodedQueries,
    query: int,
    constraints: Constraints,
    seed: int,
) -> list[float]:
    """[the score of a random passage], or [] if that passage is excluded."""
    number = random_priority(seed, constraints.query, 0) % len(passages)
    if int(passages.text_hashes[number]) in constraints.excluded:
        return []
    return passages.scores(queries, query, [number]).tolist()


def _count(
    result: MiningResult, query: TrainingQuery, negatives: int, options: MiningOptions
) -> None:
    result.queries += 1
    result.negatives += negatives
    result.incomplete += negatives < options.negatives
    result.empty += negatives == 0
    unchanged = options.keep_negatives and negatives == 0
    result.neg_scores_removed += "neg_scores" in query.record and not unchanged


def _line(query: TrainingQuery, texts: list[str], keep: bool) -> str:
    """The record with the mined negatives, and without "neg_scores" if the negatives changed."""
    example = query.example
    record = dict(query.record)
    record["neg"] = [*example.negatives, *texts] if keep else texts
    if record["neg"] != list(example.negatives):
        record.pop("neg_scores", None)
    return record_line(record, example)
