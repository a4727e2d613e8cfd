"""Retrieval tasks: read from directories in BEIR's layout, united into one corpus.

    TASK/corpus.jsonl[.gz]                              {"_id", "title"?, "text"} a line
        /queries.jsonl[.gz]       with qrels/test.tsv   {"_id", "text", "lang"?} a line
        /queries.NAME.jsonl[.gz]  with qrels/test.NAME.tsv    any number of them, over one corpus

A directory of tasks is a family; a directory of families and tasks holds them all.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from m3jax.io.hashing import hex_digest, new_digest
from m3jax.io.jsonl import Record, numbered_lines, parse_object, read_records
from m3jax.io.trec import Qrels, read_qrels

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of a benchmark [M3 sec. 4]; lengths in tokens."""

    query_length: int = 512
    passage_length: int = 8192  # or the model's maximum
    weights: str = "miracl"  # the preset of fusion weights
    measures: tuple[str, ...] = ("nDCG@10", "Recall@20", "Recall@100", "MRR@10", "MAP")
    primary: str = "nDCG@10"
    judged_by: str = "qrels"  # or "answers": passages that contain one are relevant
    title_join: str = "title + ' ' + text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuerySet:
    """Judged queries, in the order of their file."""

    name: str  # "" if a task has only one set
    language: str
    ids: list[str]
    texts: list[str]
    languages: list[str]  # of each query
    qrels: Qrels
    answers: dict[str, list[str]] | None = None  # query -> accepted answers
    population: int | None = None  # judged queries that these were sampled from
    excluded: dict[str, list[str]] | None = None  # query -> documents removed from its ranking


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A corpus and the query sets searched in it."""

    name: str  # xquad/en
    family: str  # xquad
    documents: Callable[[], Iterator[Record]]  # reads the corpus; may be called again
    document_ids: list[str]
    digest: str  # of ids and texts
    query_sets: list[QuerySet]
    protocol: Protocol = Protocol()
    source: str = ""
    warnings: tuple[str, ...] = ()
    parts: "tuple[Task, ...]" = ()  # of a united task: the tasks whose corpora it joins


def read_tasks(path: Path, *, split: str = "test", max_queries: int | None = None) -> list[Task]:
    """The task in a directory, or all tasks in its subdirectories, in the order of their names.

    Raises FileNotFoundError if there is none, and the errors of `read_task`.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no such directory: {path}")
    folders = sorted(file.parent for file in path.rglob("corpus.jsonl*") if _is_corpus(file))
    if not folders:
        raise FileNotFoundError(
            f"{path} holds no corpus.jsonl or corpus.jsonl.gz, and no subdirectory does"
        )
    return [
        read_task(folder, name=_name(folder, path), split=split, max_queries=max_queries)
        for folder in dict.fromkeys(folders)
    ]


def read_task(
    folder: Path, *, name: str = "", split: str = "test", max_queries: int | None = None
) -> Task:
    """Reads a task from a directory. Queries without a judgement are left out.

    Judged documents and queries that are missing are counted in a warning and count as not found.
    Raises FileNotFoundError for a missing file; ValueError, naming file and line, for an empty
    corpus, a repeated id and a query without text.
    """
    name = name or folder.name
    path = str(_file(folder, "corpus"))
    files = _query_files(folder, split)
    corpus = scan_corpus(lambda: read_records(path), path)
    known = set(corpus.ids)
    sets, warnings = [], []
    for set_name, queries, qrels in files:
        language = set_name or name.rsplit("/", 1)[-1]
        query_set, missing = _query_set(set_name, language, queries, qrels, known, max_queries)
        sets.append(query_set)
        warnings += missing
    for warning in warnings:
        log.warning("%s", warning)
    return make_task(
        name, corpus, sets, protocol=Protocol(), source=str(folder), warnings=tuple(warnings)
    )


class Corpus(NamedTuple):
    """Documents that were read once for their ids and a hash of their texts."""

    documents: Callable[[], Iterator[Record]]
    ids: list[str]
    digest: str


