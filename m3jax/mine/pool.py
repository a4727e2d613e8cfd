"""The passages to mine from, deduplicated on disk, and the known positives of each query.

    WORKDIR/pool-DIGEST/pool.json          {"languages": {language: passages}}, in order
                       /00000.jsonl        {"_id", "text"} per line, of the first language
                       /00000.keys.npy     uint64, the hash of each text

The inputs are read once. Memory: about 70 bytes per distinct passage while they are read, 16 bytes
per (query, positive) pair afterwards. Texts are compared by 64-bit hashes of their normalised form
(`m3jax.data.cleaning.plain`).
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
from jaxtyping import UInt64

from m3jax.data.cleaning import plain
from m3jax.data.examples import Example, OnBad, Paths, example_files, read_records_of
from m3jax.io.atomic import new_directory
from m3jax.io.hashing import int_digest, new_digest
from m3jax.io.trec import Qrels
from m3jax.mine.options import MiningOptions
from m3jax.mine.records import passage_language

MANIFEST = "pool.json"
Passage = tuple[str, str, str]  # language, id ("" if it has none), text


class Pool(NamedTuple):
    """Distinct passages by language; all under "" unless the pool is split by language."""

    folder: Path
    sizes: dict[str, int]
    by_language: bool

    @property
    def name(self) -> str:
        """A digest of the texts, their order and their languages."""
        return self.folder.name

    def file(self, language: str) -> Path:
        """The JSON Lines file with the passages of a language."""
        return self.folder / f"{list(self.sizes).index(language):05d}.jsonl"

    def text_hashes(self, language: str) -> UInt64[np.ndarray, " n"]:
        """The hash of each passage of a language, by passage number."""
        return np.load(self.file(language).with_suffix(".keys.npy"))


class KnownPositives(NamedTuple):
    """The (query, positive) pairs of the training files as text hashes, and excluded passages."""

    queries: UInt64[np.ndarray, " n"]  # sorted
    positives: UInt64[np.ndarray, " n"]
    excluded: Mapping[str, frozenset[int]]  # query id -> hashes of passages
    languages: Counter[str]  # number of examples by the language of their positives

    def text_hashes(self, example: Example) -> set[int]:
        """Hashes of the passages that are relevant to this query in any example, or excluded."""
        query = np.uint64(text_hash(example.query))
        first = np.searchsorted(self.queries, query, side="left")
        last = np.searchsorted(self.queries, query, side="right")
        positives = {int(positive) for positive in self.positives[first:last]}
        return positives | self.excluded.get(example.id, frozenset())

    def digest(self) -> str:
        """20 hexadecimal digits of the pairs and the excluded passages."""
        digest = new_digest(self.queries.tobytes() + self.positives.tobytes(), size=10)
        excluded = sorted((query, sorted(hashes)) for query, hashes in self.excluded.items())
        digest.update(repr(excluded).encode())
        return digest.hexdigest()


def text_hash(text: str) -> int:
    """A 64-bit hash of a text, equal for texts that differ only in case and white space."""
    return int_digest(plain(text).encode("utf-8", "backslashreplace"))


def build_pool(
    inputs: Paths, options: MiningOptions, workdir: Path, on_bad: OnBad
) -> tuple[Pool, KnownPositives]:
    """Reads the training files, and `options.corpus` if it is given, once.

    The pool is the corpus, else all passages of the training files. `options.exclude` names
    passages by the "_id" of the corpus or, without a corpus, by the "id" of the example whose
    positives they are; those with a grade above 0 are relevant to their query.

    Raises ValueError for an empty pool, for `same_language` without any language, and for an
    `exclude` without a passage of the pool.
    """
    pairs = array.array("Q"), array.array("Q")
    languages: Counter[str] = Counter()
    corpus = None if options.corpus is None else example_files(options.corpus)
    exclude = options.exclude or {}
    ids = {d for judged in exclude.values() for d, grade in judged.items() if grade > 0}
    hashes_of_id: dict[str, set[int]] = {name: set() for name in ids}

    def training_passages() -> Iterator[Passage]:
        for place, values, example in read_records_of(inputs, "examples", on_bad):
            language = passage_language(values, example, place)
            languages[language] += 1
            query = text_hash(example.query)
            for text in example.positives:
                pairs[0].append(query)
                pairs[1].append(text_hash(text))
                yield language, example.id, text
            for text in example.negatives:
                yield language, "", text

    if corpus is None:
        source = "the training files"
        pool = _write(training_passages(), workdir, options.same_language, hashes_of_id)
    else:
        source = ", ".join(map(str, corpus))
        for _ in training_passages():
            pass
        pool = _write(_corpus(corpus, on_bad), workdir, options.same_language, hashes_of_id)
    if not pool.sizes:
        raise ValueError(f"{source}: there is no passage to mine from")
    if options.same_language and set(pool.sizes) == {""}:
        raise ValueError(f"{source}: no record has a language; omit --same-language")
    excluded = _excluded(exclude, hashes_of_id)
    queries, positives = (np.frombuffer(side, np.uint64) for side in pairs)
    order = np.lexsort((positives, queries))
    return pool, KnownPositives(queries[order], positives[order], excluded, languages)


def _corpus(corpus: Paths, on_bad: OnBad) -> Iterator[Passage]:
    for _, _, example in read_records_of(corpus, "texts", on_bad):
        yield example.lang, example.id, example.query


def _excluded(exclude: Qrels, hashes_of_id: dict[str, set[int]]) -> dict[str, frozenset[int]]:
    """The relevant passages of each query of `exclude` as text hashes."""
    excluded = {}
    for query, judged in exclude.items():
        relevant = (hashes_of_id[d] for d, grade in judged.items() if grade > 0)
        if hashes := frozenset().union(*relevant):
            excluded[query] = hashes
    if exclude and not excluded:
        raise ValueError(
            "--exclude: none of its passages is in the pool; it needs the _id of the corpus or, "
            "without --corpus, the id of the example whose positives they are"
        )
    return excluded


def _write(
    passages: Iterable[Passage],
    workdir: Path,
    by_language: bool,
    hashes_of_id: dict[str, set[int]],
) -> Pool:
    """Writes the distinct passages to pool-DIGEST; an existing directory of that name is kept.

    Adds the hash of each passage whose id is a key of `hashes_of_id`.
    """
    seen: set[tuple[str, int]] | set[int] = set()
    digest = new_digest(size=10)
    hashes: dict[str, array.array] = {}
    streams: dict[str, Any] = {}
    unnamed = workdir / f".pool.{os.getpid()}"
    with new_directory(unnamed, replace=True) as scratch, contextlib.ExitStack() as stack:
        for language, name, text in passages:
            language = language if by_language else ""
            number = text_hash(text)
            if name in hashes_of_id:
                hashes_of_id[name].add(number)
            mark: Any = (language, number) if by_language else number
            if mark in seen:
                continue
            seen.add(mark)
            if language not in hashes:
                path = scratch / f"{len(hashes):05d}.jsonl"
                streams[language] = stack.enter_context(open(path, "w", encoding="utf-8"))
                hashes[language] = array.array("Q")
            line = json.dumps({"_id": str(len(hashes[language])), "text": text}) + "\n"
            digest.update(f"{language}\0{line}".encode("utf-8", "backslashreplace"))
            streams[language].write(line)
            hashes[language].append(number)
        for number, values in enumerate(hashes.values()):
            np.save(scratch / f"{number:05d}.keys.npy", np.frombuffer(values, np.uint64))
        sizes = {language: len(values) for language, values in hashes.items()}
        (scratch / MANIFEST).write_text(json.dumps({"languages": sizes}), encoding="utf-8")
    folder = workdir / f"pool-{digest.hexdigest()}"
    if folder.is_dir():
        shutil.rmtree(unnamed)
    else:
        os.replace(unnamed, folder)
    return Pool(folder, sizes, by_language)
