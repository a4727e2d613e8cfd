"""Reading training files: what goes in comes out, and what is wrong is named by file and line."""

import gzip
import json
import logging
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from support.example_files import GOOD, examples, lines, write

from m3jax.data.examples import (
    Example,
    example_files,
    parse_example,
    read_examples,
    read_texts,
    to_json,
)
from m3jax.io.jsonl import BadRecords


@given(examples(st.text(st.characters(codec=None))))
def test_an_example_survives_json(example):
    record = json.loads(json.dumps(to_json(example)))
    assert parse_example(record, "here", in_batch=True) == example


@settings(max_examples=25, deadline=None)
@given(st.lists(examples(st.text()), min_size=1, max_size=4))
def test_every_format_gives_the_same_examples(tmp_path_factory, some):
    folder = tmp_path_factory.mktemp("formats")
    data = lines(*map(to_json, some))
    files = [write(folder / name, data) for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst")]
    strings = pyarrow.list_(pyarrow.string())
    numbers = pyarrow.list_(pyarrow.float64())
    schema = {
        "query": pyarrow.string(),
        "pos": strings,
        "neg": strings,
        "pos_scores": numbers,
        "neg_scores": numbers,
        "prompt": pyarrow.string(),
        "id": pyarrow.string(),
        "lang": pyarrow.string(),
        "source": pyarrow.string(),
        "in_batch": pyarrow.bool_(),
    }
    table = pyarrow.Table.from_pylist([to_json(e) for e in some], schema=pyarrow.schema(schema))
    files.append(folder / "a.parquet")
    pyarrow.parquet.write_table(table, files[-1], row_group_size=2)
    for file in files:
        assert list(read_examples(file)) == some, file


def test_optional_keys_and_what_the_file_name_says(tmp_path):
    record = GOOD | {"id": 7, "pos_lang": "de", "type": "normal", "neg_scores": None}
    write(
        tmp_path / "plain.jsonl", b"\xef\xbb\xbf" + lines(record, b"", b"  \r") + lines(GOOD)[:-1]
    )
    first, second = read_examples(str(tmp_path / "plain.jsonl"))
    assert first == Example("q", ("p",), ("n",), id="7", source="plain")
    assert second == Example("q", ("p",), ("n",), source="plain")
    own = GOOD | {"in_batch": True, "source": "mine"}
    for name in ("x_no_in_batch_neg.jsonl.gz", "x_no_in_batch_neg_len-0-500.jsonl"):
        first, second = read_examples(write(tmp_path / name, lines(GOOD, own)))
        assert not first.in_batch and first.source == name.split(".")[0]
        assert second.in_batch and second.source == "mine"


def test_plain_texts(tmp_path):
    file = write(tmp_path / "t.jsonl", lines({"text": "a", "title": "T"}, {"text": "b", "_id": 3}))
    assert list(read_texts(file)) == [
        Example("T a", (), source="t"),
        Example("b", (), id="3", source="t"),
    ]
    with pytest.raises(ValueError, match=r"t2.jsonl:1: 'text' is blank"):
        list(read_texts(write(tmp_path / "t2.jsonl", lines({"text": " "}))))


def test_directories_and_globs(tmp_path):
    names = ["b.jsonl", "a.jsonl.gz", "sub/c.jsonl.zst", ".hidden/d.jsonl", "sub/.e.jsonl"]
    for name in [*names, "README.md"]:
        write(tmp_path / name, lines(GOOD))
    shown = [tmp_path / name for name in ("a.jsonl.gz", "b.jsonl", "sub/c.jsonl.zst")]
    assert example_files(tmp_path) == shown
    assert example_files(str(tmp_path / "*.jsonl")) == shown[1:2]
    assert example_files(str(tmp_path / "**" / "[ac].*")) == [shown[0], shown[2]]
    assert example_files([shown[1], tmp_path / "sub"]) == shown[1:]
    assert [e.source for e in read_examples(tmp_path)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="named twice"):
        example_files([tmp_path, shown[0]])
    for missing in ("nowhere", "*.parquet"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_examples(str(tmp_path / missing))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="in the directory"):
        read_examples(tmp_path / "empty")


BAD = [
    (b'{"query": "q", "pos": ["p"]', "not valid JSON"),
    (b"[1]", "expected a JSON object, got list"),
    (b"[" * 100_000, "not valid JSON"),
    (b'{"query": ' + b"9" * 5000 + b"}", "not valid JSON"),
    (b'{"query": "\xff", "pos": ["p"]}', "not valid UTF-8"),
    ({"pos": ["p"]}, "'query' is missing"),
    (GOOD | {"query": 3}, "'query' is int"),
    (GOOD | {"query": None}, "'query' is NoneType"),
    (GOOD | {"query": " \n"}, "'query' is blank"),
    ({"query": "q"}, "'pos' is missing"),
    (GOOD | {"pos": None}, "'pos' is null"),
    (GOOD | {"pos": "p"}, "'pos' is str"),
    (GOOD | {"pos": []}, "'pos' is empty"),
    (GOOD | {"pos": ["p", ""]}, r"'pos'\[1\] is blank"),
    (GOOD | {"neg": ["n", 1]}, r"'neg'\[1\] is int"),
    (GOOD | {"neg": {}}, "'neg' is dict"),
    (GOOD | {"pos_scores": [1, 2]}, "'pos_scores' has 2 numbers for 1 passages"),
    (GOOD | {"neg_scores": []}, "'neg_scores' has 0 numbers for 1 passages"),
    (GOOD | {"neg_scores": 1.0}, "'neg_scores' is float"),
    (GOOD | {"pos_scores": ["1"]}, r"'pos_scores'\[0\] is '1'"),
    (GOOD | {"pos_scores": [True]}, r"'pos_scores'\[0\] is True"),
    (GOOD | {"pos_scores": [float("nan")]}, r"'pos_scores'\[0\] is nan"),
    (GOOD | {"pos_scores": [10**400]}, r"'pos_scores'\[0\] is 1000"),
    (GOOD | {"in_batch": 1}, "'in_batch' is int"),
    (GOOD | {"id": [1]}, "'id' is list"),
    (GOOD | {"id": True}, "'id' is bool"),
    (GOOD | {"prompt": 1}, "'prompt' is int"),
]


@pytest.mark.parametrize(("record", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_record_is_named_or_skipped_alone(tmp_path, record, message):
    after = GOOD | {"query": "after"}
    file = write(tmp_path / "bad.jsonl.gz", lines(GOOD, b"", record, after))
    stream = read_examples(file)
    assert next(stream).query == "q"
    with pytest.raises(ValueError, match=rf"bad.jsonl.gz:3: {message}.*--skip-bad"):
        next(stream)
    bad = BadRecords(1)
    assert [e.query for e in read_examples(file, skip_bad=bad)] == ["q", "after"]
    assert bad.count == 1


def test_skipping_counts_over_files_and_logs_the_first_few(tmp_path, caplog):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", lines(*[b"{", GOOD] * 4))
    with caplog.at_level(logging.WARNING):
        assert len(list(read_examples(tmp_path, skip_bad=8))) == 8
    assert len(caplog.messages) == 5 and "a.jsonl:1" in caplog.messages[0]
    stream, seen = read_examples(tmp_path, skip_bad=7), 0
    with pytest.raises(ValueError, match=r"b.jsonl:7: .*bad record number 8; 7 may be skipped"):
        for _ in stream:
            seen += 1
    assert seen == 7
    with pytest.raises(ValueError, match="skip_bad"):
        read_examples(tmp_path, skip_bad=-1)


@pytest.mark.parametrize("name", ["long.jsonl", "long.jsonl.gz", "long.jsonl.zst"])
def test_a_line_of_50_mb_is_neither_held_nor_fatal(tmp_path, name):
    huge = b'{"query": "' + b"x" * 50_000_000 + b'"}'
    file = write(tmp_path / name, lines(GOOD, huge, GOOD))
    del huge
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"{name}:2: a line of 50,000,013 bytes"):
        list(read_examples(file))
    assert len(list(read_examples(file, skip_bad=1))) == 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6  # a line may have 16 MiB, and a chunk of zstd as much
    limit = len(json.dumps(GOOD))
    assert len(list(read_examples(write(tmp_path / "s.jsonl", lines(GOOD)), longest_line=limit)))
    with pytest.raises(ValueError, match="s.jsonl:1: a line of"):
        list(read_examples(tmp_path / "s.jsonl", longest_line=limit - 1))


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_compressed_files_that_are_cut_off_give_what_they_have(tmp_path, suffix, kept):
    records = [GOOD | {"query": f"query {i} {i * i % 9973}"} for i in range(20_000)]
    data = write(tmp_path / f"whole.jsonl.{suffix}", lines(*records)).read_bytes()
    file = tmp_path / f"cut.jsonl.{suffix}"
    file.write_bytes(data[: int(kept * len(data))])
    got = []
    with pytest.raises(ValueError, match=rf"cut.jsonl.{suffix}: damaged .* after line (\d+)") as e:
        for example in read_examples(file, skip_bad=100):
            got.append(example.query)
    assert f"after line {len(got)};" in str(e.value)
    assert got == [r["query"] for r in records[: len(got)]] and len(got) > 0.3 * kept * 20_000


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed_files_of_several_parts(tmp_path, suffix):
    pack = gzip.compress if suffix == "gz" else zstandard.compress
    file = tmp_path / f"parts.jsonl.{suffix}"
    file.write_bytes(
        pack(lines(GOOD, GOOD)[:-9]) + pack(lines(GOOD, GOOD)[-9:]) + pack(lines(GOOD))
    )
    assert len(list(read_examples(file))) == 3
    damaged = bytearray(file.read_bytes())
    damaged[40:60] = bytes(20)
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"damaged {'gzip' if suffix == 'gz' else 'zstd'} data"):
        list(read_examples(file))


def test_bad_rows_and_damaged_parquet(tmp_path):
    file = tmp_path / "x.parquet"
    rows = [GOOD, GOOD | {"pos": []}, GOOD | {"query": None}] + [GOOD] * 2000
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=500)
    with pytest.raises(ValueError, match=r"x.parquet:2: 'pos' is empty"):
        list(read_examples(file))
    assert len(list(read_examples(file, skip_bad=2))) == 2001
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"x.parquet: damaged Parquet after row 0"):
        list(read_examples(file))