def scan_corpus(documents: Callable[[], Iterable[Record]], name: str) -> Corpus:
    """Reads a corpus once. Raises ValueError if it is empty or repeats an id."""
    ids: dict[str, int] = {}
    digest = new_digest()
    for record in documents():
        if record.id in ids:
            raise ValueError(
                f"{name}:{record.line}: the id {record.id!r} is already used on line "
                f"{ids[record.id]}"
            )
        ids[record.id] = record.line
        digest.update(repr((record.id, record.text)).encode())
    if not ids:
        raise ValueError(f"{name} holds no document")
    return Corpus(lambda: iter(documents()), list(ids), digest.hexdigest())


def make_task(
    name: str,
    corpus: Corpus,
    query_sets: list[QuerySet],
    *,
    protocol: Protocol,
    source: str,
    warnings: tuple[str, ...] = (),
) -> Task:
    """A task; its family is the first part of its name."""
    return Task(
        name=name,
        family=name.split("/")[0],
        documents=corpus.documents,
        document_ids=corpus.ids,
        digest=corpus.digest,
        query_sets=query_sets,
        protocol=protocol,
        source=source,
        warnings=warnings,
    )


def unite(tasks: Sequence[Task], translated: Sequence[Sequence[str]] = ()) -> list[Task]:
    """The tasks, each with the documents of all tasks as its corpus: a harder search.

    Document ids become TASK:ID. Every copy of a relevant text is relevant, in any corpus. With
    `translated`, groups of families in which documents of equal id are translations of each other
    such as [("xquad", "xquad-x")], translations of a relevant document are removed from the
    ranking; otherwise they count as not relevant.
    """
    parts = tuple(tasks)
    copies: dict[str, list[str]] = {}
    text_of: dict[str, str] = {}
    for task in parts:
        for record in task.documents():
            number = f"{task.name}:{record.id}"
            text_of[number] = record.text
            copies.setdefault(record.text, []).append(number)
    digest = hex_digest(repr([(t.name, t.digest) for t in parts]))

    def documents() -> Iterator[Record]:
        for task in parts:
            for record in task.documents():
                yield record._replace(id=f"{task.name}:{record.id}")

    def in_all(task: Task, queries: QuerySet) -> QuerySet:
        qrels = {}
        for query, grades in queries.qrels.items():
            numbers = {f"{task.name}:{document}": grade for document, grade in grades.items()}
            for number, grade in list(numbers.items()):
                for copy in copies[text_of[number]] if number in text_of else ():
                    numbers[copy] = max(grade, numbers.get(copy, grade))
            qrels[query] = numbers
        excluded = _translations(task, queries, qrels, parts, translated)
        return dataclasses.replace(queries, qrels=qrels, excluded=excluded or None)

    return [
        dataclasses.replace(
            task,
            documents=documents,
            document_ids=list(text_of),
            digest=digest,
            query_sets=[in_all(task, queries) for queries in task.query_sets],
            parts=parts,
        )
        for task in parts
    ]


def _translations(
    task: Task,
    queries: QuerySet,
    relevant: Qrels,
    parts: Sequence[Task],
    translated: Sequence[Sequence[str]],
) -> dict[str, list[str]]:
    """Query -> translations of its relevant documents that are not relevant themselves."""
    families = {family for group in translated if task.family in group for family in group}
    corpora = [(part.name, set(part.document_ids)) for part in parts if part.family in families]
    return {
        query: [
            number
            for name, ids in corpora
            for document in grades
            if document in ids and (number := f"{name}:{document}") not in relevant[query]
        ]
        for query, grades in queries.qrels.items()
        if corpora
    }


def limit(query_set: QuerySet, count: int | None, seed: int = 0) -> QuerySet:
    """At most `count` queries, sampled with a fixed seed, in their order."""
    if count is None or len(query_set.ids) <= count:
        return query_set
    if count < 1:
        raise ValueError(f"the number of queries must be at least 1, got {count}")
    sample = np.random.default_rng(seed).choice(len(query_set.ids), count, replace=False)
    kept = sorted(sample.tolist())
    ids = [query_set.ids[i] for i in kept]
    answers = query_set.answers
    return dataclasses.replace(
        query_set,
        ids=ids,
        population=len(query_set.ids),
        texts=[query_set.texts[i] for i in kept],
        languages=[query_set.languages[i] for i in kept],
        qrels={i: query_set.qrels[i] for i in ids if i in query_set.qrels},
        answers=None if answers is None else {i: answers[i] for i in ids},
    )


