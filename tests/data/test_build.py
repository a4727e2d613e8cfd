"""Data sets on disk: every example comes back, every length is the tokenizer's."""

import gzip
import json
import logging
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.example_files import examples, lines, write

from m3jax.cli.main import main
from m3jax.data.build import ARRAYS, METADATA, build, check_tokenizer, open_examples
from m3jax.data.examples import read_examples, to_json
from m3jax.io.npy import NpyWriter
from m3jax.text.tokenizer import load_tokenizer

RECORDS = [
    {"query": "who", "pos": ["the cat", "a dog"], "neg": ["x"], "prompt": "ask: ", "source": "s"},
    {"query": "a\0", "pos": ["b\0\0"], "neg": [], "pos_scores": [0.1], "neg_scores": []},
    {"query": "c", "pos": ["d"], "neg": ["e", ""], "pos_scores": [1e300], "neg_scores": [-1, 2]},
    {"query": "f", "pos": ["word " * 500], "pos_scores": [3.0], "neg": ["g"]},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_dir):
    return load_tokenizer(tiny_dir)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer):
    """Two files, three shards, five examples of three sources; (directory, what `build` said)."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "in" / "one.jsonl", lines(*RECORDS))
    write(folder / "in" / "two_no_in_batch_neg.jsonl.gz", lines({"query": "h", "pos": ["i"]}))
    return folder / "set", build(folder / "in", folder / "set", tokenizer, shard_size=2)


@settings(max_examples=15, deadline=None)
@given(st.lists(examples(st.text(st.characters(codec=None))), min_size=1, max_size=6))
def test_examples_come_back_exactly(tmp_path_factory, tokenizer, some):
    folder = tmp_path_factory.mktemp("round")
    file = write(folder / "in.jsonl", lines(*map(to_json, some)))
    build(file, folder / "set", tokenizer, shard_size=4)
    opened = open_examples(folder / "set")
    assert [opened[i] for i in range(len(opened))] == some
    assert [opened.sources[i] for i in opened.source_ids] == [e.source for e in some]


def test_the_arrays_say_what_the_examples_hold(made, tokenizer):
    directory, said = made
    opened = open_examples(directory)
    assert len(opened) == said["examples"] == 5 and said["texts"] == len(opened.lengths) == 15
    want = []
    for index in range(5):
        example = opened[index]
        texts = [example.prompt + example.query, *example.positives, *example.negatives]
        want.append([len(ids) for ids in tokenizer.encode(texts, 10_000)])
        assert opened.lengths_of(index).tolist() == want[-1]
    flat = np.concatenate(want)
    assert opened.lengths.tolist() == flat.tolist() and said["tokens"] == flat.sum()
    assert said["longest"] == flat.max() > 500
    assert opened.offsets.tolist() == [0, *np.cumsum([len(each) for each in want])]
    assert opened.positives.tolist() == [2, 1, 1, 1, 1]
    assert opened.sources == ("s", "one", "two_no_in_batch_neg")
    assert opened.source_ids.tolist() == [0, 1, 1, 1, 2]
    assert [s["examples"] for s in said["sources"]] == [1, 3, 1]
    # Scored: 1 (no negative to score) and 2; not 3, whose negative has no score.
    assert opened.flags.tolist() == [1, 3, 3, 1, 0]
    for array in (opened.offsets, opened.lengths, opened.positives, opened.source_ids):
        assert isinstance(array, np.memmap) and not array.flags.writeable
    assert opened[-1] == opened[4] and opened[np.int64(1)].query == "a\0"
    for index in (5, -6):
        with pytest.raises(IndexError):
            opened[index]
        with pytest.raises(IndexError):
            opened.lengths_of(index)


def test_tfds_opens_it_without_tensorflow(made):
    code = (
        "import sys\n"
        "import tensorflow_datasets as tfds\n"
        "builder = tfds.builder_from_directory(sys.argv[1])\n"
        "s = builder.as_data_source()['train']\n"
        "count = builder.info.splits['train'].num_examples\n"
        "print(count, len(s), s[4]['query'], s[0]['positives'])\n"
        "print('tensorflow' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(made[0])], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "5 5 b'h' [b'the cat', b'a dog']\nFalse"


def test_a_worker_process_opens_the_files_again(made):
    opened = open_examples(made[0])
    assert opened[0].query == "who"
    data = pickle.dumps(opened)
    assert len(data) < 1000  # no array travels
    code = (
        "import sys, pickle; s = pickle.load(sys.stdin.buffer); "
        "print(s[1].positive_scores, s.lengths_of(3).max() > 500, 'jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert out.stdout.decode().strip() == "(0.1,) True False"


def test_nothing_is_left_of_a_build_that_fails(tmp_path, tokenizer):
    file = write(tmp_path / "in.jsonl", lines(*RECORDS[:3] * 2000, b"{"))

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="in.jsonl:6001: not valid JSON"):
        build(file, tmp_path / "set", tokenizer)
    with pytest.raises(KeyboardInterrupt):
        build(file, tmp_path / "set", tokenizer, skip_bad=1, progress=stop)
    empty = write(tmp_path / "empty.jsonl", b"\n")
    with pytest.raises(ValueError, match="no example"):
        build(empty, tmp_path / "set", tokenizer)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.jsonl", "in.jsonl"]
    seen = []
    said = build(file, tmp_path / "set", tokenizer, skip_bad=1, progress=seen.append)
    assert said["skipped"] == 1 and seen[-1] == said["examples"] == 6_000 and len(seen) == 2
    with pytest.raises(FileExistsError, match="already exists"):
        build(file, tmp_path / "set", tokenizer)
    assert len(open_examples(tmp_path / "set")) == 6_000


def test_what_cannot_be_opened_is_named(made, tmp_path):
    directory, said = made
    with pytest.raises(FileNotFoundError, match="no such directory"):
        open_examples(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"no {METADATA}"):
        open_examples(tmp_path)
    assert {f"{name}.npy" for name in ARRAYS} <= said["files"].keys() and len(said["files"]) == 10
    for name in said["files"]:
        copy = tmp_path / "copy"
        shutil.copytree(directory, copy)
        (copy / name).write_bytes((copy / name).read_bytes()[:-1])
        with pytest.raises(ValueError, match=f"{name} has .* bytes"):
            open_examples(copy)
        (copy / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
            open_examples(copy)
        shutil.rmtree(copy)
    shutil.copytree(directory, tmp_path / "newer")
    path = tmp_path / "newer" / METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(ValueError, match="version 2; this release reads"):
        open_examples(path.parent)
    path.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        open_examples(path.parent)


def test_another_tokenizer_is_refused_and_a_copy_is_not(made, tmp_path, tokenizer, caplog):
    opened = open_examples(made[0])
    with caplog.at_level(logging.WARNING):
        check_tokenizer(opened, tokenizer)
        assert not caplog.messages
        values = json.loads((tokenizer.directory / "tokenizer.json").read_text())
        (tmp_path / "same").mkdir()
        (tmp_path / "same" / "tokenizer.json").write_text(json.dumps(values, indent=1))
        check_tokenizer(opened, load_tokenizer(tmp_path / "same"))
        assert "another tokenizer.json" in caplog.messages[0]
    kept = [piece for piece in values["model"]["vocab"] if len(piece[0]) < 3 or piece[0][0] == "<"]
    values["model"]["vocab"] = kept
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="another tokenizer than .*other"):
        check_tokenizer(opened, load_tokenizer(tmp_path / "other"))


def test_npy_files_grow_and_refuse_what_does_not_fit(tmp_path):
    writer = NpyWriter(tmp_path / "a.npy", np.uint16)
    for part in ([], [1, 2], np.arange(70_000) % 65_536):
        writer.append(part)
    with pytest.raises(OverflowError, match=r"a.npy holds uint16: 65536 does not fit"):
        writer.append([65_536])
    writer.close()
    got = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert got.dtype == np.uint16 and got[:4].tolist() == [1, 2, 0, 1] and len(got) == 70_002


def test_the_commands(tmp_path, tiny_dir, capfd):
    file = str(write(tmp_path / "in.jsonl.zst", lines(*RECORDS, b"{")))
    model = str(tiny_dir)
    assert main(["data", "check", file, "--json", str(tmp_path / "r.json")]) == 1
    assert "in.jsonl.zst:5: not valid JSON" in capfd.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["examples"] == 4 and sum(report["bad"].values()) == 1
    assert report["negatives"] == {"0": 1, "1": 2, "2": 1}
    assert main(["data", "check", file, "--skip-bad", "1", "--tokenizer", model]) == 0
    assert "texts by length in tokens" in capfd.readouterr().out
    build_it = ["data", "build", "--input", file, "--tokenizer", model, "--output"]
    assert main([*build_it, str(tmp_path / "set")]) == 1
    assert "in.jsonl.zst:5" in capfd.readouterr().err and not (tmp_path / "set").exists()
    assert main([*build_it, str(tmp_path / "set"), "--skip-bad", "1"]) == 0
    assert "4 examples, 13 texts" in capfd.readouterr().out
    assert len(open_examples(tmp_path / "set")) == 4
    assert main(["info", str(tmp_path / "set")]) == 0
    told = capfd.readouterr().out
    assert "examples" in told and "13" in told
    texts = str(write(tmp_path / "t.jsonl", lines({"text": "one"}, {"text": "two"})))
    build_it[3] = texts
    assert main([*build_it, str(tmp_path / "texts"), "--format", "texts"]) == 0
    assert [open_examples(tmp_path / "texts")[i].query for i in (0, 1)] == ["one", "two"]
    split = ["data", "split-by-length", "--input", file, "--skip-bad", "1", "--tokenizer", model]
    assert main([*split, "--output", str(tmp_path / "by"), "--length-boundaries", "0,100"]) == 0
    assert "3 in_len-0-100.jsonl" in capfd.readouterr().out
    assert main([*split, "--output", str(tmp_path / "x"), "--length-boundaries", "0,a"]) == 1


def test_a_real_file_read_whole(data_dir, tmp_path, tokenizer):
    file = data_dir / "train" / "help_ja.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream]
    said = build(file, tmp_path / "set", tokenizer, shard_size=100)
    opened = open_examples(tmp_path / "set")
    assert len(opened) == len(records) > 100
    for index, record in enumerate(records):
        example = opened[index]
        assert (example.query, list(example.positives)) == (record["query"], record["pos"])
        assert (example.id, example.lang, example.source) == (
            record["id"],
            record["lang"],
            record["source"],
        )
    texts = [text for record in records for text in (record["query"], *record["pos"])]
    assert opened.lengths.tolist() == [len(ids) for ids in tokenizer.encode(texts, 1 << 20)]
    assert {s["name"] for s in said["sources"]} == {record["source"] for record in records}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_examples(tmp_path, tiny_dir):
    """Ten times the examples, at most 20 MB more, in a process of its own."""
    code = (
        "import sys; from m3jax.data.build import build\n"
        "from m3jax.text.tokenizer import load_tokenizer\n"
        "build(sys.argv[1], sys.argv[2], load_tokenizer(sys.argv[3]))\n"
        # Not ru_maxrss: it starts from the peak of the process that forked.
        "print(*(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    )
    peaks = []
    for count in (40_000, 400_000):
        file = tmp_path / f"{count}.jsonl"
        with open(file, "wb") as stream:
            for i in range(count):
                stream.write(lines({"query": f"number {i}", "pos": [f"the number after {i - 1}"]}))
        out = subprocess.run(
            [sys.executable, "-c", code, str(file), str(tmp_path / f"set{count}"), str(tiny_dir)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(out.stdout) / 1024)
    print(f"peak memory {peaks} MB")
    assert peaks[1] - peaks[0] < 20
    assert list(read_examples(file))[-1] == open_examples(tmp_path / f"set{count}")[-1]
