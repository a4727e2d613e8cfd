"""The passages to mine from, distinct and on disk, and what is known to be right for a query.

    WORK/pool-DIGEST/pool.json          {"languages": {language: passages}}, in order
                    /00000.jsonl        {"_id", "text"} a line, of the first language
                    /00000.keys.npy     uint64: the key of each text

One pass over the files. In memory: about 70 bytes a distinct passage while it runs, 16 bytes a
(query, positive) pair after it. Texts are compared by 64-bit keys of their `plain` forms.
"""

import array
import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3jax.data.cleaning import plain
from m3jax.data.examples import Example, OnBad, Place, read_records_of
from m3jax.io.atomic import new_directory
from m3jax.io.hashing import int_digest, new_digest
from m3jax.io.jsonl import string_of
from m3jax.io.trec import Qrels

MANIFEST = "pool.json"
Passage = tuple[str, str, str]  # language, id ("" where it has none), text


class Pool(NamedTuple):
    """Passages by language; all under "" unless pools are kept apart by language."""

    folder: Path
    sizes: dict[str, int]
    by_language: bool

    @property
    def name(self) -> str:
        """Stands for languages, order and texts."""
        return self.folder.name

    def file(self, language: str) -> Path:
        """The texts of one language."""
        return self.folder / f"{list(self.sizes).index(language):05d}.jsonl"

    def keys(self, language: str) -> np.ndarray:
        """The key of each of its texts, by number."""
        return np.load(self.file(language).with_suffix(".keys.npy"))


class Known(NamedTuple):
    """Every (query, positive) of the training files by keys, sorted, and pairs a user names."""

    queries: np.ndarray
    positives: np.ndarray
    excluded: Mapping[str, frozenset[int]]  # a query's id -> keys
    languages: Counter[str]  # of the positives, by example

    def of(self, example: Example) -> set[int]:
        """Keys of passages that are right for this query, here or wherever else it stands."""
        key = np.uint64(key_of(example.query))
        first = np.searchsorted(self.queries, key, side="left")
        last = np.searchsorted(self.queries, key, side="right")
        found = {int(positive) for positive in self.positives[first:last]}
        return found | self.excluded.get(example.id, frozenset())

    def digest(self) -> str:
        """Stands for the pairs."""
        digest = new_digest(self.queries.tobytes() + self.positives.tobytes(), size=10)
        digest.update(repr(sorted((q, sorted(keys)) for q, keys in self.excluded.items())).encode())
        return digest.hexdigest()


def key_of(text: str) -> int:
    """64 bits that equal texts share, whatever their case and white space."""
    return int_digest(plain(text).encode("utf-8", "backslashreplace"))


def language_of(values: dict[str, Any], example: Example, place: Place) -> str:
    """The language of an example's passages: "pos_lang", else "lang"."""
    return string_of(values, "pos_lang", str(place)) or example.lang


def survey(
    inputs: list[str],
    corpus: list[str] | None,
    work: Path,
    on_bad: OnBad,
    *,
    by_language: bool = False,
    exclude: Qrels | None = None,
) -> tuple[Pool, Known]:
    """Reads the training files, and the corpus where there is one, once.

    The pool is the corpus, else every passage of the training files. `exclude` judges passages by
    the corpus' "_id", or without a corpus by the "id" of the example whose positives they are;
    grades above 0 are right for their query. Raises ValueError for an empty pool, languages that
    nobody names, or an `exclude` of which nothing is found.
    """
    pairs = array.array("Q"), array.array("Q")
    languages: Counter[str] = Counter()
    exclude = exclude or {}
    wanted = {d for judged in exclude.values() for d, grade in judged.items() if grade > 0}
    keys_of_id: dict[str, set[int]] = {}

    def passages() -> Iterator[Passage]:
        for place, values, example in read_records_of(inputs, "examples", on_bad):
            language = language_of(values, example, place)
            languages[language] += 1
            query = key_of(example.query)
            for text in example.positives:
                pairs[0].append(query)
                pairs[1].append(key_of(text))
                yield language, example.id, text
            for text in example.negatives:
                yield language, "", text

    if corpus is None:
        pool = _write(passages(), work, by_language, wanted, keys_of_id)
    else:
        for _ in passages():
            pass
        pool = _write(_texts(corpus, on_bad), work, by_language, wanted, keys_of_id)
    where = "the training files" if corpus is None else ", ".join(corpus)
    if not pool.sizes:
        raise ValueError(f"{where}: there is no passage to mine from")
    if by_language and set(pool.sizes) == {""}:
        raise ValueError(f"{where}: no record names a language; leave out --same-language")
    queries, positives = (np.frombuffer(side, np.uint64) for side in pairs)
    order = np.lexsort((positives, queries))
    return pool, Known(queries[order], positives[order], _excluded(exclude, keys_of_id), languages)


def _texts(corpus: list[str], on_bad: OnBad) -> Iterator[Passage]:
    for _, _, example in read_records_of(corpus, "texts", on_bad):
        yield example.lang, example.id, example.query


def _excluded(exclude: Qrels, keys_of_id: dict[str, set[int]]) -> dict[str, frozenset[int]]:
    found = {}
    for query, judged in exclude.items():
        right = (keys_of_id.get(d, set()) for d, grade in judged.items() if grade > 0)
        if keys := frozenset().union(*right):
            found[query] = keys
    if exclude and not found:
        raise ValueError(
            "--exclude: none of its passages is in the pool; it names them by the corpus' _id, or "
            "without --corpus by the id of the example whose positives they are"
        )
    return found


def _write(
    passages: Iterable[Passage],
    work: Path,
    by_language: bool,
    wanted: set[str],
    keys_of_id: dict[str, set[int]],
) -> Pool:
    """The distinct passages under a name that stands for them; one that is there is kept."""
    seen: set[tuple[str, int]] | set[int] = set()
    digest = new_digest(size=10)
    keys: dict[str, array.array] = {}
    streams: dict[str, Any] = {}
    made = work / f".pool.{os.getpid()}"
    with new_directory(made, replace=True) as scratch, contextlib.ExitStack() as stack:
        for language, name, text in passages:
            language = language if by_language else ""
            key = key_of(text)
            if name in wanted:
                keys_of_id.setdefault(name, set()).add(key)
            mark: Any = (language, key) if by_language else key
            if mark in seen:
                continue
            seen.add(mark)
            if language not in keys:
                path = scratch / f"{len(keys):05d}.jsonl"
                streams[language] = stack.enter_context(open(path, "w", encoding="utf-8"))
                keys[language] = array.array("Q")
            line = json.dumps({"_id": str(len(keys[language])), "text": text}) + "\n"
            digest.update(f"{language}\0{line}".encode("utf-8", "backslashreplace"))
            streams[language].write(line)
            keys[language].append(key)
        for number, numbers in enumerate(keys.values()):
            np.save(scratch / f"{number:05d}.keys.npy", np.frombuffer(numbers, np.uint64))
        sizes = {language: len(numbers) for language, numbers in keys.items()}
        (scratch / MANIFEST).write_text(json.dumps({"languages": sizes}), encoding="utf-8")
    folder = work / f"pool-{digest.hexdigest()}"
    if folder.is_dir():
        shutil.rmtree(made)
    else:
        os.replace(made, folder)
    return Pool(folder, sizes, by_language)
