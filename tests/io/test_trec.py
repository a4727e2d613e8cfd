"""TREC runs and judgements: what is written is read back, errors name the line."""

import gzip

import ir_measures
import numpy as np
import pytest

from m3jax.evaluate.metrics import per_query
from m3jax.io.trec import read_qrels, read_run, write_run
from m3jax.search.hits import Hits


def test_a_run_survives_the_file(tmp_path):
    """Ties included: what is measured from the file is what was ranked."""
    hits = Hits(
        [np.array([2, 0, 1]), np.array([], int)],
        [np.full(3, 3, np.float32), np.zeros(0, np.float32)],
    )
    path = tmp_path / "deep" / "run.trec"
    write_run(path, ["q1", "q2"], ["a", "b", "c"], hits, "m3")
    run = read_run(path)
    assert sorted(run["q1"], key=lambda d: -run["q1"][d]) == ["c", "a", "b"] and "q2" not in run
    measured = per_query({"q1": {"a": 1}, "q2": {"a": 1}}, run, ["MRR"])["MRR"]
    assert measured == {"q1": 0.5, "q2": 0.0}


def test_qrels_in_both_formats_are_the_same(tmp_path):
    want = {"q1": {"d1": 1, "d2": 0}, "q2": {"d 3": 2}}
    beir = tmp_path / "test.tsv"
    beir.write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td 3\t2.0\n\n")
    trec = tmp_path / "qrels.trec.gz"
    trec.write_bytes(gzip.compress(b"q1\t0\td1\t1\nq1\tQ0\td2\t0\nq2\t0\td 3\t2\n"))
    assert read_qrels(beir) == read_qrels(trec) == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 0 d1 1\nq1 0 d2 high\n", ":2: expected `query document grade`"),
        ("q1 0 d1 1\nq1 0 d1 2\n", ":2: 'd1' is judged twice for query 'q1', as 1 and 2"),
        ("q1 0 d1 1 9\n", ":1: expected"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
    ],
)
def test_bad_qrels_name_the_line(tmp_path, text, message):
    (tmp_path / "q").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_qrels(tmp_path / "q")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 Q0 d1 1 0.5\n", ":1: a TREC run has 6 columns"),
        ("q1 Q0 d1 1 0.5 t\nq1 Q0 d1 2 0.4 t\n", ":2: 'd1' occurs twice"),
        ("q1 Q0 d1 1 nan t\n", ":1: a score must be a finite number, got 'nan'"),
        ("", "holds no result"),
    ],
)
def test_bad_runs_name_the_line(tmp_path, text, message):
    (tmp_path / "r").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "r")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_run(tmp_path / "none")


def test_a_run_keeps_its_ranking_in_every_evaluator(tmp_path):
    """Equal scores: trec_eval would sort by document name, backwards."""
    hits = Hits([np.array([2, 0, 1])], [np.array([1.0, 1.0, 1.0], np.float32)])
    assert write_run(tmp_path / "a" / "run", ["q"], ["a", "b", "c"], hits, "t") == 3
    rows = [line.split() for line in (tmp_path / "a" / "run").read_text().splitlines()]
    assert [(row[2], row[3]) for row in rows] == [("c", "1"), ("a", "2"), ("b", "3")]
    written = [np.float32(row[4]) for row in rows]
    assert written[0] == 1 and written[0] > written[1] > written[2] > 0.9999997
    qrels = [ir_measures.Qrel("q", "a", 1)]
    measured = ir_measures.calc_aggregate(
        [ir_measures.RR @ 10], qrels, ir_measures.read_trec_run(str(tmp_path / "a" / "run"))
    )
    assert measured[ir_measures.RR @ 10] == 0.5
    with pytest.raises(ValueError, match="cannot hold the id 'd 1'"):
        write_run(tmp_path / "b", ["q"], ["a", "b", "d 1"], hits, "t")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_judgements_in_both_forms(tmp_path):
    (tmp_path / "beir.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td 1\t2\n\nq2\td2\t0\n")
    assert read_qrels(tmp_path / "beir.tsv") == {"q1": {"d 1": 2}, "q2": {"d2": 0}}
    (tmp_path / "trec").write_text("q1 0 d1 1\nq1 0 d2 -1\n")
    assert read_qrels(tmp_path / "trec") == {"q1": {"d1": 1, "d2": -1}}
    (tmp_path / "bad").write_text("q1 0 d1 1\nq1 0 d2 good\n")
    with pytest.raises(ValueError, match="bad:2: expected"):
        read_qrels(tmp_path / "bad")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match="holds no judgements"):
        read_qrels(tmp_path / "empty")
