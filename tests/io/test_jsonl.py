"""JSON Lines: records from plain and compressed files, errors with file and line."""

import gzip
import json

import pytest

from m3jax.io.jsonl import read_records


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
