"""Evaluation runs on small tasks with a tiny random model: rankings, caches, protocols."""

import json
import shutil

import numpy as np
import pytest
from support.task_files import DOCUMENTS, HEADER, MKQA, write, write_real_task

from m3jax import M3Embedder
from m3jax.embed.brute_force import scan, top
from m3jax.evaluate import averages, embedding_store
from m3jax.evaluate.benchmarks import load_tasks
from m3jax.evaluate.metrics import as_run, means, per_query
from m3jax.evaluate.options import EvaluationOptions
from m3jax.evaluate.report import markdown, report_of
from m3jax.evaluate.run import evaluate_model
from m3jax.evaluate.tasks import read_tasks
from m3jax.search.methods import Depths


def test_rankings_and_averages_equal_brute_force(tiny, tmp_path):
    for name in ("a/one", "a/two", "b"):
        write_real_task(tmp_path / "tasks" / name, names=("x", "y") if name == "b" else ("",))
    write(
        tmp_path / "tasks" / "a" / "two" / "qrels" / "test.tsv", HEADER + "q1\td3\t1\nq2\td2\t1\n"
    )
    tasks = read_tasks(tmp_path / "tasks")
    options = EvaluationOptions(depths=Depths(rerank_top_k=5))
    results = evaluate_model(tiny, tasks, tmp_path / "out", options)
    (documents,) = tiny.encode_stream(DOCUMENTS)
    for task in tasks:
        for queries in task.query_sets:
            scores = scan(next(tiny.encode_stream(queries.texts)), documents)
            dense_top = [top(row, 5) for row in scores["dense"]]
            orders = {
                "dense": [top(row, 99) for row in scores["dense"]],
                "sparse": [[d for d in top(row, 99) if row[d] > 0] for row in scores["sparse"]],
                "dense+sparse": [top(row, 99) for row in scores["dense"] + 0.3 * scores["sparse"]],
            }
            for method, values in (("colbert", scores["colbert"]), ("all", scores["all"])):
                orders[method] = [
                    sorted(sorted(some), key=lambda d, row=row: -row[d])
                    for some, row in zip(dense_top, values, strict=True)
                ]
            for method, order in orders.items():
                run = as_run(
                    (q, [f"d{i}" for i in some]) for q, some in zip(queries.ids, order, strict=True)
                )
                want = means(per_query(queries.qrels, run))
                (got,) = [
                    r
                    for r in results
                    if (r.task, r.query_set, r.method) == (task.name, queries.name, method)
                ]
                assert got.measures == pytest.approx(want), (task.name, method)
    summary = averages.summarise(results)
    values = {(r.task, r.query_set): r.measures["nDCG@10"] for r in results if r.method == "dense"}
    a = (values["a/one", ""] + values["a/two", ""]) / 2
    b = (values["b", "x"] + values["b", "y"]) / 2
    assert summary.families["nDCG@10"]["a"]["dense"].value == pytest.approx(a)
    assert summary.tasks["nDCG@10"]["b"]["dense"].value == pytest.approx(b)
    level = summary.overall["nDCG@10"]["all"]["dense"]
    assert level.value == pytest.approx((a + b) / 2)
    low, high = level.as_json()["interval"]
    assert low < level.value < high


def test_adding_a_method_encodes_nothing_again(tiny, tmp_path, encoded):
    write_real_task(tmp_path / "task")
    tasks = read_tasks(tmp_path / "task")
    evaluate_model(tiny, tasks, tmp_path / "out", EvaluationOptions(methods=("dense",)))
    assert len(encoded) == len(DOCUMENTS) + len(tasks[0].query_sets[0].ids)
    encoded.clear()
    evaluate_model(
        tiny, tasks, tmp_path / "out", EvaluationOptions(methods=("dense", "all", "bm25"))
    )
    assert not encoded
    # BM25 alone needs only texts: deleted vectors are not encoded again.
    evaluate_model(tiny, tasks, tmp_path / "gone", EvaluationOptions(methods=("dense",)))
    shutil.rmtree(tmp_path / "gone" / "embeddings")
    encoded.clear()
    evaluate_model(tiny, tasks, tmp_path / "gone", EvaluationOptions(methods=("dense", "bm25")))
    assert not encoded
    # With "needed" only the method's representations are stored; another one encodes again.
    options = EvaluationOptions(methods=("dense",), store="needed")
    evaluate_model(tiny, tasks, tmp_path / "new", options)
    assert len(list((tmp_path / "new" / "embeddings").glob("corpus-*-d"))) == 1
    encoded.clear()
    evaluate_model(
        tiny, tasks, tmp_path / "new", EvaluationOptions(methods=("sparse",), store="needed")
    )
    assert encoded


