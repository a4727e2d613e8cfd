"""BM25 against its formula, and the terms of texts."""

import math
from collections import Counter

import numpy as np
import pytest

from m3jax.search import bm25

TEXTS = ["the cat sat on the mat", "the dog", "a cat and a dog and a cat", "nothing here", "the"]


def by_hand(query: list, documents: list[list], k1: float, b: float) -> np.ndarray:
    """Lucene's BM25 in float64."""
    mean = sum(map(len, documents)) / len(documents)
    scores = np.zeros(len(documents))
    for term, count in Counter(query).items():
        holders = sum(term in document for document in documents)
        if not holders:
            continue
        idf = math.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))
        for i, document in enumerate(documents):
            tf = document.count(term)
            scores[i] += count * idf * tf / (tf + k1 * (1 - b + b * len(document) / mean))
    return scores


def check(found, scores, exact):
    want = [i for i in np.lexsort((np.arange(len(exact)), -exact)) if exact[i] > 0]
    assert found.tolist() == want
    np.testing.assert_allclose(scores, exact[want], rtol=1e-5)


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.5, 0.75)])
def test_words_score_by_the_formula(k1, b):
    engine = bm25.build(TEXTS, k1=k1, b=b)
    documents = [bm25.word_terms(text) for text in TEXTS]
    queries = ["cat dog", "The, the CAT!", "unheard of", "mat nothing"]
    hits = engine.search(queries, 10)
    for query, found, scores in zip(queries, *hits, strict=True):
        check(found, scores, by_hand(bm25.word_terms(query), documents, k1, b))


def test_tokens_score_by_the_formula(tiny):
    engine = bm25.build(TEXTS, tokenizer=tiny.tokenizer)
    special = {0, 1, 2, 3}
    documents, queries = (
        [[i for i in ids.tolist() if i not in special] for ids in tiny.tokenizer.encode(texts, 99)]
        for texts in (TEXTS, ["the cat", "dog dog mat"])
    )
    hits = engine.search(["the cat", "dog dog mat"], 10)
    for query, found, scores in zip(queries, *hits, strict=True):
        check(found, scores, by_hand(query, documents, 0.9, 0.4))


def test_saved_and_loaded(tmp_path, tiny):
    for name, tokenizer in (("words", None), ("tokens", tiny.tokenizer)):
        engine = bm25.build(TEXTS, tokenizer=tokenizer)
        bm25.save(engine, tmp_path / name)
        again = bm25.load(tmp_path / name, tokenizer)
        for a, b in zip(engine.search(["the cat"], 3), again.search(["the cat"], 3), strict=True):
            np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("It's 3.5 km_h", ["it", "s", "3", "5", "km", "h"]),
        ("ＡＢＣ Straße", ["abc", "straße"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # combining marks stay in their words
        ("北京大学", ["北京", "京大", "大学"]),
        ("字", ["字"]),
        ("BGE模型v2", ["bge", "模型", "v2"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("서울 대학교", ["서울", "대학교"]),  # Korean has spaces
        ("", []),
    ],
)
def test_words(text, terms):
    assert bm25.word_terms(text) == terms


def test_nothing_to_score():
    with pytest.raises(ValueError, match="at least one document with a term"):
        bm25.build(["", "!!"])
