"""Articles are read, sampled and divided into paragraphs."""

import json
from collections import Counter

import numpy as np
import pytest
from support.synthesis import article_text

from m3jax.io.jsonl import BadRecords
from m3jax.synthesize.articles import (
    Article,
    ArticleSampling,
    read_articles,
    sample_articles,
    sample_numbers,
    split_paragraphs,
    text_size,
)


def articles(count: int, lang: str = "en") -> list[Article]:
    return [Article(f"{lang}{i}", "", article_text(i), lang, "s") for i in range(count)]


def test_articles_are_read_from_records_and_from_training_examples(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"_id": 3, "title": "T", "text": " body ", "lang": "de"},
        {"query": "q", "pos": ["one", "two"], "id": "q1", "source": "other"},
        {"text": "no id"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = list(read_articles(path, BadRecords(), "en"))
    assert [(a.title, a.text, a.lang, a.source) for a in found] == [
        ("T", "body", "de", "a"),
        ("", "one", "en", "other"),
        ("", "two", "en", "other"),
        ("", "no id", "en", "a"),
    ]
    assert found[0].id == "3" and found[0].document == "T body" and len({a.id for a in found}) == 4


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": " "}, "a.jsonl:1: 'text' is missing or blank"),
        ({"text": "x", "id": "a\tb"}, "a.jsonl:1: the id is empty or holds a tab"),
        ({"text": "x", "lang": "../up"}, "a.jsonl:1: 'lang' must be a code"),
        ({"pos": "x"}, "a.jsonl:1: 'pos' must be a list of strings"),
    ],
)
def test_invalid_records_are_named(tmp_path, record, message):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        list(read_articles(path, BadRecords()))


def test_sampling_by_length_language_and_number(tiny):
    long = [a._replace(text=article_text(i, 6 + i)) for i, a in enumerate(articles(9))]
    excluded: Counter[str] = Counter()
    some = [*long, *articles(3, "de"), Article("x", "", "short", "en", "s"), long[0]]
    few = ArticleSampling(languages=("en",), per_language=4, seed=1)
    drawn = sample_articles(some, few, excluded)
    assert excluded == {"another language": 3, "too short": 1, "duplicate": 1, "not drawn": 5}
    assert {a.id for a in sample_articles(some[::-1], few, Counter())} == {a.id for a in drawn}
    assert [a.id for a in drawn] == sorted(a.id for a in drawn)
    assert {a.id for a in sample_articles(long, few, Counter())} == {a.id for a in drawn}
    other = ArticleSampling(languages=("en",), per_language=4, seed=2)
    assert {a.id for a in sample_articles(some, other, Counter())} != {a.id for a in drawn}
    lengths = tiny.tokenizer.count([a.text for a in long])
    middle = int(np.median(lengths))
    by_tokens = ArticleSampling(min_tokens=middle, max_tokens=int(lengths.max()) - 1)
    found = {a.id for a in sample_articles(long, by_tokens, Counter(), tiny.tokenizer)}
    assert found == {
        a.id for a, n in zip(long, lengths, strict=True) if middle <= n < lengths.max()
    }


def test_different_articles_with_one_id_are_an_error():
    twice = [a._replace(id="same") for a in articles(2)]
    with pytest.raises(ValueError, match="two different articles have the id 'same'"):
        sample_articles(twice, ArticleSampling(), Counter())


def test_paragraphs_have_bounded_sizes_and_drop_only_tables():
    long_line = " ".join(f"Sentence number {i} speaks of a thing." for i in range(200))
    table = "\n".join("| 12 | 34 | 56 | 78 |" for _ in range(40))
    japanese = "東京は日本の首都であり、世界最大級の都市である。" * 60
    text = f"Heading\n\n{long_line}\n{table}\n{japanese}"
    found = split_paragraphs(text, 300, 1000)
    assert all(300 <= text_size(p) <= 1000 for p in found)
    assert found[0].startswith("Heading\nSentence number 0 ")
    joined = " ".join(found)
    assert all(f"Sentence number {i} speaks" in joined for i in range(200))
    assert joined.count("首都") == 60 and "| 12 |" not in joined.replace("\n", "")[-2000:]
    assert split_paragraphs("short", 300, 1000) == []
    assert all(text_size(p) <= 1000 for p in split_paragraphs("x" * 5000 + "ก" * 5000, 300, 1000))


def test_sampled_paragraphs_are_a_function_of_seed_and_article():
    one, two = articles(2)
    assert sample_numbers(one, 3, 10, seed=0) == sample_numbers(
        one._replace(text="edited"), 3, 10, seed=0
    )
    assert set(sample_numbers(one, 2, 10, seed=0)) < set(sample_numbers(one, 3, 10, seed=0))
    ways = {tuple(sample_numbers(a, 3, 10, seed=s)) for a in (one, two) for s in range(3)}
    assert len(ways) >= 5 and sample_numbers(one, 5, 2, seed=0) == [0, 1]
