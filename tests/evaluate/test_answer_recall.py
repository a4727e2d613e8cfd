"""Answers in passages, matched token by token."""

import unicodedata

import numpy as np
import pytest

from m3jax.evaluate.answer_recall import answer_recall, plain


def contains(passage, *answers):
    """Whether `answer_recall` counts the only passage of a ranking."""
    values = answer_recall({"q": [passage]}, {"q": answers}, str, cutoffs=(1,))
    return bool(values["Recall@1"]["q"])


@pytest.mark.parametrize(
    ("passage", "answers", "expected"),
    [
        ("The catalog is new.", ["cat"], False),  # no part of a token
        ("The CAT sat.", ["cat sat"], True),
        ("The cat, sat.", ["cat sat"], False),  # the comma is a token
        ("In 1,843 ways", ["1,843"], True),
        ("caf\u00e9 noir", ["Cafe\u0301"], True),  # the same in NFD
        ("anything", ["", " ", "\u200b"], False),  # nothing to look for
        ("", ["a"], False),
        ("ไทย คือ", ["คือ"], True),
        ("a b c", ["x", "b c"], True),
    ],
)
def test_answers_are_matched_token_by_token(passage, answers, expected):
    assert contains(passage, *answers) is expected


def test_matching_equals_a_search_token_by_token():
    """The oracle classifies single characters and compares lists of tokens at every position."""

    def split(text):
        out, word = [], ""
        for char in unicodedata.normalize("NFD", text).lower():
            category = unicodedata.category(char)[0]
            if category in "LNM":
                word += char
                continue
            out, word = [*out, word] if word else out, ""
            out = out if category in "ZC" else [*out, char]
        return [*out, word] if word else out

    rng = np.random.default_rng(0)
    alphabet = list("ab1 .,é\u0301\u200b\t-中Ａ")
    hits = 0
    for _ in range(3000):
        passage = "".join(rng.choice(alphabet, rng.integers(0, 25)))
        answer = "".join(rng.choice(alphabet, rng.integers(0, 4)))
        a, b = split(answer), split(passage)
        want = bool(a) and any(b[i : i + len(a)] == a for i in range(len(b)))
        assert contains(passage, answer) == want, (passage, answer)
        hits += want
    assert 300 < hits < 2700


def test_recall_needs_one_answer_in_one_passage():
    texts = {f"d{i}": f"passage {i}" for i in range(150)}
    rankings = {"q1": list(texts), "q2": list(texts)[::-1], "q4": []}
    answers = {"q1": ["150", "passage 20"], "q2": ["passage 149"], "q3": ["passage"], "q4": ["0"]}
    values = answer_recall(rankings, answers, texts.__getitem__)
    assert values == {
        "Recall@20": {"q1": 0.0, "q2": 1.0, "q3": 0.0, "q4": 0.0},  # passage 20 is the 21st
        "Recall@100": {"q1": 1.0, "q2": 1.0, "q3": 0.0, "q4": 0.0},
    }


def test_plain_text_keeps_every_letter():
    assert plain("“Ça” – va…\u00a0\tОК ’s 中文\x00!") == '"ça" - va... ок \'s 中文 !'
