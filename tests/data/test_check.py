"""What a check counts."""

import collections
import gzip
import json

from support.example_files import lines, write

from m3jax.data.check import check
from m3jax.data.examples import (
    read_examples,
)
from m3jax.text.tokenizer import load_tokenizer


def test_check_counts_what_is_there(tmp_path, tiny_dir):
    records = [
        {"query": "a", "pos": ["x", "y"], "neg": ["z", "x"], "lang": "en", "id": ""},
        {"query": "a", "pos": ["x"], "neg": [" "], "neg_scores": [0.5], "type": "normal"},
        {"query": "b", "pos": ["x" * 20], "lang": "de", "pos_scores": [1], "source": "s"},
        b"{}",
        {"query": "b", "pos": [""]},
        {"query": "b", "pos": ["", ""]},
    ]
    write(tmp_path / "a.jsonl", lines(*records))
    write(tmp_path / "b_no_in_batch_neg.jsonl", lines({"query": "a", "pos": ["y"]}))
    report = check(tmp_path)
    assert (report.files, report.examples, report.unit) == (2, 4, "characters")
    assert report.bad == {"'query' is missing, expected a string": 1, "'pos'[N] is blank": 2}
    assert len(report.bad_places) == 3 and "a.jsonl:4" in report.bad_places[0]
    assert report.languages == {"en": 1, "de": 1, "(none)": 2}
    assert report.sources == {"a": 2, "s": 1, "b_no_in_batch_neg": 1}
    assert report.unknown_keys == {"type": 1} and report.empty == {"id": 1, "neg": 1}
    assert report.positives == {2: 1, 1: 3} and report.negatives == {2: 1, 1: 1, 0: 2}
    assert (report.scored, report.not_in_batch) == (1, 1)
    assert (report.positive_is_negative, report.repeated_queries) == (1, 2)
    assert report.repeated_pairs == 2  # (a, x) and (a, y), across files
    assert report.lengths["positive"].bins[:2] == [4, 1]
    assert report.lengths["query"].total == 4 and report.lengths["negative"].count == 3
    tokenizer = load_tokenizer(tiny_dir)
    report = check(tmp_path, tokenizer=tokenizer)
    want = [len(ids) for ids in tokenizer.encode(["x", "y", "x", "x" * 20, "y"], 10_000)]
    assert report.unit == "tokens" and report.lengths["positive"].total == sum(want)
    assert report.lengths["positive"].longest == max(want)


def test_real_files(data_dir):
    """Every record of two files, against json and gzip alone."""
    files = [data_dir / "train" / f"{n}.jsonl.gz" for n in ("xqa_yor-en_afriqa", "long_fr")]
    want = [json.loads(line) for f in files for line in gzip.open(f, "rt", encoding="utf-8")]
    got = list(read_examples(files))
    assert len(want) > 200
    assert [(e.query, list(e.positives), e.id, e.lang, e.source) for e in got] == [
        (r["query"], r["pos"], r["id"], r["lang"], r["source"]) for r in want
    ]
    report = check(files)
    assert report.languages == collections.Counter(r["lang"] for r in want)
    assert report.repeated_queries == len(want) - len({r["query"] for r in want})
    assert report.unknown_keys["pos_lang"] == sum("pos_lang" in r for r in want)
