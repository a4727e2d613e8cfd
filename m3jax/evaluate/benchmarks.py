"""The paper's benchmarks by name: from their records to tasks, with their protocols.

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
    name: str | Path,
    *,
    source: str | None = None,
    data: str | None = None,
    split: str | None = None,
    max_queries: int | None = None,
) -> list[Task]:
    """The tasks of a directory, or of a benchmark of the paper (miracl/de).

    Args:
      name: a directory that `read_tasks` reads, or the name of a benchmark.
      source: origin of a benchmark's records: "local" (in `data`), "hub" or "tfds".
      data: directory of a local copy: the published files, or DATA/NAME in BEIR's layout.
      split: of the judgements of a directory or a set of BEIR; default test.
      max_queries: at most so many queries of each set, sampled with a fixed seed.

    Raises:
      ValueError, FileNotFoundError: naming what is missing.
    """
    if Path(name).is_dir():
        return read_tasks(Path(name), split=split or "test", max_queries=max_queries)
    name = str(name)
    benchmark, part = _parse_name(name)
    source = source or ("local" if data else None)
    if source is None:
        raise ValueError(
            f"name the source of {name}: --data DIR for a local copy, or --from hub or --from tfds"
        )
    if source == "local" and data and (Path(data) / name / "qrels").is_dir():
        return _local_tasks(name, Path(data) / name, split or "test", max_queries)
    only = None if benchmark == "beir" else "dev" if benchmark == "miracl" else "test"
    if only and split not in (None, only):
        raise ValueError(f"{benchmark} is measured on its {only} split, not on {split!r}")
    split = split or ("dev" if name == "beir/msmarco" else "test")
    request = _Request(name, part, split, source, data, max_queries)
    return [_ADAPTERS[benchmark](request)]


def _parse_name(name: str) -> tuple[str, str]:
    """(benchmark, language or set of BEIR). Raises an error that lists the valid names."""
    benchmark, _, part = name.partition("/")
    if benchmark not in PROTOCOLS:
        raise FileNotFoundError(
            f"no task {name!r}: neither a directory nor one of miracl/LANG, mkqa/LANG, mldr/LANG, "
            "narrativeqa, beir/SET"
        )
    languages = LANGUAGES.get(benchmark)
    if languages and part not in languages:
        raise ValueError(f"{benchmark} has the languages {' '.join(languages)}, not {part!r}")
    if benchmark == "beir" and not part:
        raise ValueError("name a set of BEIR: beir/scifact")
    return benchmark, part


def _local_tasks(name: str, folder: Path, split: str, max_queries: int | None) -> list[Task]:
    """A benchmark from a directory in BEIR's layout, with the benchmark's protocol."""
    benchmark = name.split("/")[0]
    protocol = PROTOCOLS[benchmark]
    if protocol.judged_by == "answers":
        raise ValueError(
            f"{benchmark} is judged by answers, which BEIR's layout does not hold: name {folder} "
            "as a task, or put the published files into the directory of --data"
        )
    tasks = read_tasks(folder, split=split, max_queries=max_queries)
    return [dataclasses.replace(t, name=name, family=benchmark, protocol=protocol) for t in tasks]


class _Request(NamedTuple):
    """A benchmark and the source of its records."""

    name: str
    part: str  # language, or set of BEIR
    split: str
    source: str
    data: str | None
    count: int | None  # of queries, at most

    def rows(self, table: str) -> RecordReader:
        return open_rows(
            self.name.split("/")[0],
            table,
            part=self.part,
            split=self.split,
            source=self.source,
            data=self.data,
        )

    def corpus(self) -> Corpus:
        return scan_corpus(_documents(self.rows("corpus")), f"the corpus of {self.name}")


def _judged(request: _Request) -> Task:
    """MIRACL and BEIR: documents, queries and judgements in separate files."""
    qrels: Qrels = {}
    for _, row in request.rows("qrels")():
        qrels.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
    queries = [
        (str(_id(row)), _text(where, row, "text")) for where, row in request.rows("queries")()
    ]
    queries = [(query, text) for query, text in queries if query in qrels]
    return _task(request, request.corpus(), queries, qrels)


def _mldr(request: _Request) -> Task:
    """MLDR: every question names its relevant document."""
    queries, qrels = [], {}
    for where, row in request.rows("test")():
        query = str(row["query_id"])
        queries.append((query, _text(where, row, "query")))
        qrels[query] = {str(passage["docid"]): 1 for passage in row["positive_passages"]}
    return _task(request, request.corpus(), queries, qrels)


def _narrativeqa(request: _Request) -> Task:
    """NarrativeQA: the relevant document of a question is its story; documents are all stories."""
    queries, qrels, stories = [], {}, {}
    for number, (where, row) in enumerate(request.rows("test")()):
        story = row["document"]
        queries.append((f"q{number}", _text(where, row["question"], "text")))
        qrels[f"q{number}"] = {str(story["id"]): 1}
        stories.setdefault(str(story["id"]), story["text"])

    def documents() -> Iterator[Record]:
        return (Record(i, text, n) for n, (i, text) in enumerate(stories.items(), start=1))

    corpus = scan_corpus(documents, "the stories of narrativeqa")
    return _task(request, corpus, queries, qrels)


def _mkqa(request: _Request) -> Task:
    """MKQA: questions in one language, English answers in English passages (BEIR's nq).

    Answers that are unanswerable, yes or no, or long are ignored; questions without other answers
    are dropped (6,619 of 10,000 remain).
    """
    queries, accepted = [], {}
    for where, row in request.rows("questions")():
        kept = [a for a in row["answers"]["en"] if _answer_type(a) not in UNUSED_ANSWERS]
        if not kept:
            continue
        texts = [text for a in kept for text in (a.get("text"), *(a.get("aliases") or ()))]
        query = str(row["example_id"])
        queries.append((query, _text(where, row["queries"], request.part)))
        accepted[query] = [text for text in dict.fromkeys(texts) if text]
    corpus = _passages(request._replace(name="mkqa", part="", count=None))
    return _task(request, corpus, queries, {}, accepted)


@functools.lru_cache(maxsize=1)
def _passages(request: _Request) -> Corpus:
    """MKQA's 2.7 million passages, which all its languages share; scanned once."""
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
    """The type in words. Raises ValueError for the numbers of other copies of MKQA."""
    answer_type = answer.get("type")
    if not isinstance(answer_type, str):
        raise ValueError(
            f"MKQA's answer types must be words ('entity', 'date', ...), got {answer_type!r}; use "
            "the published mkqa.jsonl.gz"
        )
    return answer_type


def _stripped(title: str, text: str) -> str:
    return with_title(title, text).strip()


def _documents(
    rows: RecordReader,
    join: Callable[[str, str], str] = _stripped,
) -> Callable[[], Iterator[Record]]:
    def documents() -> Iterator[Record]:
        for number, (where, row) in enumerate(rows(), start=1):
            text = row.get("text")
            if not isinstance(text, str):
                raise ValueError(f"{where}: a document needs a text")
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
    """Counts of judged documents and queries that are missing from the benchmark.

    The texts are part of the protocol of results: rephrased, stored results are not found again.
    """
    documents = {d for judged in qrels.values() for d in judged} - set(corpus.ids)
    unasked = set(qrels) - {query for query, _ in queries}
    warnings = []
    if documents:
        warnings.append(
            f"{name}: the judgements name {len(documents)} documents that the corpus has not, such "
            f"as {min(documents)!r}; they cannot be found and count against recall"
        )
    if unasked:
        warnings.append(f"{name}: {len(unasked)} judged queries have no text; they count 0")
    return tuple(warnings)


def _id(row: dict[str, Any]) -> Any:
    for key in ("_id", "docid", "id"):
        if key in row:
            return row[key]
    raise ValueError(f"a record has no _id, but only {', '.join(row)}")


def _text(where: str, row: dict[str, Any], key: str) -> str:
    text = row.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: a query without {key}")
    return text
