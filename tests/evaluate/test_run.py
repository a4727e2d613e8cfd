"""m3jax evaluate from end to end, on tasks written here, with a tiny random model."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.commands import environment
from support.task_files import HEADER, MKQA, write, write_task
from support.tiny import TEXTS

from m3jax import M3Embedder
from m3jax.cli.main import main
from m3jax.embed.brute_force import scan, top
from m3jax.embed.encode import TextEncoder
from m3jax.evaluate import averages, embed
from m3jax.evaluate.benchmarks import load_tasks
from m3jax.evaluate.metrics import as_run, means, per_query
from m3jax.evaluate.protocol import Settings
from m3jax.evaluate.report import markdown, report_of, write_report
from m3jax.evaluate.results import Result
from m3jax.evaluate.run import evaluate
from m3jax.evaluate.tasks import read_tasks, unite
from m3jax.io.trec import read_qrels
from m3jax.search.methods import METHODS, Depths

DOCUMENTS = [text for text in TEXTS if text.strip()]


def write_real_task(folder, names=("",)):
    """Tasks over the odd texts of support.tiny: each asks for itself by its first words."""
    write(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": t} for i, t in enumerate(DOCUMENTS)])
    for name in names:
        dot = f".{name}" if name else ""
        rows = [{"_id": f"q{i}", "text": f"{' '.join(t.split()[:2])} {name}".strip()}
                for i, t in enumerate(DOCUMENTS)]  # fmt: skip
        write(folder / f"queries{dot}.jsonl", rows)
        judged = "".join(f"q{i}\td{i}\t2\nq{i}\td{(i + 1) % 4}\t1\n" for i in range(4, len(rows)))
        write(folder / "qrels" / f"test{dot}.tsv", HEADER + judged)


@pytest.fixture
def encoded(monkeypatch):
    """Counts the texts that any model encodes."""
    texts = []
    original = TextEncoder.encode

    def counting(self, sentences, *args, **kwargs):
        sentences = list(sentences)
        texts.extend(sentences)
        return original(self, sentences, *args, **kwargs)

    monkeypatch.setattr(TextEncoder, "encode", counting)
    return texts


def run(*arguments, code=0):
    assert main(["evaluate", *map(str, arguments)]) == code


def test_all_methods_from_the_command_line(tiny_dir, tmp_path, encoded, capsys):
    for name in ("squad/en", "squad/de"):
        write_real_task(tmp_path / "tasks" / name)
    write_real_task(tmp_path / "tasks" / "cross", names=("fr", "zh"))
    command = ("--model", tiny_dir, "--task", tmp_path / "tasks", "--output", tmp_path / "out")
    run(*command)
    # The three corpora are the same, and so are the queries of the two monolingual tasks.
    assert len(encoded) == len(DOCUMENTS) + 3 * (len(DOCUMENTS) - 4)
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(document["results"]) == 4 * len(METHODS)
    assert {r["method"] for r in document["results"]} == set(METHODS)
    protocol = next(r["protocol"] for r in document["results"] if r["method"] == "all")
    assert protocol["depths"] == {"dense": 1000, "sparse": 1000, "rerank": 200}
    assert protocol["weights"] == {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}
    assert protocol["remove_self"] is False and protocol["query_prefix"] == ""
    assert (protocol["query_tokens"], protocol["passage_tokens"]) == (128, 128)
    assert protocol["pooling"] == "cls" and re.fullmatch("[0-9a-f]{16}", protocol["model_hash"])
    assert {"jax", "m3jax", "python"} <= set(protocol["versions"]) and protocol["machine"]
    assert set(document["averages"]["families"]["nDCG@10"]) == {"squad", "cross"}
    assert document["by_language"]["cross"].keys() == {"fr", "zh"}
    assert document["paper"]["averages"][0]["all"] == 71.5
    text = (tmp_path / "out" / "results.md").read_text()
    for expected in ("| **squad, mean of 2 tasks** |", "cross, mean of 2 sets", "arXiv 2402.03216",
                     "| miracl nDCG@10 | 31.9 | 69.2 |", "- remove_self: false"):  # fmt: skip
        assert expected in text
    assert (tmp_path / "out" / "results.png").read_bytes().startswith(b"\x89PNG")

    encoded.clear()
    capsys.readouterr()
    run(*command)
    assert not encoded and capsys.readouterr().out.count("kept") == 4 * len(METHODS)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == document


def test_rankings_and_averages_are_those_of_brute_force(tiny, tmp_path):
    for name in ("a/one", "a/two", "b"):
        write_real_task(tmp_path / "tasks" / name, names=("x", "y") if name == "b" else ("",))
    write(tmp_path / "tasks" / "a" / "two" / "qrels" / "test.tsv",
          HEADER + "q1\td3\t1\nq2\td2\t1\n")  # fmt: skip
    tasks = read_tasks(tmp_path / "tasks")
    settings = Settings(depths=Depths(rerank=5))
    results = evaluate(tiny, tasks, tmp_path / "out", settings)
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
            for method, values in (("multivector", scores["colbert"]), ("all", scores["all"])):
                orders[method] = [
                    sorted(sorted(some), key=lambda d, row=row: -row[d])
                    for some, row in zip(dense_top, values, strict=True)
                ]
            for method, order in orders.items():
                run = as_run(
                    (q, [f"d{i}" for i in some]) for q, some in zip(queries.ids, order, strict=True)
                )
                want = means(per_query(queries.qrels, run))
                (got,) = [r for r in results if (r.task, r.query_set, r.method)
                          == (task.name, queries.name, method)]  # fmt: skip
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


def write_parallel_tasks(folder: Path) -> None:
    """The same ids in two languages, one question that is nearer to the first."""
    for name, mark in (("en", ""), ("xx", " ...")):
        rows = [{"_id": f"d{i}", "text": t + mark} for i, t in enumerate(DOCUMENTS)]
        write(folder / name / "corpus.jsonl", rows)
        write(folder / name / "queries.jsonl", [{"_id": "q", "text": DOCUMENTS[0]}])
        write(folder / name / "qrels" / "test.tsv", HEADER + "q\td0\t1\n")


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


def test_adding_a_method_encodes_nothing_again(tiny, tmp_path, encoded):
    write_real_task(tmp_path / "task")
    tasks = read_tasks(tmp_path / "task")
    evaluate(tiny, tasks, tmp_path / "out", Settings(methods=("dense",)))
    assert len(encoded) == len(DOCUMENTS) + len(tasks[0].query_sets[0].ids)
    encoded.clear()
    evaluate(tiny, tasks, tmp_path / "out", Settings(methods=("dense", "all", "bm25")))
    assert not encoded
    # Where only BM25 is missing, texts are enough, though the vectors are gone.
    evaluate(tiny, tasks, tmp_path / "gone", Settings(methods=("dense",)))
    shutil.rmtree(tmp_path / "gone" / "embeddings")
    encoded.clear()
    evaluate(tiny, tasks, tmp_path / "gone", Settings(methods=("dense", "bm25")))
    assert not encoded
    # With "needed" only what the method uses is stored; then more has to be encoded.
    settings = Settings(methods=("dense",), store="needed")
    evaluate(tiny, tasks, tmp_path / "new", settings)
    assert len(list((tmp_path / "new" / "embeddings").glob("corpus-*-d"))) == 1
    encoded.clear()
    evaluate(tiny, tasks, tmp_path / "new", Settings(methods=("sparse",), store="needed"))
    assert encoded


def test_a_change_of_protocol_is_another_result(tiny, tmp_path, encoded):
    """Another prefix, length, number format or text must not meet old embeddings."""
    write_real_task(tmp_path / "task")
    tasks = read_tasks(tmp_path / "task")
    dense = Settings(methods=("dense",))
    (first,) = evaluate(tiny, tasks, tmp_path / "out", dense)
    prefixed = M3Embedder(
        tiny.encoder.model, query_instruction="query: ", passage_instruction="passage: "
    )
    encoded.clear()
    (second,) = evaluate(prefixed, tasks, tmp_path / "out", dense)
    assert {text[:7] for text in encoded} == {"query: ", "passage"}
    assert second.protocol["query_prefix"] == "query: " and first.values != second.values
    for settings in (
        Settings(methods=("dense",), passage_length=8),
        Settings(methods=("dense",), query_length=4),
        Settings(methods=("dense",), dtype="float16"),
    ):
        encoded.clear()
        evaluate(tiny, tasks, tmp_path / "out", settings)
        assert encoded
    encoded.clear()
    evaluate(tiny, tasks, tmp_path / "out", Settings(methods=("dense",), top_k=3))
    assert not encoded  # measured anew, from the same vectors
    write(tmp_path / "task" / "corpus.jsonl",
          [{"_id": f"d{i}", "text": t + " changed"} for i, t in enumerate(DOCUMENTS)])  # fmt: skip
    evaluate(tiny, read_tasks(tmp_path / "task"), tmp_path / "out", dense)
    assert len(encoded) == len(DOCUMENTS)


def test_a_stopped_run_goes_on(tiny, tmp_path, encoded):
    write_real_task(tmp_path / "task", names=("a", "b"))
    tasks = read_tasks(tmp_path / "task")
    seen = []

    def stop(result, kept):
        seen.append(result)
        if len(seen) == 3:
            raise KeyboardInterrupt

    settings = Settings(methods=("dense", "sparse"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny, tasks, tmp_path / "out", settings, tell=stop)
    encoded.clear()
    kept = []
    evaluate(tiny, tasks, tmp_path / "out", settings, tell=lambda result, old: kept.append(old))
    assert kept == [True, True, True, False] and not encoded
    damaged = next((tmp_path / "out" / "results").glob("*.json"))
    damaged.write_text("{")
    with pytest.raises(ValueError, match=f"{damaged.name} is damaged .*; delete it"):
        evaluate(tiny, tasks, tmp_path / "out", settings)


def test_a_document_with_the_querys_id_is_removed_on_request_only(tiny, tmp_path):
    write(tmp_path / "task" / "corpus.jsonl",
          [{"_id": f"x{i}", "text": t} for i, t in enumerate(DOCUMENTS)])  # fmt: skip
    write(tmp_path / "task" / "queries.jsonl", [{"_id": "x0", "text": DOCUMENTS[0]}])
    write(tmp_path / "task" / "qrels" / "test.tsv", HEADER + "x0\tx0\t1\n")
    tasks = read_tasks(tmp_path / "task")
    for method in ("bm25", "dense", "sparse"):
        values = [
            evaluate(tiny, tasks, tmp_path / "out", Settings(methods=(method,), remove_self=r))
            for r in (False, True)
        ]
        assert [v[0].measures["MRR@10"] > 0 for v in values] == [True, False]
        assert [v[0].protocol["remove_self"] for v in values] == [False, True]


def test_half_a_character_in_a_query_is_no_reason_to_stop(tiny, tmp_path):
    write_real_task(tmp_path / "task")
    queries = tmp_path / "task" / "queries.jsonl"
    queries.write_text(queries.read_text() + '{"_id": "half", "text": "cat \\ud83d"}\n')
    with open(tmp_path / "task" / "qrels" / "test.tsv", "a") as stream:
        stream.write("half\td1\t1\n")
    settings = Settings(methods=("bm25", "dense"))
    found = evaluate(tiny, read_tasks(tmp_path / "task"), tmp_path / "out", settings)
    assert all("half" in result.queries for result in found)


def test_mkqa_counts_passages_that_hold_an_answer(tiny, tmp_path):
    rows = json.loads(json.dumps(MKQA))
    rows[0]["answers"]["en"][0]["type"] = "entity"
    write(tmp_path / "mkqa.jsonl", rows)
    passages = ["Ada  Byron wrote.", "The year of 1843", "nothing", "Adam"]
    write(tmp_path / "nq" / "corpus.jsonl",
          [{"_id": f"n{i}", "title": "", "text": t} for i, t in enumerate(passages)])  # fmt: skip
    tasks = load_tasks("mkqa/en", data=str(tmp_path))
    results = evaluate(tiny, tasks, tmp_path / "out", Settings(methods=("dense", "multivector")))
    for result in results:  # all four passages are among the first 20
        assert result.measures == {"Recall@20": 1.0, "Recall@100": 1.0}
        assert result.primary == "Recall@100" and result.protocol["judged_by"] == "answers"
    (one,) = evaluate(tiny, tasks, tmp_path / "out", Settings(methods=("bm25",), top_k=1))
    assert set(one.values["Recall@20"]) <= {0.0, 1.0}
    text = markdown(report_of(results, averages.summarise(results)))
    assert "| mkqa/en |" in text and "Recall@100, in percent" in text


def test_the_paper_stands_beside_its_benchmarks(tmp_path):
    results = [
        Result(
            task=f"miracl/{language}", family="miracl", query_set="", language=language,
            method="dense", primary="nDCG@10", queries=["q1", "q2"], languages=[language] * 2,
            values={"nDCG@10": [0.5, 0.7], "Recall@100": [1.0, 0.9]},
            protocol={"warnings": ["beware"], "queries": {"sampled_from": None}}, seconds=0.0,
        )
        for language in ("ar", "de")
    ]  # fmt: skip
    write_report(tmp_path, results)
    text = (tmp_path / "results.md").read_text()
    assert "| miracl/ar | Dense | 60.0 | 78.4 | -18.4 |" in text
    theirs = (78.4 + 56.7) / 2  # of these two languages, not the paper's average of all
    assert f"| miracl, mean of 2 tasks | Dense | 60.0 | {theirs:.1f} | {60 - theirs:+.1f} |" in text
    assert "| 95.0 | 95.5 |" not in text  # Recall@100 is published over all languages only
    assert "- warning: beware" in text


def test_the_reference_codes_fusion_on_request(tiny, tmp_path):
    """With lists of two documents, one that a list lacks scores 0 there instead of its score."""
    write_real_task(tmp_path / "task")
    tasks = read_tasks(tmp_path / "task")
    found = []
    for compat in (None, "flagembedding"):
        settings = Settings(
            methods=("dense+sparse",), compat=compat, depths=Depths(dense=2, sparse=2, rerank=2)
        )
        found += evaluate(tiny, tasks, tmp_path / "out", settings)
    assert [r.protocol["compat"] for r in found] == [None, "flagembedding"]
    assert found[0].values != found[1].values


def test_bm25_over_words_needs_no_model(tmp_path, capsys):
    write_task(tmp_path / "toy")
    output = tmp_path / "out"
    run("--task", tmp_path / "toy", "--methods", "bm25", "--bm25", "words", "--output", output)
    assert "toy                      bm25          nDCG@10" in capsys.readouterr().out
    run("--task", tmp_path / "toy", "--methods", "bm25", "--output", output, code=1)
    assert "only BM25 over words works without a model" in capsys.readouterr().err


def test_stored_runs_are_measured_and_compared(tiny_dir, tmp_path, capsys):
    write_real_task(tmp_path / "task")
    output = tmp_path / "out"
    run("--model", tiny_dir, "--task", tmp_path / "task", "--methods", "bm25,dense", "--output",
        output, "--save-runs")  # fmt: skip
    want = {r["method"]: r["measures"] for r in json.loads((output / "results.json").read_text())
            ["results"]}  # fmt: skip
    files = {method: next((output / "runs").glob(f"task.{method}.*")) for method in want}
    capsys.readouterr()
    qrels = tmp_path / "task" / "qrels" / "test.tsv"
    run("--run", files["bm25"], files["dense"], "--qrels", qrels, "--output", tmp_path / "stored")
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "stored" / "results.json").read_text())
    for method, file in files.items():
        row = found["runs"][file.name]
        assert row["measures"] == pytest.approx(want[method])
        assert row["queries"] == len(read_qrels(qrels))
        assert f"| {file.name} | {100 * row['measures']['nDCG@10']:.2f}" in printed
    (pair,) = found["comparisons"]
    difference = want["bm25"]["nDCG@10"] - want["dense"]["nDCG@10"]
    assert pair["difference"] == pytest.approx(difference)
    run("--run", files["dense"], "--qrels", qrels, "--measures", "P@1,Success@5")
    assert "P@1 | Success@5" in capsys.readouterr().out


def test_queries_missing_from_a_stored_run(tmp_path, capsys):
    (tmp_path / "qrels.tsv").write_text(HEADER + "q1\ta\t1\nq2\ta\t1\n")
    (tmp_path / "run").write_text("q1 Q0 a 1 2.5 t\nq9 Q0 a 1 2 t\n")
    files = ("--qrels", tmp_path / "qrels.tsv", "--measures", "MRR", "--run", tmp_path / "run")
    run(*files)
    assert "| run | 50.00 [0.0, 100.0] | 2 | 1 | 1 |" in capsys.readouterr().out
    run(*files, "--skip-missing")
    assert "| run | 100.00 [100.0, 100.0] | 1 | 1 | 1 |" in capsys.readouterr().out
    # Runs that lack different queries have no pairs to compare, however many each has.
    judged = [f"q{i}\ta\t1\n" for i in range(6)]
    (tmp_path / "qrels.tsv").write_text(HEADER + "".join(judged))
    for name, lacks in (("run", 5), ("same", 5), ("other", 0)):
        lines = [f"q{i} Q0 {'ab'[i % 2]} 1 2.5 t\n" for i in range(6) if i != lacks]
        (tmp_path / name).write_text("".join(lines))
    for name, paired in (("same", True), ("other", False)):
        run(*files, tmp_path / name, "--skip-missing")
        assert ("Paired tests" in capsys.readouterr().out) == paired
    (tmp_path / "qrels.tsv").write_text(HEADER + "q7\ta\t1\n")
    run(*files, code=1)
    assert "judges none of the 5 queries" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "M", "--output", "o"], "name either tasks (--task) or stored runs (--run)"),
        (["--task", "nowhere", "--output", "o"], "no task 'nowhere'"),
        (["--task", "."], "--task needs --output"),
        (["--run", "r"], "--run needs --qrels"),
        (["--task", ".", "--output", "o", "--union", "--remove-self"], "--union gives"),
        (["--task", ".", "--output", "o", "--parallel", "a,b"], "--parallel is for --union"),
        (["--task", ".", "--output", "o", "--methods", "magic"], "method must be one of bm25"),
        (["--task", ".", "--output", "o", "--depths", "1,2"], "--depths needs three numbers"),
        (["--task", ".", "--output", "o", "--weights", "a"], "--weights needs numbers"),
        (["--task", ".", "--output", "o", "--top-k", "0"], "top_k must be at least 1"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    run(*arguments, code=1)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_translations_stand_aside_by_command(tiny_dir, tmp_path, capsys):
    write_parallel_tasks(tmp_path / "both")
    arguments = ["--model", tiny_dir, "--task", tmp_path / "both", "--output", tmp_path / "out",
                 "--methods", "bm25", "--measures", "MRR@10", "--union", "--parallel"]  # fmt: skip
    run(*arguments, "both")
    found = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [result["measures"]["MRR@10"] for result in found] == [1, 1]
    run(*arguments, "both,others", code=1)
    assert "no task is of 'others'; the families: both" in capsys.readouterr().err


def test_it_runs_as_a_command(tiny_dir, tmp_path):
    write_task(tmp_path / "toy")
    arguments = ["--model", tiny_dir, "--task", tmp_path / "toy", "--output", tmp_path / "out",
                 "--methods", "dense", "--pooling", "mean", "--query-prefix", "query: ",
                 "--measures", "P@1"]  # fmt: skip
    out = subprocess.run(
        [sys.executable, "-m", "m3jax", "evaluate", *map(str, arguments)],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert "toy                      dense         P@1" in out.stdout
    protocol = json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]["protocol"]
    assert protocol["pooling"] == "mean" and protocol["query_prefix"] == "query: "


def test_queries_are_searched_in_parts(tiny, tmp_path, monkeypatch):
    write_real_task(tmp_path / "task")
    tasks = read_tasks(tmp_path / "task")
    whole = evaluate(tiny, tasks, tmp_path / "one", Settings())
    monkeypatch.setattr(embed, "QUERY_SHARD", 3)
    parts = evaluate(tiny, tasks, tmp_path / "two", Settings())
    for a, b in zip(whole, parts, strict=True):
        assert a.queries == b.queries
        for name in a.values:
            np.testing.assert_allclose(a.values[name], b.values[name], atol=1e-12)


def test_cls_every_is_of_documents_and_part_of_the_protocol(tiny, tmp_path):
    write_real_task(tmp_path / "tasks")
    (task,) = read_tasks(tmp_path / "tasks")
    (plain,), (many,) = (
        evaluate(tiny, [task], tmp_path / "out", Settings(methods=("dense",), cls_every=every))
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