def _query_set(
    name: str, language: str, queries: Path, judged: Path, known: set[str], count: int | None
) -> tuple[QuerySet, list[str]]:
    """The judged queries, and warnings of what is missing.

    The warnings are part of the protocol of results: rephrased, stored results are not found again.
    """
    qrels = read_qrels(judged)
    rows = [row for row in _read_queries(queries) if row[0] in qrels]
    if not rows:
        raise ValueError(f"{judged} judges no query of {queries}")
    warnings = []
    absent = {d for documents in qrels.values() for d in documents} - known
    if absent:
        warnings.append(
            f"{judged} names {len(absent)} documents that the corpus has not, such as "
            f"{min(absent)!r}; they cannot be found and count against recall"
        )
    without_text = len(qrels) - len(rows)
    if without_text:
        warnings.append(
            f"{judged} judges {without_text} queries that {queries.name} has not; they count 0"
        )
    query_set = QuerySet(
        name=name,
        language=language,
        ids=[row[0] for row in rows],
        texts=[row[1] for row in rows],
        languages=[row[2] or language for row in rows],
        qrels=qrels,
    )
    return limit(query_set, count), warnings


def _read_queries(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (id, text, language or "")."""
    seen: dict[str, int] = {}
    for number, line in numbered_lines(str(path)):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        values = parse_object(line, where)
        query, text = values.get("_id"), values.get("text")
        if not isinstance(query, (str, int)) or isinstance(query, bool):
            raise ValueError(f"{where}: a query needs an _id, a string or a number, got {query!r}")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: query {query!r} has no text")
        if str(query) in seen:
            raise ValueError(f"{where}: query {query!r} is already on line {seen[str(query)]}")
        seen[str(query)] = number
        yield str(query), text, str(values.get("lang") or "")


def _query_files(folder: Path, split: str) -> list[tuple[str, Path, Path]]:
    """(name of the set, its queries, its judgements) of every set with judgements in `split`."""
    sets = []
    for path in sorted(folder.glob("queries*.jsonl*")):
        stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
        name = stem.removeprefix("queries").removeprefix(".")
        judged = folder / "qrels" / (f"{split}.{name}.tsv" if name else f"{split}.tsv")
        if judged.is_file():
            sets.append((name, path, judged))
        elif name:
            raise FileNotFoundError(f"{path} has no judgements: {judged} is missing")
    if not sets:
        _file(folder, "queries")
        splits = ", ".join(sorted(p.name for p in (folder / "qrels").glob("*.tsv"))) or "nothing"
        raise FileNotFoundError(
            f"{folder / 'qrels'} has no {split}.tsv but {splits}; name the split with --split"
        )
    return sets


def _file(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.jsonl", f"{stem}.jsonl.gz"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has neither {stem}.jsonl nor {stem}.jsonl.gz")


def _is_corpus(path: Path) -> bool:
    return path.name in ("corpus.jsonl", "corpus.jsonl.gz")


def _name(folder: Path, root: Path) -> str:
    """The path relative to a directory of families; FAMILY/TASK if `root` is a family or a task."""
    parts = folder.resolve().relative_to(root.resolve()).parts
    if len(parts) > 1 or (parts and not _is_family(root)):
        return "/".join(parts)
    if parts:
        return f"{root.resolve().name}/{parts[0]}"
    path = folder.resolve()
    return f"{path.parent.name}/{path.name}" if _is_family(path.parent) else path.name


def _is_family(folder: Path) -> bool:
    """Whether a directory has several subdirectories, all of them tasks."""
    inside = [p for p in folder.resolve().iterdir() if p.is_dir() and not p.name.startswith(".")]
    return len(inside) > 1 and all(any(map(_is_corpus, p.iterdir())) for p in inside)
