"""The paper's benchmarks by name: how each one's records become a task, under which protocol.

    miracl/LANG    mkqa/LANG    mldr/LANG    narrativeqa    beir/SET

[M3 sec. 4.1 to 4.3]; lengths as in the authors' published scripts.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from m3jax.evaluate.answers import plain
from m3jax.evaluate.sources import Rows, open_rows
from m3jax.evaluate.tasks import Protocol, QuerySet, Task, limit, make_task, read_tasks
from m3jax.search.trec import Qrels
from m3jax.text.records import Record

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
        tasks = read_tasks(Path(data) / spec, split=split or "test", max_queries=max_queries)
        protocol = PROTOCOLS[benchmark]
        return [
            dataclasses.replace(t, name=spec, family=benchmark, protocol=protocol) for t in tasks
        ]
    split = split or ("dev" if spec == "beir/msmarco" else "test")
    rows: Callable[[str], Rows] = lambda kind: open_rows(  # noqa: E731
        benchmark, kind, part=part, split=split, source=source, data=data
    )
    return [_ADAPTERS[benchmark](spec, part, rows, f"{source}: {data or ''}", max_queries)]


def _judged(
    name: str, part: str, rows: Callable[[str], Rows], source: str, count: int | None
) -> Task:
    """MIRACL and BEIR: documents, queries and judgements in files of their own."""
    qrels: Qrels = {}
    for _, row in rows("qrels")():
        qrels.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
    queries = [(str(_id(row)), _text(place, row, "text")) for place, row in rows("queries")()]
    queries = [(query, text) for query, text in queries if query in qrels]
    return _task(name, part, _documents(rows("corpus")), queries, qrels, None, source, count)


def _mldr(
    name: str, part: str, rows: Callable[[str], Rows], source: str, count: int | None
) -> Task:
    """MLDR: every question names its own document."""
    queries, qrels = [], {}
    for place, row in rows("test")():
        query = str(row["query_id"])
        queries.append((query, _text(place, row, "query")))
        qrels[query] = {str(passage["docid"]): 1 for passage in row["positive_passages"]}
    return _task(name, part, _documents(rows("corpus")), queries, qrels, None, source, count)


def _narrativeqa(
    name: str, part: str, rows: Callable[[str], Rows], source: str, count: int | None
) -> Task:
    """NarrativeQA: a question is to find its story among the stories of the test set."""
    queries, qrels, stories = [], {}, {}
    for number, (place, row) in enumerate(rows("test")()):
        story = row["document"]
        queries.append((f"q{number}", _text(place, row["question"], "text")))
        qrels[f"q{number}"] = {str(story["id"]): 1}
        stories.setdefault(str(story["id"]), story["text"])

    def documents() -> Iterator[Record]:
        return (Record(i, text, n) for n, (i, text) in enumerate(stories.items(), start=1))

    return _task(name, "en", documents, queries, qrels, None, source, count)


def _mkqa(
    name: str, part: str, rows: Callable[[str], Rows], source: str, count: int | None
) -> Task:
    """MKQA: questions in `part`, English answers to find in English passages (BEIR's nq).

    Of a question's answers those that are unanswerable, yes or no, or long do not count; a
    question without any other is dropped (6,619 of 10,000 remain).
    """
    queries, accepted = [], {}
    for place, row in rows("questions")():
        kept = [a for a in row["answers"]["en"] if _answer_type(a) not in UNUSED_ANSWERS]
        if not kept:
            continue
        texts = [text for a in kept for text in (a.get("text"), *(a.get("aliases") or ()))]
        query = str(row["example_id"])
        queries.append((query, _text(place, row["queries"], part)))
        accepted[query] = [text for text in dict.fromkeys(texts) if text]
    join = lambda title, text: plain(f"{title}\n{text}")  # noqa: E731
    documents = _documents(rows("corpus"), join)
    return _task(name, part, documents, queries, {}, accepted, source, count)


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


def _documents(
    rows: Rows, join: Callable[[str, str], str] = lambda title, text: f"{title} {text}".strip()
) -> Callable[[], Iterator[Record]]:
    def documents() -> Iterator[Record]:
        for number, (place, row) in enumerate(rows(), start=1):
            text = row.get("text")
            if not isinstance(text, str):
                raise ValueError(f"{place}: a document needs a text")
            yield Record(str(_id(row)), join(row.get("title") or "", text), number)

    return documents


def _task(
    name: str,
    language: str,
    documents: Callable[[], Iterator[Record]],
    queries: list[tuple[str, str]],
    qrels: Qrels,
    answers: dict[str, list[str]] | None,
    source: str,
    count: int | None,
) -> Task:
    if not queries:
        raise ValueError(f"{name}: no judged query")
    query_set = QuerySet(
        name="",
        language=language,
        ids=[query for query, _ in queries],
        texts=[text for _, text in queries],
        languages=[language] * len(queries),
        qrels=qrels,
        answers=answers,
    )
    return make_task(
        name,
        documents,
        [limit(query_set, count)],
        corpus=f"the corpus of {name}",
        protocol=PROTOCOLS[name.split("/")[0]],
        source=source,
    )


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
