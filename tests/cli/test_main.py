"""The commands as a user types them: in a process of their own, output and exit code."""

import gzip
import json
import signal
import subprocess
import sys
import time

import pytest
from support.commands import environment, run

from m3jax.cli.main import COMMANDS, main
from m3jax.embed.corpus import read_manifest, read_shards

CONVERSIONS = ("from-hf", "to-hf", "extend-positions", "init-heads", "merge", "quantize", "verify")


@pytest.mark.parametrize("arguments", [[], *([c] for c in COMMANDS)], ids=str)
def test_help_teaches_by_example(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code == 0
    assert "examples:\n  m3jax " in capsys.readouterr().out


@pytest.mark.parametrize("action", CONVERSIONS)
def test_every_conversion_has_help(action, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", action, "--help"])
    assert stop.value.code == 0 and "m3jax convert" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["sing"],
        ["encode"],
        ["score", "--model", "x"],
        ["convert"],
        ["convert", "to-hf", "x"],
        ["info"],
        ["quickstart", "--hits", "many"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: m3jax" in capsys.readouterr().err


def test_score_shows_three_scores_their_sum_and_the_tokens(tiny_dir, tiny):
    out = run(
        "score",
        "--model",
        tiny_dir,
        "--query",
        "the cat",
        "--passage",
        "the dog sat on the cat",
        "--passage",
        "nothing",
        "--weights",
        "1,0.5,2",
    )
    scores = tiny.compute_score(("the cat", "the dog sat on the cat"))
    total = scores["dense"] + 0.5 * scores["sparse"] + 2 * scores["colbert"]
    for value in (scores["dense"], scores["sparse"], scores["colbert"], total):
        assert f"{value:.4f}" in out
    weights = [
        tiny.encode(text, return_sparse=True)["lexical_weights"]
        for text in ("the cat", "the dog sat on the cat")
    ]
    heaviest = max(
        (t for t in weights[0] if t in weights[1]), key=lambda t: weights[0][t] * weights[1][t]
    )
    piece = tiny.tokenizer.token(int(heaviest)).replace("▁", "")
    assert f"{piece} {weights[0][heaviest]:.2f} x {weights[1][heaviest]:.2f}" in out
    message = run(
        "score", "--model", tiny_dir, "--query", "a", "--passage", "b", "--weights", "1", code=1
    )
    assert "--weights needs numbers like 1,0.3,1" in message


def test_encode_from_a_file_and_from_standard_input(tiny_dir, tmp_path):
    lines = "".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in range(7))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    out = run(
        "encode",
        "--model",
        tiny_dir,
        "--input",
        tmp_path / "c.jsonl.gz",
        "--output",
        tmp_path / "a",
        "--shard-size",
        3,
    )
    assert "7 texts in 3 shards" in out
    run(
        "encode",
        "--model",
        tiny_dir,
        "--input",
        "-",
        "--output",
        tmp_path / "b",
        "--modes",
        "dense,sparse",
        stdin=lines,
    )
    ids = [i for part, _ in read_shards(tmp_path / "a") for i in part]
    assert ids == [f"d{i}" for i in range(7)]
    ((_, part),) = read_shards(tmp_path / "b")
    assert part.dense is not None and part.sparse is not None and part.colbert is None
    assert "7" in run("info", tmp_path / "b")


def test_encode_killed_and_run_again_loses_and_repeats_nothing(tiny_dir, tmp_path):
    """kill -9 while it reads: what was whole stays, the rest is made."""
    lines = [json.dumps({"_id": str(i), "text": f"text number {i}"}) + "\n" for i in range(40)]
    arguments = [
        "encode",
        "--model",
        str(tiny_dir),
        "--input",
        "-",
        "--output",
        str(tmp_path / "out"),
        "--shard-size",
        "8",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "m3jax", *arguments],
        stdin=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert process.stdin is not None
    process.stdin.writelines(lines[:20])
    process.stdin.flush()
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "shard-00001").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    finished = len(read_manifest(tmp_path / "out")["shards"])
    assert 1 <= finished < 5
    stamp = (tmp_path / "out" / "shard-00000" / "dense.npy").stat().st_mtime_ns
    assert "40 texts in 5 shards" in run(*arguments, stdin="".join(lines))
    assert (tmp_path / "out" / "shard-00000" / "dense.npy").stat().st_mtime_ns == stamp
    assert [i for part, _ in read_shards(tmp_path / "out") for i in part] == list(
        map(str, range(40))
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere.jsonl"], "no such file: nowhere.jsonl"),
        (["--input", "-"], "<stdin>:2: not valid JSON"),
        (["--input", "-", "--modes", "dense,psychic"], "modes must be some of dense"),
        (["--input", "-", "--max-length", "9999"], "max_length 9999"),
    ],
)
def test_encode_refuses_bad_input(tiny_dir, tmp_path, arguments, message):
    out = run(
        "encode",
        "--model",
        tiny_dir,
        "--output",
        tmp_path / "out",
        *arguments,
        stdin='{"text": "fine"}\n{"text": \n',
        code=1,
    )
    assert out.strip().startswith("m3jax: error:") and message in out
    manifest = tmp_path / "out" / "manifest.json"
    assert not manifest.exists() or not read_manifest(tmp_path / "out")["complete"]


def test_convert_there_and_back_and_verify(tiny_dir, tmp_path, capsys):
    def said(*arguments, code=0) -> str:
        assert main([str(argument) for argument in arguments]) == code
        return "".join(capsys.readouterr())

    said("convert", "from-hf", tiny_dir, tmp_path / "ours")
    said("convert", "to-hf", tmp_path / "ours", tmp_path / "hf", "--dtype", "float32")
    out = said(
        "convert",
        "verify",
        tmp_path / "ours",
        tmp_path / "hf",
        "--torch",
        "--max-length",
        128,
        "--tolerance",
        "2e-5",
    )
    assert "within the tolerance" in out and "sparse" in out
    said("convert", "quantize", tmp_path / "ours", tmp_path / "small")
    out = said(
        "convert",
        "verify",
        tmp_path / "ours",
        tmp_path / "small",
        "--max-length",
        128,
        "--tolerance",
        "1e-6",
        code=1,
    )
    assert "ABOVE the tolerance" in out
    said("convert", "extend-positions", tmp_path / "hf", tmp_path / "long", "--to", 402)
    assert (tmp_path / "long" / "config.json").is_file()  # the format of its source
    assert "400" in said("info", tmp_path / "long")
    assert "already has heads" in said("convert", "init-heads", tiny_dir, tmp_path / "x", code=1)
    assert "already exists" in said("convert", "from-hf", tiny_dir, tmp_path / "ours", code=1)


def test_quickstart_answers_with_the_model_that_ships():
    own = run("quickstart", "--ask", "Welcher Fluss fließt durch Bremen?")
    assert "? Welcher Fluss fließt durch Bremen?" in own
    assert "no M3 heads" not in own and "sample questions" not in own
    for word in ("dense", "sparse", "multi-vector", "hybrid"):
        assert word in own


@pytest.mark.slow
def test_quickstart_takes_any_backbone(tiny_dir, tmp_path):
    from support.tiny import write_tiny_model

    write_tiny_model(tmp_path / "plain", heads=False, max_positions=514)
    out = run("quickstart", "--model", tmp_path / "plain", "--questions", 3)
    for word in ("no M3 heads", "dense", "sparse", "multi-vector", "hybrid", "sample questions"):
        assert word in out
