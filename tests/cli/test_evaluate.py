"""`m3jax evaluate`: reports, stored runs, errors."""

import argparse
import json
import re
import subprocess
import sys

import pytest
from support.commands import environment
from support.task_files import (
    DOCUMENTS,
    HEADER,
    write_real_task,
    write_task,
    write_translated_tasks,
)

from m3jax.cli.evaluate import add_arguments
from m3jax.cli.main import main
from m3jax.io.trec import read_qrels
from m3jax.search.methods import METHODS


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
    for expected in (
        "| **squad, mean of 2 tasks** |",
        "cross, mean of 2 sets",
        "arXiv 2402.03216",
        "| miracl nDCG@10 | 31.9 | 69.2 |",
        "- remove_self: false",
    ):
        assert expected in text
    assert (tmp_path / "out" / "results.png").read_bytes().startswith(b"\x89PNG")

    encoded.clear()
    capsys.readouterr()
    run(*command)
    assert not encoded and capsys.readouterr().out.count("kept") == 4 * len(METHODS)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == document


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
    run(
        "--model",
        tiny_dir,
        "--task",
        tmp_path / "task",
        "--methods",
        "bm25,dense",
        "--output",
        output,
        "--save-runs",
    )
    want = {
        r["method"]: r["measures"]
        for r in json.loads((output / "results.json").read_text())["results"]
    }
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
        (["--task", ".", "--output", "o", "--union", "--remove-self"], "--union and --remove-self"),
        (
            ["--task", ".", "--output", "o", "--translated-families", "a,b"],
            "--translated-families needs",
        ),
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


def test_translations_are_excluded_by_command(tiny_dir, tmp_path, capsys):
    write_translated_tasks(tmp_path / "both")
    arguments = [
        "--model",
        tiny_dir,
        "--task",
        tmp_path / "both",
        "--output",
        tmp_path / "out",
        "--methods",
        "bm25",
        "--measures",
        "MRR@10",
        "--union",
        "--translated-families",
    ]
    run(*arguments, "both")
    found = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [result["measures"]["MRR@10"] for result in found] == [1, 1]
    run(*arguments, "both,others", code=1)
    assert "no task is of 'others'; the families: both" in capsys.readouterr().err


def test_former_flags_are_accepted_with_a_warning(capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    former = {
        "--query-prefix": "--query-instruction",
        "--passage-prefix": "--passage-instruction",
        "--embedding-dtype": "--storage-dtype",
        "--parallel": "--translated-families",
        "--source": "--from",
    }
    values = dict(zip(former, ("q: ", "p: ", "int8", "a,b", "hub"), strict=True))
    options = parser.parse_args([part for pair in values.items() for part in pair])
    warnings = [f"m3jax: warning: {old} is deprecated, use {new}" for old, new in former.items()]
    assert capsys.readouterr().err.splitlines() == warnings
    assert (options.query_instruction, options.passage_instruction) == ("q: ", "p: ")
    assert (options.storage_dtype, options.source) == ("int8", "hub")
    assert options.translated_families == ["a,b"]
    assert not any(old in parser.format_help().split() for old in former)


def test_it_runs_as_a_command(tiny_dir, tmp_path):
    write_task(tmp_path / "toy")
    arguments = [
        "--model",
        tiny_dir,
        "--task",
        tmp_path / "toy",
        "--output",
        tmp_path / "out",
        "--methods",
        "dense",
        "--pooling",
        "mean",
        "--query-instruction",
        "query: ",
        "--measures",
        "P@1",
    ]
    out = subprocess.run(
        [sys.executable, "-m", "m3jax", "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert out.returncode == 0, out.stderr
    assert "toy                      dense         P@1" in out.stdout
    protocol = json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]["protocol"]
    assert protocol["pooling"] == "mean" and protocol["query_prefix"] == "query: "
