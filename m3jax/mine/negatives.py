"""Hard negatives: what a model ranks high for a query and is not right. [ANCE, Xiong et al. 2021]

training files -> pool.py -> retrieve.py (an index on disk) -> choose.py -> the files' records with
other negatives. Chunks of queries are kept in the work directory: a job that was killed goes on.
"""

import array
import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3jax.data.cleaning import signature_of
from m3jax.data.examples import Example, read_records_of
from m3jax.io.atomic import new_file
from m3jax.io.jsonl import BadRecords
from m3jax.io.trec import Qrels
from m3jax.mine.pool import Known, Pool, key_of, language_of, survey
from m3jax.mine.resume import digest_of, resumable
from m3jax.mine.retrieve import Retrieval, Shelf
from m3jax.mine.selection import Hit, Rules, choose, lot, lowest
from m3jax.search.queries import EncodedQueries

CHUNK = 256  # queries searched at a time


class Question(NamedTuple):
    """A record, the example it is, and the language of its passages."""

    values: dict[str, Any]
    example: Example
    language: str


@dataclasses.dataclass
class Mined:
    """What came of it: counts, and the scores of positives, negatives and random passages."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    scores: dict[str, array.array] = dataclasses.field(
        default_factory=lambda: {k: array.array("f") for k in ("positive", "mined", "random")}
    )
    pools: dict[str, int] = dataclasses.field(default_factory=dict)


def mine(
    inputs: list[str],
    output: Path,
    retrieval: Retrieval,
    rules: Rules,
    work: Path,
    *,
    corpus: list[str] | None = None,
    same_language: bool = False,
    small_pools: bool = False,
    keep: bool = False,
    exclude: Qrels | None = None,
    skip_bad: int = 0,
    tell: Callable[[int], None] = lambda done: None,
) -> Mined:
    """Writes the training files' records with mined negatives to one file, in order.

    same_language  negatives come from the language of the positives ("pos_lang", else "lang")
    small_pools    a pool with fewer passages than `rules.last` gives what it has
    keep           the record's own negatives stay in front of the mined ones

    Raises ValueError for a pool that is empty or too small, FileExistsError where `output` is.
    """
    if output.exists():
        raise FileExistsError(f"{output} already exists; name a new file or remove it first")
    _ = rules.near_duplicates and signature_of("")  # a missing library is told at once
    bad = BadRecords(skip_bad)
    pool, known = survey(inputs, corpus, work, bad, by_language=same_language, exclude=exclude)
    _check_sizes(pool, known, rules, small_pools)
    _check_bm25(retrieval, rules, corpus)
    mined = Mined(counts=Counter({"bad records": bad.count}), pools=pool.sizes)
    shelf_of = _shelves(pool, retrieval, work)
    rest = [same_language, keep, dataclasses.asdict(rules)]
    folder = work / f"mined-{digest_of([pool.name, known.digest(), retrieval.identity, rest])}"
    chunks = resumable(
        _questions(inputs, same_language), CHUNK, folder, lambda q: [q.values, q.language],
        lambda some: _chunk(some, shelf_of, known, rules, keep),
    )  # fmt: skip
    with new_file(output) as write:
        for some, result in chunks:
            for question, numbers in zip(some, result["taken"], strict=True):
                shelf = shelf_of(question.language)
                texts = [shelf.text(n) for n in numbers] if shelf else []
                _count(mined, question, len(texts), rules.negatives, keep)
                write(_line(question, texts, keep))
            mined.dropped.update(result["dropped"])
            for kind, values in result["scores"].items():
                mined.scores[kind].extend(values)
            tell(mined.counts["queries"])
    return mined


def _shelves(pool: Pool, retrieval: Retrieval, work: Path) -> Callable[[str], Shelf | None]:
    """A language's shelf, made when first asked for; None where the pool lacks the language."""

    @functools.cache
    def shelf_of(language: str) -> Shelf | None:
        return Shelf(pool, language, retrieval, work) if language in pool.sizes else None

    return shelf_of


def _questions(inputs: list[str], same_language: bool) -> Iterator[Question]:
    # What is bad was counted by the survey.
    for place, values, example in read_records_of(inputs, "examples", lambda error: None):
        language = language_of(values, example, place) if same_language else ""
        yield Question(values, example, language)


def _check_sizes(pool: Pool, known: Known, rules: Rules, small_pools: bool) -> None:
    languages = set(known.languages) if pool.by_language else {""}
    small = {s: pool.sizes.get(s, 0) for s in languages if pool.sizes.get(s, 0) < rules.last}
    if not small or (small_pools and any(size > rules.first for size in pool.sizes.values())):
        return
    sizes = ", ".join(
        f"{name or 'no language' if pool.by_language else 'the pool'} {size:,}"
        for name, size in sorted(small.items())
    )
    raise ValueError(
        f"fewer passages than the {rules.last} that a range of {rules.first}-{rules.last} needs: "
        f"{sizes}; name a smaller --range, a larger --corpus, or --small-pools to take what is "
        "there"
    )


