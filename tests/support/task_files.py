"""Evaluation tasks as files."""

import gzip
import json

HEADER = "query-id\tcorpus-id\tscore\n"


def write(path, rows):
    """Rows as JSON Lines (.gz or not), or a text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = rows if isinstance(rows, str) else "".join(json.dumps(r) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_task(folder, *, queries=("",), documents=6, suffix=".jsonl.gz"):
    write(folder / f"corpus{suffix}", [
        {"_id": f"d{i}", "title": f"Title {i}" * (i % 2), "text": f"text {i} of {folder.name}"}
        for i in range(documents)
    ])  # fmt: skip
    for name in queries:
        dot = f".{name}" if name else ""
        write(folder / f"queries{dot}{suffix}", [
            {"_id": f"q{i}{name}", "text": f"question {i}"} for i in range(4)
        ])  # fmt: skip
        judged = "".join(f"q{i}{name}\td{i}\t1\n" for i in range(3))
        write(folder / "qrels" / f"test{dot}.tsv", HEADER + judged)


MKQA = [
    {"example_id": 1, "query": "who", "queries": {"en": "who", "de": "Wer?"},
     "answers": {"en": [{"type": "entity", "entity": "Q1", "text": "Ada Lovelace",
                         "aliases": ["Ada Byron"]}], "de": [{"type": "entity", "text": "x"}]}},
    {"example_id": 2, "query": "is", "queries": {"en": "is", "de": "Ist?"},
     "answers": {"en": [{"type": "binary", "text": "yes"}]}},
    {"example_id": 3, "query": "why", "queries": {"en": "why", "de": "Warum?"},
     "answers": {"en": [{"type": "long_answer", "text": None}]}},
    {"example_id": 4, "query": "?", "queries": {"en": "?", "de": "Was?"},
     "answers": {"en": [{"type": "unanswerable", "text": None}]}},
    {"example_id": 5, "query": "when", "queries": {"en": "when", "de": "Wann?"},
     "answers": {"en": [{"type": "date", "text": "1843", "aliases": []},
                        {"type": "unanswerable", "text": None}]}},
]  # fmt: skip
