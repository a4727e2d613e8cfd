"""Tokenising, bucketing, packing and laying out: every token in its place, none twice."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import TEXTS

from m3jax.io.jsonl import read_records
from m3jax.text import tokenizer as tokenizers
from m3jax.text.batches import cls_columns, plan_padded, position_rows, rows_of_tokens
from m3jax.text.buckets import bucket_ladder, bucket_of
from m3jax.text.packing import pack_texts

LENGTHS = st.lists(st.integers(2, 300), max_size=60)


@pytest.fixture(scope="module")
def tokenizer(tiny_dir):
    return tokenizers.load(tiny_dir)


def test_tokens_are_those_of_transformers(tokenizer, tiny_dir):
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(tiny_dir)
    for max_length in (2, 3, 10, 128):
        want = theirs(TEXTS, truncation=True, max_length=max_length)["input_ids"]
        got = [ids.tolist() for ids in tokenizer.encode(TEXTS, max_length)]
        assert got == want


def test_a_lone_surrogate_becomes_a_replacement_character(tokenizer):
    broken, replaced = tokenizer.encode(["a \ud800 b", "a \ufffd b"], 20)
    assert broken.tolist() == replaced.tolist()


def test_what_is_no_text_is_refused_by_number(tiny_dir):
    """In a process of its own: under pytest the type checker may be the first to complain."""
    code = (
        "import sys; from m3jax.text.tokenizer import load; load(sys.argv[1]).encode(['a', 3], 9)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tiny_dir)], capture_output=True, text=True, check=False
    )
    assert out.returncode == 1 and "TypeError: text 1 is int, not a string: 3" in out.stderr


def test_max_length_must_leave_room(tokenizer):
    with pytest.raises(ValueError, match="max_length"):
        tokenizer.encode(["fine"], 1)


def test_mcls_inserts_cls_before_every_so_many_tokens(tokenizer):
    (plain,) = tokenizer.encode([TEXTS[-1]], 128)
    pieces = plain[1:-1].tolist()
    (ids,) = tokenizer.encode([TEXTS[-1]], 128, cls_every=20)
    is_cls = cls_columns(len(ids), 20)
    assert (ids[is_cls] == tokenizer.cls_id).all()
    assert is_cls.sum() == -(-len(pieces) // 20) > 1
    assert ids[~is_cls].tolist() == [*pieces, tokenizer.eos_id][: (~is_cls).sum()]
    short = tokenizer.encode([TEXTS[0]], 128, cls_every=64)[0]
    assert short.tolist() == tokenizer.encode([TEXTS[0]], 128)[0].tolist()
    assert len(tokenizer.encode([TEXTS[-1]], 20, cls_every=7)[0]) == 20


def test_a_directory_without_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        tokenizers.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json"):
        tokenizers.load(tmp_path)


def test_positions_skip_padding_tokens_as_xlm_roberta_does():
    assert position_rows(np.array([0, 9, 1, 9, 2]), 1).tolist() == [2, 3, 1, 4, 5]


@given(st.integers(1, 9000))
def test_ladder_increases_and_wastes_at_most_a_fifth(max_length):
    ladder = bucket_ladder(max_length)
    assert ladder[-1] == max_length and list(ladder) == sorted(set(ladder))
    for below, bucket in zip(ladder, ladder[1:], strict=False):
        if below >= 64:
            assert (bucket - below) / bucket <= 0.2 + 1e-9


def test_ladder_for_8192_tokens_is_short():
    assert len(bucket_ladder(8192)) == 32
    with pytest.raises(ValueError, match="longer than the last bucket"):
        bucket_of(65, (32, 64))


@given(LENGTHS, st.integers(1, 4), st.one_of(st.none(), st.integers(1, 9)))
def test_a_plan_holds_every_text_once_and_fits(lengths, multiple, rows_per_batch):
    ladder = bucket_ladder(300)
    plan = list(
        plan_padded(lengths, ladder, 600, rows_per_batch=rows_per_batch, row_multiple=multiple)
    )
    assert sorted(t for _, _, rows in plan for (t,) in rows) == list(range(len(lengths)))
    for bucket, height, rows in plan:
        assert bucket in ladder and len(rows) <= height and height % multiple == 0
        assert all(lengths[t] <= bucket for (t,) in rows)
        assert len(rows) == 1 or bucket == 16 or min(lengths[t] for (t,) in rows) >= 0.75 * bucket


@given(LENGTHS, st.integers(300, 700), st.one_of(st.none(), st.integers(1, 4)))
def test_packing_holds_every_text_once_and_fits(lengths, width, most):
    rows = pack_texts(lengths, width, most)
    assert sorted(t for row in rows for t in row) == list(range(len(lengths)))
    assert all(sum(lengths[t] for t in row) <= width for row in rows)
    assert most is None or all(len(row) <= most for row in rows)


def test_packing_fills_rows():
    lengths = np.random.default_rng(0).integers(2, 200, 2000).tolist()
    rows = pack_texts(lengths, 512)
    assert sum(lengths) / (512 * len(rows)) > 0.99
    with pytest.raises(ValueError, match="text 0 has 513 tokens"):
        pack_texts([513], 512)


@settings(max_examples=50)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=20))
def test_layout_restarts_positions_and_numbers_segments(lengths):
    tokens = [np.arange(4, 4 + length, dtype=np.int32) for length in lengths]
    batch, slots = rows_of_tokens(tokens, pack_texts(lengths, 40), 40, pad_id=1)
    for slot in slots:
        here = (slot.row, slice(slot.start, slot.start + slot.length))
        assert batch.token_ids[here].tolist() == tokens[slot.text].tolist()
        assert batch.positions[here].tolist() == list(range(2, 2 + slot.length))
        assert set(batch.segment_ids[here].tolist()) == {slot.segment + 1}
        assert batch.is_cls[here].tolist() == [True] + [False] * (slot.length - 1)
        assert batch.lengths[slot.row, slot.segment] == slot.length
    assert (batch.segment_ids > 0).sum() == sum(lengths)
    assert (batch.token_ids[batch.segment_ids == 0] == 1).all()


def test_records_from_plain_and_compressed_files(tmp_path):
    rows = [{"_id": "a", "title": "T", "text": "x"}, {"text": "y"}, {"_id": 7, "text": ""}]
    text = "\n\n".join(json.dumps(row) for row in rows)
    (tmp_path / "c.jsonl").write_text(text)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("c.jsonl", "c.jsonl.gz"):
        records = list(read_records(str(tmp_path / name)))
        assert [(r.id, r.text, r.line) for r in records] == [
            ("a", "T x", 1),
            ("1", "y", 3),
            ("7", "", 5),
        ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": ', ":2: not valid JSON"),
        (b'{"text": "a"}\n[1]', ":2: expected a JSON object"),
        (b'{"text": 3}', ":1: 'text' is int"),
        (b'{"title": "t"}', ":1: 'text' is missing"),
        (b'{"text": "a", "_id": [1]}', ":1: _id must be"),
        (b'{"text": "a"}\n\xff\n', ":2: not valid UTF-8"),
        (gzip.compress(b'{"text": "a"}\n' * 5000)[:-20], "damaged gzip data"),
    ],
)
def test_bad_records_name_file_and_line(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)) as error:
        list(read_records(str(path)))
    assert message in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(read_records(str(tmp_path / "nowhere.jsonl")))
