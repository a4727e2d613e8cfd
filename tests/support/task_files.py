"""Evaluation tasks as files."""

import gzip
import json
from pathlib import Path

from support.tiny import TEXTS

HEADER = "query-id\tcorpus-id\tscore\n"


def write(path, rows):
    """Rows as JSON Lines (.gz or not), or a text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = rows if isinstance(rows, str) else "".join(json.dumps(r) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_task(folder, *, queries=("",), documents=6, suffix=".jsonl.gz"):
    write(
        folder / f"corpus{suffix}",
        [
            {"_id": f"d{i}", "title": f"Title {i}" * (i % 2), "text": f"text {i} of {folder.name}"}
            for i in range(documents)
        ],
    )
    for name in queries:
        dot = f".{name}" if name else ""
        write(
            folder / f"queries{dot}{suffix}",
            [{"_id": f"q{i}{name}", "text": f"question {i}"} for i in range(4)],
        )
        judged = "".join(f"q{i}{name}\td{i}\t1\n" for i in range(3))
        write(folder / "qrels" / f"test{dot}.tsv", HEADER + judged)


MKQA = [
    {
        "example_id": 1,
        "query": "who",
        "queries": {"en": "who", "de": "Wer?"},
        "answers": {
            "en": [
                {"type": "entity", "entity": "Q1", "text": "Ada Lovelace", "aliases": ["Ada Byron"]}
            ],
            "de": [{"type": "entity", "text": "x"}],
        },
    },
    {
        "example_id": 2,
        "query": "is",
        "queries": {"en": "is", "de": "Ist?"},
        "answers": {"en": [{"type": "binary", "text": "yes"}]},
    },
    {
        "example_id": 3,
        "query": "why",
        "queries": {"en": "why", "de": "Warum?"},
        "answers": {"en": [{"type": "long_answer", "text": None}]},
    },
    {
        "example_id": 4,
        "query": "?",
        "queries": {"en": "?", "de": "Was?"},
        "answers": {"en": [{"type": "unanswerable", "text": None}]},
    },
    {
        "example_id": 5,
        "query": "when",
        "queries": {"en": "when", "de": "Wann?"},
        "answers": {
            "en": [
                {"type": "date", "text": "1843", "aliases": []},
                {"type": "unanswerable", "text": None},
            ]
        },
    },
]
DOCUMENTS = [text for text in TEXTS if text.strip()]


def write_real_task(folder, names=("",)):
    """Tasks over the odd texts of support.tiny: each asks for itself by its first words."""
    write(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": t} for i, t in enumerate(DOCUMENTS)])
    for name in names:
        dot = f".{name}" if name else ""
        rows = [
            {"_id": f"q{i}", "text": f"{' '.join(t.split()[:2])} {name}".strip()}
            for i, t in enumerate(DOCUMENTS)
        ]
        write(folder / f"queries{dot}.jsonl", rows)
        judged = "".join(f"q{i}\td{i}\t2\nq{i}\td{(i + 1) % 4}\t1\n" for i in range(4, len(rows)))
        write(folder / "qrels" / f"test{dot}.tsv", HEADER + judged)


def write_translated_tasks(folder: Path) -> None:
    """The same ids in two languages, one question that is nearer to the first."""
    for name, mark in (("en", ""), ("xx", " ...")):
        rows = [{"_id": f"d{i}", "text": t + mark} for i, t in enumerate(DOCUMENTS)]
        write(folder / name / "corpus.jsonl", rows)
        write(folder / name / "queries.jsonl", [{"_id": "q", "text": DOCUMENTS[0]}])
        write(folder / name / "qrels" / "test.tsv", HEADER + "q\td0\t1\n")
