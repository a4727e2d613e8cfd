"""United tasks: one corpus of several, and families in parallel languages."""

import pytest
from support.task_files import DOCUMENTS, HEADER, write, write_parallel_tasks, write_real_task

from m3jax.evaluate.protocol import Settings
from m3jax.evaluate.run import evaluate
from m3jax.evaluate.tasks import read_tasks, unite


def test_united_tasks_equal_one_corpus_written_out(tiny, tmp_path, encoded):
    """Vectors of the parts serve; a copy of the relevant text is relevant wherever it stands."""
    for name in ("a", "b"):
        write_real_task(tmp_path / "tasks" / name)
    half = [{"_id": f"d{i}", "text": t} for i, t in enumerate(DOCUMENTS) if i % 2]
    write(tmp_path / "tasks" / "b" / "corpus.jsonl", half)
    tasks = read_tasks(tmp_path / "tasks")
    evaluate(tiny, tasks, tmp_path / "out")
    encoded.clear()
    united = evaluate(tiny, unite(tasks), tmp_path / "out")
    assert not encoded

    whole = [row | {"_id": f"{name}:{row['_id']}"} for name, rows in (
        ("a", [{"_id": f"d{i}", "text": t} for i, t in enumerate(DOCUMENTS)]), ("b", half),
    ) for row in rows]  # fmt: skip
    write(tmp_path / "one" / "corpus.jsonl", whole)
    lines = (tmp_path / "tasks" / "a" / "queries.jsonl").read_text()
    (tmp_path / "one" / "queries.jsonl").write_text(lines)
    places = {text: [row["_id"] for row in whole if row["text"] == text] for text in DOCUMENTS}
    graded = [(i, i, 2) for i in range(4, len(DOCUMENTS))]
    graded += [(i, (i + 1) % 4, 1) for i in range(4, len(DOCUMENTS))]
    judged = "".join(f"q{q}\t{number}\t{grade}\n" for q, d, grade in graded
                     for number in places[DOCUMENTS[d]])  # fmt: skip
    write(tmp_path / "one" / "qrels" / "test.tsv", HEADER + judged)
    for want in evaluate(tiny, read_tasks(tmp_path / "one"), tmp_path / "out"):
        (got,) = [r for r in united if (r.task, r.method) == ("tasks/a", want.method)]
        assert got.measures == pytest.approx(want.measures), want.method


def test_translations_of_what_is_asked_for_stand_aside_where_families_are_parallel(tiny, tmp_path):
    """What answers as well in another language is neither right nor wrong."""
    write_parallel_tasks(tmp_path / "both")
    tasks = read_tasks(tmp_path / "both")
    settings = Settings(methods=("bm25", "dense", "all"))

    def ranks(parallel):
        results = evaluate(tiny, unite(tasks, parallel), tmp_path / "out", settings)
        return {(r.task, r.method): r.measures["MRR@10"] for r in results}

    plain, aside = ranks(()), ranks([("both",)])
    assert ranks([("others",)]) == plain
    for method in settings.methods:
        assert plain["both/en", method] == aside["both/en", method] == 1
        assert plain["both/xx", method] <= 0.5  # the English text stands first
        assert aside["both/xx", method] == 1