def _check_bm25(retrieval: Retrieval, rules: Rules, corpus: list[str] | None) -> None:
    if retrieval.method == "bm25" and rules.by_score and corpus is not None:
        raise ValueError(
            "BM25 scores only what is in its pool, so thresholds by the positives' scores need "
            "the training files' own pool: leave out --corpus, or --max-share and --margin"
        )


def _chunk(
    some: list[Question],
    shelf_of: Callable[[str], Shelf | None],
    known: Known,
    rules: Rules,
    keep: bool,
) -> dict[str, Any]:
    """Numbers of the passages taken for each question, what was dropped, and scores."""
    taken: list[list[int]] = [[] for _ in some]
    dropped: Counter[str] = Counter()
    scores: dict[str, list[float]] = {"positive": [], "mined": [], "random": []}
    for language in dict.fromkeys(question.language for question in some):
        shelf = shelf_of(language)
        if shelf is None:
            continue
        places = [i for i, question in enumerate(some) if question.language == language]
        examples = [some[i].example for i in places]
        # As in training: the prompt stands in front.
        queries = shelf.encode([example.prompt + example.query for example in examples])
        found = shelf.search(queries, min(rules.last, len(shelf)))
        right = shelf.positive_scores(queries, [example.positives for example in examples])
        for i, example in enumerate(examples):
            documents = found.documents[i].tolist()
            hits = [
                Hit(number, int(shelf.keys[number]), float(score))
                for number, score in zip(documents, found.scores[i], strict=True)
            ]
            forbidden = _forbidden(example, known, keep)
            salt = example.prompt + example.query
            limit = rules.limit(lowest(right[i]))
            chosen = choose(
                hits, shelf.text, example.positives, forbidden, limit, rules, salt, dropped
            )
            taken[places[i]] = [hit.number for hit in chosen]
            scores["positive"] += right[i].tolist()
            scores["mined"] += [hit.score for hit in chosen]
            scores["random"] += _random(shelf, queries, i, forbidden, rules.seed, salt)
    return {"taken": taken, "dropped": dict(dropped), "scores": scores}


def _forbidden(example: Example, known: Known, keep: bool) -> dict[int, str]:
    """Keys that are no negatives of a query, and why."""
    why = dict.fromkeys(known.of(example), "known to be right for the query")
    if keep:
        why |= dict.fromkeys(map(key_of, example.negatives), "already a negative")
    why[key_of(example.query)] = "the query itself"
    return why | dict.fromkeys(map(key_of, example.positives), "a positive")


def _random(
    shelf: Shelf, queries: EncodedQueries, i: int, forbidden: dict[int, str], seed: int, salt: str
) -> list[float]:
    """The score of one passage at random, for comparison; none where it happens to be right."""
    number = lot(seed, salt, 0) % len(shelf)
    if int(shelf.keys[number]) in forbidden:
        return []
    return shelf.scores(queries, i, [number]).tolist()


def _count(mined: Mined, question: Question, found: int, asked: int, keep: bool) -> None:
    mined.counts["queries"] += 1
    mined.counts["negatives"] += found
    mined.counts["queries with fewer than asked"] += found < asked
    mined.counts["queries with none"] += found == 0
    if "neg_scores" in question.values and not (keep and found == 0):
        mined.counts["neg_scores left out"] += 1


def _line(question: Question, texts: list[str], keep: bool) -> str:
    """The record with other negatives; scores of the earlier ones would not fit them."""
    example = question.example
    values = dict(question.values)
    values["neg"] = [*example.negatives, *texts] if keep else texts
    if values["neg"] != list(example.negatives):
        values.pop("neg_scores", None)
    # One file holds what several did: what their names said goes into the records.
    if example.source:
        values["source"] = example.source
    if not example.in_batch:
        values["in_batch"] = False
    return json.dumps(values, ensure_ascii=False, default=str) + "\n"


def means(mined: Mined) -> dict[str, dict[str, Any]]:
    """Number, mean and deviation of each kind of score."""
    found = {}
    for kind, values in mined.scores.items():
        some = np.frombuffer(values, np.float32).astype(np.float64)
        if len(some):
            mean, deviation = round(float(some.mean()), 6), round(float(some.std()), 6)
            found[kind] = {"count": len(some), "mean": mean, "deviation": deviation}
    return found
