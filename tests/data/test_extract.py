"""Pairs from raw text: what is extracted, and what each filter lets pass."""

import gzip
import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3jax.cli.main import main
from m3jax.data import cleaning, extract
from m3jax.data.cleaning import Limits, clean, repetitive, shingles, wrong_script
from m3jax.data.examples import read_examples
from m3jax.data.extract import EXTRACTORS, Pair

PYTHON = '''
def add(a, b):
    """Adds two numbers."""
    return a + b

class Empty:
    """Nothing else."""

async def wait():
    """Waits
    a while."""
    await nothing()
'''
JAVA = """
package x;

/**
 * Adds two numbers.
 */
int add(int a, int b) {
    return a + b;
}

// Says hello
// to all.
void hello() { print("hello"); }
"""


@pytest.mark.parametrize(
    ("kind", "record", "want"),
    [
        (
            "title-body",
            {"title": " Fox ", "text": "A mammal.", "lang": "en"},
            [Pair("Fox", "A mammal.", "en", "en")],
        ),
        ("title-body", {"title": "", "text": "A mammal."}, []),
        ("title-abstract", {"title": "T", "abstract": "We.", "id": 3}, [Pair("T", "We.", id="3")]),
        ("title-abstract", {"title": "T", "abstract": None}, []),
        (
            "instruction-output",
            {"instruction": "Sum", "input": "1 2", "output": "3"},
            [Pair("Sum\n1 2", "3")],
        ),
        ("instruction-output", {"inputs": "Sum 1 2", "targets": "3"}, [Pair("Sum 1 2", "3")]),
        (
            "parallel",
            {"translation": {"de": "Katze", "en": "cat"}},
            [Pair("Katze", "cat", "de", "en")],
        ),
        (
            "code-comment",
            {"code": PYTHON},
            [
                Pair("Adds two numbers.", "def add(a, b):\n    return a + b"),
                Pair("Waits\na while.", "async def wait():\n    await nothing()"),
            ],
        ),
        (
            "code-comment",
            {"code": "x = 1\n\x0c\n" + PYTHON},  # a form feed ends no line
            [
                Pair("Adds two numbers.", "def add(a, b):\n    return a + b"),
                Pair("Waits\na while.", "async def wait():\n    await nothing()"),
            ],
        ),
        ("code-comment", {"code": "def broken(:"}, []),
        (
            "code-comment",
            {"code": JAVA, "language": "Java", "id": "f"},
            [
                Pair(
                    "Adds two numbers.", "int add(int a, int b) {\n    return a + b;\n}", id="f-0"
                ),
                Pair("Says hello\nto all.", 'void hello() { print("hello"); }', id="f-1"),
            ],
        ),
    ],
)
def test_records_become_pairs(kind, record, want):
    assert list(EXTRACTORS[kind](record)) == want


def test_fields_of_another_type_are_told():
    with pytest.raises(ValueError, match="'title' is int, expected a string"):
        list(extract.title_body({"title": 3, "text": "x"}))
    with pytest.raises(ValueError, match="two languages"):
        list(extract.parallel({"translation": {"de": "x"}}))


TEXTS = [
    "The fox sleeps in its den during the day and hunts when night has come.",
    "Der Fuchs schläft tagsüber in seinem Bau und jagt, wenn es dunkel wird.",
    "Лиса днём спит в норе, а ночью выходит на охоту за мышами и птицами.",
]


def test_each_filter_counts_what_it_drops():
    good = [Pair(f"query {i}", text, "", "") for i, text in enumerate(TEXTS)]
    bad = [
        ("too short", Pair("q", TEXTS[0])),
        ("too short", Pair("a query", "short")),
        ("query equals passage", Pair(TEXTS[0].upper(), TEXTS[0])),
        ("too repetitive", Pair("a query", "buy now! " * 40)),
        ("wrong script", Pair("a query", TEXTS[0], "ru", "ru")),
        ("duplicate", good[1]),
        ("near duplicate", Pair("another", TEXTS[0].replace("hunts", "Hunts") + " ")),
    ]
    dropped: Counter[str] = Counter()
    kept = list(clean([*good, *(pair for _, pair in bad)], Limits(), dropped))
    assert kept == good
    assert dropped == Counter(reason for reason, _ in bad)
    off = dict(distinct=0.0, script=0.0, near_duplicates=0.0)
    nothing = Limits(query_chars=0, passage_chars=0, **off)
    assert (
        len(list(clean([*good, bad[1][1], bad[3][1], bad[4][1], bad[6][1]], nothing, dropped))) == 7
    )