def test_changed_protocols_have_separate_results(tiny, tmp_path, encoded):
    """With another instruction, length, number format or text, old embeddings are not used."""
    write_real_task(tmp_path / "task")
    tasks = read_tasks(tmp_path / "task")
    dense = EvaluationOptions(methods=("dense",))
    (first,) = evaluate_model(tiny, tasks, tmp_path / "out", dense)
    prefixed = M3Embedder(
        tiny.encoder.model, query_instruction="query: ", passage_instruction="passage: "
    )
    encoded.clear()
    (second,) = evaluate_model(prefixed, tasks, tmp_path / "out", dense)
    assert {text[:7] for text in encoded} == {"query: ", "passage"}
    assert second.protocol["query_prefix"] == "query: " and first.values != second.values
    for options in (
        EvaluationOptions(methods=("dense",), passage_length=8),
        EvaluationOptions(methods=("dense",), query_length=4),
        EvaluationOptions(methods=("dense",), storage_dtype="float16"),
    ):
        encoded.clear()
        evaluate_model(tiny, tasks, tmp_path / "out", options)
        assert encoded
    encoded.clear()
    evaluate_model(tiny, tasks, tmp_path / "out", EvaluationOptions(methods=("dense",), top_k=3))
    assert not encoded  # searched again, in the same vectors
    write(
        tmp_path / "task" / "corpus.jsonl",
        [{"_id": f"d{i}", "text": t + " changed"} for i, t in enumerate(DOCUMENTS)],
    )
    evaluate_model(tiny, read_tasks(tmp_path / "task"), tmp_path / "out", dense)
    assert len(encoded) == len(DOCUMENTS)


def test_an_interrupted_evaluation_continues(tiny, tmp_path, encoded):
    write_real_task(tmp_path / "task", names=("a", "b"))
    tasks = read_tasks(tmp_path / "task")
    seen = []

    def stop(result, stored):
        seen.append(result)
        if len(seen) == 3:
            raise KeyboardInterrupt

    options = EvaluationOptions(methods=("dense", "sparse"))
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(tiny, tasks, tmp_path / "out", options, progress=stop)
    encoded.clear()
    kept = []
    evaluate_model(
        tiny, tasks, tmp_path / "out", options, progress=lambda result, old: kept.append(old)
    )
    assert kept == [True, True, True, False] and not encoded
    damaged = next((tmp_path / "out" / "results").glob("*.json"))
    damaged.write_text("{")
    with pytest.raises(ValueError, match=f"{damaged.name} is damaged .*; delete it"):
        evaluate_model(tiny, tasks, tmp_path / "out", options)


def test_a_document_with_the_querys_id_is_removed_on_request_only(tiny, tmp_path):
    write(
        tmp_path / "task" / "corpus.jsonl",
        [{"_id": f"x{i}", "text": t} for i, t in enumerate(DOCUMENTS)],
    )
    write(tmp_path / "task" / "queries.jsonl", [{"_id": "x0", "text": DOCUMENTS[0]}])
    write(tmp_path / "task" / "qrels" / "test.tsv", HEADER + "x0\tx0\t1\n")
    tasks = read_tasks(tmp_path / "task")
    for method in ("bm25", "dense", "sparse"):
        values = [
            evaluate_model(
                tiny, tasks, tmp_path / "out", EvaluationOptions(methods=(method,), remove_self=r)
            )
            for r in (False, True)
        ]
        assert [v[0].measures["MRR@10"] > 0 for v in values] == [True, False]
        assert [v[0].protocol["remove_self"] for v in values] == [False, True]


