"""The paper's benchmarks by name: how each one's records become a task, under which protocol.

    miracl/LANG    mkqa/LANG    mldr/LANG    narrativeqa    beir/SET

[M3 sec. 4.1 to 4.3]; lengths as in the authors' published scripts.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.evaluate.answer_recall import plain
from m3jax.evaluate.benchmark_files import open_rows
from m3jax.evaluate.tasks import (
    Corpus,
    Protocol,
    QuerySet,
    Task,
    limit,
    make_task,
    read_tasks,
    scan_corpus,
)
from m3jax.io.jsonl import Record, with_title
from m3jax.io.tables import RecordReader
from m3jax.io.trec import Qrels

log = logging.getLogger(__name__)

PROTOCOLS = {
    "miracl": Protocol(passage_length=512),
    "mkqa": Protocol(
        passage_length=512,
        measures=("Recall@20", "Recall@100"),
        primary="Recall@100",
        judged_by="answers",
        title_join="title + newline + text, lower-cased, typographic signs made plain",
    ),
    "mldr": Protocol(passage_length=8192, weights="mldr"),
    "narrativeqa": Protocol(passage_length=8192, weights="mldr"),
    "beir": Protocol(passage_length=512),
}
LANGUAGES = {
    "miracl": "ar bn en es fa fi fr hi id ja ko ru sw te th zh de yo".split(),
    "mkqa": "ar da de es fi fr he hu it ja km ko ms nl no pl pt ru sv th tr vi zh_cn zh_hk zh_tw "
    "en".split(),
    "mldr": "ar de en es fr hi it ja ko pt ru th zh".split(),
}
UNUSED_ANSWERS = {"unanswerable", "binary", "long_answer"}  # types of MKQA's answers


def load_tasks(
    spec: str,
    *,
    source: str | None = None,
    data: str | None = None,
    split: str | None = None,
    max_queries: int | None = None,
) -> list[Task]:
    """The tasks that a command line names: a directory, or a benchmark of the paper.

    `source` says where a benchmark's records are: local (in `data`), hub or tfds. A local copy is
    the published files, or a folder `data`/NAME of BEIR's layout. Raises ValueError or
    FileNotFoundError saying what is missing.
    """
    if Path(spec).is_dir():
        return read_tasks(Path(spec), split=split or "test", max_queries=max_queries)
    benchmark, _, part = spec.partition("/")
    if benchmark not in PROTOCOLS:
        raise FileNotFoundError(
            f"no task {spec!r}: not a directory, nor one of miracl/LANG, mkqa/LANG, mldr/LANG, "
            "narrativeqa, beir/SET"
        )
    languages = LANGUAGES.get(benchmark)
    if languages and part not in languages:
        raise ValueError(f"{benchmark} has the languages {' '.join(languages)}, not {part!r}")
    if benchmark == "beir" and not part:
        raise ValueError("name a set of BEIR: beir/scifact")
    source = source or ("local" if data else None)
    if source is None:
        raise ValueError(
            f"say where {spec} is: --data DIR for a local copy, or --source hub or --source tfds"
        )
    if source == "local" and data and (Path(data) / spec / "qrels").is_dir():
        protocol = PROTOCOLS[benchmark]
        if protocol.judged_by == "answers":
            raise ValueError(
                f"{benchmark} counts passages that hold an answer, for which BEIR's layout has no "
                f"place: name {Path(data) / spec} as a task of its own, or put the published files "
                f"under {data}"
            )
        tasks = read_tasks(Path(data) / spec, split=split or "test", max_queries=max_queries)
        return [
            dataclasses.replace(t, name=spec, family=benchmark, protocol=protocol) for t in tasks
        ]
    only = None if benchmark == "beir" else "dev" if benchmark == "miracl" else "test"
    if only and split not in (None, only):
        raise ValueError(f"{benchmark} is measured on its {only} split alone, not on {split!r}")
    split = split or ("dev" if spec == "beir/msmarco" else "test")
    request = _Request(spec, part, split, source, data, max_queries)
    return [_ADAPTERS[benchmark](request)]


class _Request(NamedTuple):
    """A benchmark by name, and where its records are."""

    name: str
    part: str  # language, or set of BEIR
    split: str
    source: str
    data: str | None
    count: int | None  # of queries, at most

    def rows(self, kind: str) -> RecordReader:
        return open_rows(
            self.name.split("/")[0],
            kind,
            part=self.part,
            split=self.split,
            source=self.source,
            data=self.data,
        )

    def corpus(self) -> Corpus:
        return scan_corpus(_documents(self.rows("corpus")), f"the corpus of {self.name}")


def _judged(request: _Request) -> Task:
    """MIRACL and BEIR: documents, queries and judgements in files of their own."""
    qrels: Qrels = {}
    for _, row in request.rows("qrels")():
        qrels.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
    queries = [
        (str(_id(row)), _text(place, row, "text")) for place, row in request.rows("queries")()
    ]
    queries = [(query, text) for query, text in queries if query in qrels]
    return _task(request, request.corpus(), queries, qrels)


def _mldr(request: _Request) -> Task:
    """MLDR: every question names its own document."""
    queries, qrels = [], {}
    for place, row in request.rows("test")():
        query = str(row["query_id"])
        queries.append((query, _text(place, row, "query")))
        qrels[query] = {str(passage["docid"]): 1 for passage in row["positive_passages"]}
    return _task(request, request.corpus(), queries, qrels)


def _narrativeqa(request: _Request) -> Task:
    """NarrativeQA: a question is to find its story among the stories of the test set."""
    queries, qrels, stories = [], {}, {}
    for number, (place, row) in enumerate(request.rows("test")()):
        story = row["document"]
        queries.append((f"q{number}", _text(place, row["question"], "text")))
        qrels[f"q{number}"] = {str(story["id"]): 1}
        stories.setdefault(str(story["id"]), story["text"])

    def documents() -> Iterator[Record]:
        return (Record(i, text, n) for n, (i, text) in enumerate(stories.items(), start=1))

    corpus = scan_corpus(documents, "the stories of narrativeqa")
    return _task(request, corpus, queries, qrels)


def _mkqa(request: _Request) -> Task:
    """MKQA: questions in one language, English answers to find in English passages (BEIR's nq).

    Of a question's answers those that are unanswerable, yes or no, or long do not count; a
    question without any other is dropped (6,619 of 10,000 remain).
    """
    queries, accepted = [], {}
    for place, row in request.rows("questions")():
        kept = [a for a in row["answers"]["en"] if _answer_type(a) not in UNUSED_ANSWERS]
        if not kept:
            continue
        texts = [text for a in kept for text in (a.get("text"), *(a.get("aliases") or ()))]
        query = str(row["example_id"])
        queries.append((query, _text(place, row["queries"], request.part)))
        accepted[query] = [text for text in dict.fromkeys(texts) if text]
    corpus = _passages(request._replace(name="mkqa", part="", count=None))
    return _task(request, corpus, queries, {}, accepted)


@functools.lru_cache(maxsize=1)
def _passages(request: _Request) -> Corpus:
    """MKQA's 2.7 million passages, which all its languages share: read through once."""
    documents = _documents(request.rows("corpus"), lambda title, text: plain(f"{title}\n{text}"))
    return scan_corpus(documents, "the corpus of mkqa")


_ADAPTERS = {
    "miracl": _judged,
    "beir": _judged,
    "mldr": _mldr,
    "narrativeqa": _narrativeqa,
    "mkqa": _mkqa,
}


def _answer_type(answer: dict[str, Any]) -> str:
    """MKQA's own files spell the type out; a data set with numbers in its place is refused."""
    kind = answer.get("type")
    if not isinstance(kind, str):
        raise ValueError(
            f"MKQA's answer types must be words ('entity', 'date', ...), got {kind!r}; use the "
            "published mkqa.jsonl.gz"
        )
    return kind


def _stripped(title: str, text: str) -> str:
    return with_title(title, text).strip()


def _documents(
    rows: RecordReader,
    join: Callable[[str, str], str] = _stripped,
) -> Callable[[], Iterator[Record]]:
    def documents() -> Iterator[Record]:
        for number, (place, row) in enumerate(rows(), start=1):
            text = row.get("text")
            if not isinstance(text, str):
                raise ValueError(f"{place}: a document needs a text")
            yield Record(str(_id(row)), join(row.get("title") or "", text), number)

    return documents


def _task(
    request: _Request,
    corpus: Corpus,
    queries: list[tuple[str, str]],
    qrels: Qrels,
    answers: dict[str, list[str]] | None = None,
) -> Task:
    if not queries:
        raise ValueError(f"{request.name}: no judged query")
    benchmark = request.name.split("/")[0]
    language = request.part if benchmark in LANGUAGES else "en"
    query_set = QuerySet(
        name="",
        language=language,
        ids=[query for query, _ in queries],
        texts=[text for _, text in queries],
        languages=[language] * len(queries),
        qrels=qrels,
        answers=answers,
    )
    warnings = _absent(request.name, qrels, corpus, queries)
    for warning in warnings:
        log.warning("%s", warning)
    return make_task(
        request.name,
        corpus,
        [limit(query_set, request.count)],
        protocol=PROTOCOLS[benchmark],
        source=f"{request.source}: {request.data or ''}",
        warnings=warnings,
    )


def _absent(
    name: str, qrels: Qrels, corpus: Corpus, queries: list[tuple[str, str]]
) -> tuple[str, ...]:
    """What the judgements name and the benchmark has not."""
    documents = {d for judged in qrels.values() for d in judged} - set(corpus.ids)
    unasked = set(qrels) - {query for query, _ in queries}
    found = []
    if documents:
        found.append(
            f"{name}: the judgements name {len(documents)} documents that the corpus has not, such "
            f"as {min(documents)!r}; they cannot be found and count against recall"
        )
    if unasked:
        found.append(f"{name}: {len(unasked)} judged queries have no text; they count 0")
    return tuple(found)


def _id(row: dict[str, Any]) -> Any:
    for key in ("_id", "docid", "id"):
        if key in row:
            return row[key]
    raise ValueError(f"a record has no _id, but only {', '.join(row)}")


def _text(place: str, row: dict[str, Any], key: str) -> str:
    text = row.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{place}: a query without {key}")
    return text
