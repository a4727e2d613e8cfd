"""Splits by length keep every record."""

import json

import pytest
from support.example_files import GOOD, lines, write

from m3jax.data.split import split_by_length
from m3jax.text.tokenizer import load_tokenizer


def test_split_by_length_keeps_every_record_whole(tmp_path, tiny_dir):
    tokenizer = load_tokenizer(tiny_dir)
    records = [
        {"query": "x", "pos": ["word " * n], "neg": ["\ud800é"], "type": "t", "batch_size": 1.5}
        for n in (1, 3, 30, 60, 300)
    ]
    file = write(tmp_path / "in" / "d.jsonl.gz", lines(*records))
    counts = split_by_length(file, tmp_path / "out", tokenizer, boundaries=(0, 20, 100))
    assert sum(counts.values()) == 5 and len(counts) == 3
    seen = []
    for name in counts:
        low, high = name.removesuffix(".jsonl").split("-")[1:]
        for line in (tmp_path / "out" / name).read_bytes().splitlines():
            seen.append(json.loads(line))
            longest = max(len(ids) for ids in tokenizer.encode(seen[-1]["pos"], 10_000))
            assert int(low) <= longest < float(high)
    assert sorted(seen, key=lambda r: len(r["pos"][0])) == records
    with pytest.raises(FileExistsError):
        split_by_length(file, tmp_path / "out", tokenizer)
    with pytest.raises(ValueError, match="increase"):
        split_by_length(file, tmp_path / "new", tokenizer, boundaries=(0, 20, 20))
    twin = write(tmp_path / "in" / "sub" / "d.jsonl", lines(GOOD))
    with pytest.raises(ValueError, match="the same name"):
        split_by_length([file, twin], tmp_path / "new", tokenizer)
    assert not (tmp_path / "new").exists()
