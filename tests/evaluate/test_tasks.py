"""Tasks from directories; united tasks with one corpus, families of translations."""

import re

import pytest
from support.task_files import (
    DOCUMENTS,
    HEADER,
    write,
    write_real_task,
    write_task,
    write_translated_tasks,
)

from m3jax.evaluate.benchmarks import load_tasks
from m3jax.evaluate.options import EvaluationOptions
from m3jax.evaluate.run import evaluate_model
from m3jax.evaluate.tasks import read_tasks, unite


def test_united_tasks_equal_one_corpus_written_out(tiny, tmp_path, encoded):
    """Vectors of the parts are used; a copy of a relevant text is relevant in any corpus."""
    for name in ("a", "b"):
        write_real_task(tmp_path / "tasks" / name)
    half = [{"_id": f"d{i}", "text": t} for i, t in enumerate(DOCUMENTS) if i % 2]
    write(tmp_path / "tasks" / "b" / "corpus.jsonl", half)
    tasks = read_tasks(tmp_path / "tasks")
    evaluate_model(tiny, tasks, tmp_path / "out")
    encoded.clear()
    united = evaluate_model(tiny, unite(tasks), tmp_path / "out")
    assert not encoded

    whole = [
        row | {"_id": f"{name}:{row['_id']}"}
        for name, rows in (
            ("a", [{"_id": f"d{i}", "text": t} for i, t in enumerate(DOCUMENTS)]),
            ("b", half),
        )
        for row in rows
    ]
    write(tmp_path / "one" / "corpus.jsonl", whole)
    lines = (tmp_path / "tasks" / "a" / "queries.jsonl").read_text()
    (tmp_path / "one" / "queries.jsonl").write_text(lines)
    places = {text: [row["_id"] for row in whole if row["text"] == text] for text in DOCUMENTS}
    graded = [(i, i, 2) for i in range(4, len(DOCUMENTS))]
    graded += [(i, (i + 1) % 4, 1) for i in range(4, len(DOCUMENTS))]
    judged = "".join(
        f"q{q}\t{number}\t{grade}\n" for q, d, grade in graded for number in places[DOCUMENTS[d]]
    )
    write(tmp_path / "one" / "qrels" / "test.tsv", HEADER + judged)
    for want in evaluate_model(tiny, read_tasks(tmp_path / "one"), tmp_path / "out"):
        (got,) = [r for r in united if (r.task, r.method) == ("tasks/a", want.method)]
        assert got.measures == pytest.approx(want.measures), want.method


def test_translations_of_relevant_documents_are_excluded_in_translated_families(tiny, tmp_path):
    """They count neither as relevant nor as not relevant."""
    write_translated_tasks(tmp_path / "both")
    tasks = read_tasks(tmp_path / "both")
    options = EvaluationOptions(methods=("bm25", "dense", "all"))

    def ranks(translated):
        results = evaluate_model(tiny, unite(tasks, translated), tmp_path / "out", options)
        return {(r.task, r.method): r.measures["MRR@10"] for r in results}

    plain, excluded = ranks(()), ranks([("both",)])
    assert ranks([("others",)]) == plain
    for method in options.methods:
        assert plain["both/en", method] == excluded["both/en", method] == 1
        assert plain["both/xx", method] <= 0.5  # the English text is first
        assert excluded["both/xx", method] == 1


def test_a_directory_is_a_task(tmp_path):
    write_task(tmp_path / "toy")
    (task,) = read_tasks(tmp_path / "toy")
    assert (task.name, task.family, task.warnings) == ("toy", "toy", ())
    assert task.document_ids == [f"d{i}" for i in range(6)]
    assert [r.text for r in task.documents()][:2] == ["text 0 of toy", "Title 1 text 1 of toy"]
    assert list(task.documents()) == list(task.documents())  # it can be read again
    (queries,) = task.query_sets
    assert queries.ids == ["q0", "q1", "q2"]  # q3 has no judgement
    assert queries.qrels == {f"q{i}": {f"d{i}": 1} for i in range(3)}


def test_several_query_sets_share_a_corpus(tmp_path):
    write_task(tmp_path / "cross", queries=("de", "pt-BR"))
    (task,) = read_tasks(tmp_path / "cross")
    assert [(s.name, s.language, s.ids[0]) for s in task.query_sets] == [
        ("de", "de", "q0de"),
        ("pt-BR", "pt-BR", "q0pt-BR"),
    ]


