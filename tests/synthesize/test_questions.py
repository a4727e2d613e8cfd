"""The question in a reply, and each filter of questions."""

import pytest

from m3jax.synthesize.generators import Reply
from m3jax.synthesize.questions import Candidate, QuestionLimits, filters, question_of


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Who built it?", ("Who built it?", "")),
        ('  "Who built it?" \n', ("Who built it?", "")),
        ("**Question:** Who built it?", ("Who built it?", "")),
        ("问题：谁建造了长城？", ("谁建造了长城？", "")),
        ("« Qui l'a bâti ? »", ("Qui l'a bâti ?", "")),
        ('"Emma" or "Persuasion"', ('"Emma" or "Persuasion"', "")),
        ("<think>Hm.\nWell.</think>\nWho built it?", ("Who built it?", "")),
        ("NONE", ("", "no question")),
        ("none.", ("", "no question")),
        ("<think>a</think>", ("", "no question")),
        ("Here is one:\nWho built it?", ("", "several lines")),
    ],
)
def test_the_question_in_a_reply(text, want):
    assert question_of(Reply(text)) == want


def test_a_truncated_reply_has_no_question():
    assert question_of(Reply("Who built the", "length")) == ("", "cut off")


GOOD = Candidate(
    "When was the iron tower of Paris painted red?",
    "The colour of the Eiffel Tower was changed to red in 1889, and to ochre some years later.",
    "Eiffel Tower",
    "en",
)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"question": "Which one?"}, "too short"),
        ({"question": "谁发明了纸？", "lang": "zh"}, ""),
        ({"question": "谁？", "lang": "zh"}, "too short"),
        ({"question": "Why " + "very " * 80 + "red?"}, "too long"),
        ({"lang": "ru"}, "wrong script"),
        ({"lang": "xx"}, ""),  # nothing is known of that language
        ({"question": "What does article 5 of the treaty say about salt?"}, ""),
        ({"question": "When does this article say the tower turned red?"}, "leans on the text"),
        ({"question": "When did he paint the tower red?"}, "leans on the text"),
        ({"question": "What is the Eiffel Tower?", "title": "The Eiffel Tower"}, ""),
        (
            {
                "question": "What of the history of the Eiffel Tower?",
                "title": "History of the Eiffel Tower",
            },
            "title alone",
        ),
        ({"question": "埃菲尔铁塔的历史是什么？", "title": "埃菲尔铁塔的历史", "lang": "zh"}, ""),
        (
            {"question": "The colour of the Eiffel Tower was changed to red in which year?"},
            "copied",
        ),
        ({"question": "Where is the Eiffel Tower?"}, ""),  # a name is no copy
    ],
)
def test_each_filter(changed, reason):
    assert filters(QuestionLimits())(GOOD._replace(**changed)) == reason


def test_filters_can_be_turned_off_and_duplicates_are_found():
    off = filters(QuestionLimits(shortest=0, longest=10**6, script=0.0, title=1.0, copied=1.0))
    for question in ("x", "y " * 900, "Eiffel Tower", GOOD.paragraph):
        assert off(GOOD._replace(question=question)) == ""
    assert off(GOOD._replace(question="Eiffel  tower!")) == "duplicate"
    assert off(GOOD._replace(question="Eiffel  tower!", lang="de")) == ""