def test_a_lone_surrogate_in_a_query_is_accepted(tiny, tmp_path):
    write_real_task(tmp_path / "task")
    queries = tmp_path / "task" / "queries.jsonl"
    queries.write_text(queries.read_text() + '{"_id": "half", "text": "cat \\ud83d"}\n')
    with open(tmp_path / "task" / "qrels" / "test.tsv", "a") as stream:
        stream.write("half\td1\t1\n")
    options = EvaluationOptions(methods=("bm25", "dense"))
    found = evaluate_model(tiny, read_tasks(tmp_path / "task"), tmp_path / "out", options)
    assert all("half" in result.queries for result in found)


def test_mkqa_counts_passages_that_contain_an_answer(tiny, tmp_path):
    rows = json.loads(json.dumps(MKQA))
    rows[0]["answers"]["en"][0]["type"] = "entity"
    write(tmp_path / "mkqa.jsonl", rows)
    passages = ["Ada  Byron wrote.", "The year of 1843", "nothing", "Adam"]
    write(
        tmp_path / "nq" / "corpus.jsonl",
        [{"_id": f"n{i}", "title": "", "text": t} for i, t in enumerate(passages)],
    )
    tasks = load_tasks("mkqa/en", data=str(tmp_path))
    results = evaluate_model(
        tiny, tasks, tmp_path / "out", EvaluationOptions(methods=("dense", "colbert"))
    )
    for result in results:  # all four passages are among the first 20
        assert result.measures == {"Recall@20": 1.0, "Recall@100": 1.0}
        assert result.primary == "Recall@100" and result.protocol["judged_by"] == "answers"
    (one,) = evaluate_model(
        tiny, tasks, tmp_path / "out", EvaluationOptions(methods=("bm25",), top_k=1)
    )
    assert set(one.values["Recall@20"]) <= {0.0, 1.0}
    text = markdown(report_of(results, averages.summarise(results)))
    assert "| mkqa/en |" in text and "Recall@100, in percent" in text


def test_flagembedding_fusion(tiny, tmp_path):
    """With lists of two documents, one that a list lacks scores 0 there instead of its score."""
    write_real_task(tmp_path / "task")
    tasks = read_tasks(tmp_path / "task")
    found = []
    for compat in (None, "flagembedding"):
        options = EvaluationOptions(
            methods=("dense+sparse",),
            compat=compat,
            depths=Depths(dense=2, sparse=2, rerank_top_k=2),
        )
        found += evaluate_model(tiny, tasks, tmp_path / "out", options)
    assert [r.protocol["compat"] for r in found] == [None, "flagembedding"]
    assert found[0].values != found[1].values


def test_queries_are_searched_in_chunks(tiny, tmp_path, monkeypatch):
    write_real_task(tmp_path / "task")
    tasks = read_tasks(tmp_path / "task")
    whole = evaluate_model(tiny, tasks, tmp_path / "one", EvaluationOptions())
    monkeypatch.setattr(embedding_store, "QUERY_SHARD", 3)
    parts = evaluate_model(tiny, tasks, tmp_path / "two", EvaluationOptions())
    for a, b in zip(whole, parts, strict=True):
        assert a.queries == b.queries
        for name in a.values:
            np.testing.assert_allclose(a.values[name], b.values[name], atol=1e-12)


def test_cls_every_applies_to_documents_and_is_in_the_protocol(tiny, tmp_path):
    write_real_task(tmp_path / "tasks")
    (task,) = read_tasks(tmp_path / "tasks")
    (plain,), (many,) = (
        evaluate_model(
            tiny, [task], tmp_path / "out", EvaluationOptions(methods=("dense",), cls_every=every)
        )
        for every in (None, 4)
    )
    assert "cls_every" not in plain.protocol and many.protocol["cls_every"] == 4
    documents = tiny.encode(DOCUMENTS, cls_every=4)["dense_vecs"]
    ids = task.query_sets[0].ids
    queries = tiny.encode_queries(task.query_sets[0].texts)["dense_vecs"]
    scores = queries @ documents.T
    qrels = task.query_sets[0].qrels
    best = [qrels[q].get(f"d{int(row.argmax())}", 0) for q, row in zip(ids, scores, strict=True)]
    reciprocal = dict(zip(many.queries, many.values["MRR@10"], strict=True))
    assert [reciprocal[q] == 1.0 for q in ids] == [grade > 0 for grade in best]
    assert plain.values != many.values