def test_folders_hold_families_of_tasks(tmp_path):
    for name in ("squad/en", "squad/de", "cross"):
        write_task(tmp_path / "eval" / name, suffix=".jsonl")
    names = [(t.name, t.family) for t in read_tasks(tmp_path / "eval")]
    assert names == [("cross", "cross"), ("squad/de", "squad"), ("squad/en", "squad")]
    assert [t.name for t in read_tasks(tmp_path / "eval" / "squad")] == ["squad/de", "squad/en"]
    assert [t.name for t in read_tasks(tmp_path / "eval" / "squad" / "en")] == ["squad/en"]
    assert [t.name for t in read_tasks(tmp_path / "eval" / "cross")] == ["cross"]


def test_different_corpora_have_different_digests(tmp_path):
    write_task(tmp_path / "a" / "same")
    write_task(tmp_path / "b" / "same", suffix=".jsonl")
    write_task(tmp_path / "c" / "same", documents=7)
    one, two, three = (read_tasks(tmp_path / n / "same")[0].digest for n in "abc")
    assert one == two != three


def test_a_sample_of_queries_is_always_the_same(tmp_path):
    write_task(tmp_path / "toy")
    first, again = (read_tasks(tmp_path / "toy", max_queries=2)[0] for _ in range(2))
    assert first.query_sets == again.query_sets
    (kept,) = first.query_sets
    assert len(kept.ids) == len(kept.texts) == 2 and set(kept.qrels) == set(kept.ids)
    assert kept.ids == sorted(kept.ids)


def test_judgements_of_absent_documents_are_counted(tmp_path, caplog):
    write_task(tmp_path / "toy")
    write(
        tmp_path / "toy" / "qrels" / "test.tsv",
        HEADER + "q0\td0\t1\nq0\tlost\t1\nq1\tlost\t1\nq1\tgone\t1\nghost\td1\t1\n",
    )
    (task,) = read_tasks(tmp_path / "toy")
    assert "names 2 documents that the corpus has not, such as 'gone'" in task.warnings[0]
    assert "judges 1 queries that queries.jsonl.gz has not; they count 0" in task.warnings[1]
    assert all(warning in caplog.text for warning in task.warnings)
    assert task.query_sets[0].qrels["q0"] == {"d0": 1, "lost": 1}


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        (
            "corpus.jsonl.gz",
            '{"_id": "a", "text": "x"}\n\n{"_id": "a", "text": "y"}\n',
            ValueError,
            "corpus.jsonl.gz:3: the id 'a' is already used on line 1",
        ),
        ("corpus.jsonl.gz", "\n", ValueError, "corpus.jsonl.gz holds no document"),
        ("corpus.jsonl.gz", '{"_id": "a"}\n', ValueError, ":1: 'text' is missing"),
        (
            "queries.jsonl.gz",
            '{"_id": "q0", "text": "x"}\n{"_id": "q1", "text": " "}\n',
            ValueError,
            "queries.jsonl.gz:2: query 'q1' has no text",
        ),
        ("queries.jsonl.gz", '{"text": "x"}\n', ValueError, ":1: a query needs an _id"),
        ("queries.jsonl.gz", '{"_id": "zz", "text": "x"}\n', ValueError, "judges no query of"),
        (
            "queries.jsonl.gz",
            '{"_id": "q0", "text": "x"}\n' * 2,
            ValueError,
            ":2: query 'q0' is already on line 1",
        ),
        (
            "queries.fr.jsonl.gz",
            '{"_id": "q0", "text": "x"}\n',
            FileNotFoundError,
            "test.fr.tsv is missing",
        ),
        (
            "qrels/test.tsv",
            HEADER + "q0\td0\n",
            ValueError,
            "test.tsv:2: expected `query document grade`",
        ),
    ],
)
def test_bad_tasks_are_refused(tmp_path, file, content, error, message):
    write_task(tmp_path / "toy")
    write(tmp_path / "toy" / file, content)
    with pytest.raises(error, match=re.escape(message)):
        read_tasks(tmp_path / "toy")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("corpus.jsonl.gz", "holds no corpus.jsonl or corpus.jsonl.gz"),
        ("queries.jsonl.gz", "neither queries.jsonl nor queries.jsonl.gz"),
        ("qrels/test.tsv", "has no test.tsv but dev.tsv; name the split"),
    ],
)
def test_missing_files_are_named(tmp_path, file, message):
    write_task(tmp_path / "toy")
    write(tmp_path / "toy" / "qrels" / "dev.tsv", HEADER + "q0\td0\t1\n")
    (tmp_path / "toy" / file).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        read_tasks(tmp_path / "toy")


def test_the_split_can_be_chosen(tmp_path):
    write_task(tmp_path / "toy")
    write(tmp_path / "toy" / "qrels" / "dev.tsv", HEADER + "q3\td0\t1\n")
    (task,) = load_tasks(str(tmp_path / "toy"), split="dev")
    assert task.query_sets[0].ids == ["q3"]
