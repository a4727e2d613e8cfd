"""The sample corpus that ships inside the package, as users of `m3jax quickstart` rely on it."""

import json
from importlib.resources import files

SAMPLE = files("m3jax") / "assets" / "sample"
OPEN = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0")


def records(name: str) -> list[dict[str, str]]:
    text = (SAMPLE / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def test_passages_are_whole_records_with_unique_ids_and_texts():
    corpus = records("corpus.jsonl")
    assert all(list(row) == ["_id", "text", "lang", "source"] for row in corpus)
    assert len(corpus) >= 200
    assert len({row["_id"] for row in corpus}) == len(corpus)
    assert len({row["text"].strip() for row in corpus}) == len(corpus)
    assert all(120 <= len(row["text"]) <= 700 for row in corpus)


def test_there_are_many_languages_each_with_passages_and_questions():
    lang = {row["_id"]: row["lang"] for row in records("corpus.jsonl")}
    languages = set(lang.values())
    assert len(languages) >= 10
    assert min(list(lang.values()).count(code) for code in languages) >= 10
    own = [row["lang"] for row in records("queries.jsonl") if row["lang"] == lang[row["positive"]]]
    assert all(own.count(code) >= 2 for code in languages)


def test_every_question_has_its_passage():
    ids = {row["_id"] for row in records("corpus.jsonl")}
    queries = records("queries.jsonl")
    assert all(list(row) == ["_id", "text", "lang", "positive"] for row in queries)
    assert len({row["_id"] for row in queries}) == len(queries)
    assert len({row["text"] for row in queries}) == len(queries)
    assert all(row["text"].strip() and row["positive"] in ids for row in queries)


def test_some_questions_cross_languages():
    lang = {row["_id"]: row["lang"] for row in records("corpus.jsonl")}
    assert sum(row["lang"] != lang[row["positive"]] for row in records("queries.jsonl")) >= 10


def test_every_source_is_attributed_under_an_open_licence():
    text = (SAMPLE / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "share-alike" in text and "unchanged" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    table = {row[0]: (row[3], row[4]) for row in rows[1:]}
    sources = [row["source"] for row in records("corpus.jsonl")]
    assert set(table) == set(sources)
    for source, (licence, passages) in table.items():
        assert licence in OPEN
        assert int(passages) == sources.count(source)


def test_the_folder_is_small():
    assert sorted(file.name for file in SAMPLE.iterdir()) == [
        "ATTRIBUTION.md",
        "corpus.jsonl",
        "queries.jsonl",
    ]
    assert sum(len(file.read_bytes()) for file in SAMPLE.iterdir()) < 250_000