def test_relevance_is_any_function():
    asked = []

    def relevance(queries, passages):
        asked.append(len(queries))
        return [0.9 if "1" in q else 0.1 for q in queries]

    some = [Pair(f"query {i}", f"{text} {i}") for i, text in enumerate(TEXTS)]
    dropped: Counter[str] = Counter()
    limits = Limits(relevance=0.5, near_duplicates=0.0)
    kept = list(clean(some, limits, dropped, relevance=relevance, batch=2))
    assert [p.query for p in kept] == ["query 1"] and asked == [2, 1]
    assert dropped == {"low relevance": 2}


def jaccard(a, b):
    a, b = shingles(a), shingles(b)
    return len(a & b) / len(a | b)


def test_near_duplicates_are_those_of_the_exact_similarity():
    draw = random.Random(0)
    words = [f"w{draw.randrange(10_000)}" for _ in range(5000)]
    base = [" ".join(draw.sample(words, 60)) for _ in range(40)]
    right = sure = 0
    for text in base:
        seen = cleaning.near_duplicates(0.8)
        assert not seen(text)
        parts = text.split()
        for changed in (0, 1, 2, 4, 8, 20):
            other = list(parts)
            for place in draw.sample(range(60), changed):
                other[place] = draw.choice(words)
            exact = jaccard(text, " ".join(other))
            if abs(exact - 0.8) < 0.1:
                continue  # MinHash with 128 permutations errs by about 0.04
            sure += 1
            fresh = cleaning.near_duplicates(0.8)
            fresh(text)
            right += fresh(" ".join(other)) == (exact >= 0.8)
    assert sure > 150 and right >= 0.98 * sure


@given(st.text(min_size=30, max_size=200), st.integers(8, 20))
def test_a_text_said_many_times_is_repetitive(text, times):
    assert repetitive((text + " ") * times, 0.5)


def test_scripts():
    assert not any(repetitive(text, 0.5) for text in TEXTS)
    for text, language, wrong in [
        ("これは日本語です", "ja", False),
        ("这是中文", "zh-Hant", False),
        ("中文", "ko", True),
        ("hello", "ru", True),
        ("hello", "tlh", False),
        ("12 34", "ru", False),
        ("Привет GPU", "ru", False),
        ("नमस्ते दुनिया", "hi", False),
        ("한국어", "ko", False),
    ]:
        assert wrong_script(text, language, 0.5) is wrong, (text, language)


def test_the_command(tmp_path, tiny_dir, capsys):
    lines = [
        json.dumps({"title": f"title {i}", "text": f"{t} {t[::-1]}"}) for i, t in enumerate(TEXTS)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, lines[0], '{"title": 3}']), "utf-8")
    arguments = [
        "data",
        "pairs",
        "--extractor",
        "title-body",
        "--input",
        str(tmp_path / "in.jsonl"),
        "--output",
        str(tmp_path / "out.jsonl.gz"),
    ]
    assert main(arguments) == 1
    assert "in.jsonl:5: 'title' is int" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]
    arguments += ["--skip-bad", "1", "--report", str(tmp_path / "report.json")]
    assert main([*arguments, "--relevance", str(tiny_dir), "--min-relevance", "-1"]) == 0
    assert "3  kept of 4 pairs in 5 records" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == {"records": 5, "bad": 1, "pairs": 4, "kept": 3, "dropped": {"duplicate": 1}}
    assert [e.query for e in read_examples(tmp_path / "out.jsonl.gz")] == [
        f"title {i}" for i in range(3)
    ]


def test_real_pages(data_dir, tmp_path):
    """Titles and help pages, as raw records: nearly all are good, copies are found."""
    with gzip.open(data_dir / "train" / "help_ja.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    raw = [{"title": r["query"], "text": r["pos"][0], "lang": "ja"} for r in rows]
    dropped: Counter[str] = Counter()
    kept = list(clean((p for r in raw for p in extract.title_body(r)), Limits(), dropped))
    distinct = len({(r["title"].strip(), r["text"].strip()) for r in raw})
    assert dropped["duplicate"] <= len(raw) - distinct
    assert 0.3 * distinct < len(kept) <= distinct
    assert dropped["wrong script"] < 0.1 * len(raw)
