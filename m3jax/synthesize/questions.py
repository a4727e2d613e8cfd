"""Filters for generated questions; rejected ones are counted by reason."""

import dataclasses
import difflib
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from m3jax.data.cleaning import wrong_script
from m3jax.synthesize.articles import text_size
from m3jax.synthesize.deixis import refers_to_context
from m3jax.synthesize.generators import Reply
from m3jax.synthesize.prompts import NONE

GRAM = 3  # characters of the n-grams that compare question and title
MAX_NAME = 40  # largest `text_size` of a name; only longer common runs are copied text
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)  # the output of reasoning models
_LABEL = re.compile(
    r"^(?:[-*•]\s+|\d{1,2}[.)]\s+)?\**(?:question|query|frage|pregunta|domanda|pergunta|вопрос|"
    r"प्रश्न|السؤال|سؤال|質問|问题|問題|질문|คำถาม)\**\s*[:：]\**\s*",
    re.IGNORECASE,
)
_QUOTES = ('""', "''", "“”", "„“", "«»", "「」", "『』", "**")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionLimits:
    """Limits for questions. 0 turns `script` off, 1 turns `title` and `copied` off.

    Raises ValueError for a share outside [0, 1] and for an empty range of sizes.
    """

    shortest: int = 15  # `text_size`, i.e. five characters of Chinese
    longest: int = 300
    script: float = 0.5  # least share of letters in the language's script
    title: float = 0.7  # largest `title_share`
    copied: float = 0.7  # largest `copied_share`

    def __post_init__(self):
        for name in ("script", "title", "copied"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.shortest <= self.longest:
            raise ValueError(f"no size is between {self.shortest} and {self.longest}")


class Candidate(NamedTuple):
    """A question, and the text from which it was generated."""

    question: str
    paragraph: str
    title: str
    lang: str


def question_of(reply: Reply) -> tuple[str, str]:
    """(question, "") of a reply, or ("", the reason why it contains none)."""
    if reply.text is None:
        return "", "malformed"
    if reply.finish == "length":
        return "", "cut off"
    lines = [line for line in _THOUGHTS.sub("", reply.text).splitlines() if line.strip()]
    if not lines:
        return "", "no question"
    if len(lines) > 1:
        return "", "several lines"
    text = " ".join(_LABEL.sub("", lines[0].strip()).split())
    for opening, closing in _QUOTES:
        inner = text[1:-1]
        if text[:1] == opening and text[-1:] == closing and not set(inner) & {opening, closing}:
            text = inner.strip()
    if not text or text.strip("*.`\"' ").upper() == NONE:
        return "", "no question"
    return text, ""


def filters(limits: QuestionLimits) -> Callable[[Candidate], str]:
    """A function that returns the reason why a candidate is rejected, "" if it passes.

    The checks, in order: too short, too long, wrong script, leans on the text (refers to its
    context), title alone, copied, duplicate. The function keeps the questions that it has passed.
    """
    seen: set[tuple[str, str]] = set()

    def duplicate(candidate: Candidate) -> bool:
        key = candidate.lang, folded(candidate.question)
        if key in seen:
            return True
        seen.add(key)
        return False

    checks: list[tuple[str, Callable[[Candidate], bool]]] = [
        ("too short", lambda c: text_size(c.question) < limits.shortest),
        ("too long", lambda c: text_size(c.question) > limits.longest),
        ("wrong script", lambda c: wrong_script(c.question, c.lang, limits.script)),
        ("leans on the text", lambda c: refers_to_context(c.question, c.lang)),
        ("title alone", lambda c: title_share(c.question, c.title) > limits.title),
        ("copied", lambda c: copied_share(c.question, c.paragraph) > limits.copied),
        ("duplicate", duplicate),
    ]
    return lambda candidate: next((name for name, fails in checks if fails(candidate)), "")


def title_share(question: str, title: str) -> float:
    """The share of the question's distinct 3-grams that occur in the title; 0 without a title.

    If it is large, the document is found by its title alone.
    """
    question_grams, title_grams = _grams(question), _grams(title)
    return len(question_grams & title_grams) / len(question_grams) if question_grams else 0.0


def copied_share(question: str, paragraph: str) -> float:
    """The length of the longest common substring of question and paragraph / that of the question.

    0 if the substring is not longer than a name: "Where is Des Moines?" is not copied.
    """
    text = folded(question)
    matcher = difflib.SequenceMatcher(None, text, folded(paragraph), autojunk=False)
    run = matcher.find_longest_match()
    return run.size / len(text) if text_size(text[run.a : run.a + run.size]) > MAX_NAME else 0.0


def folded(text: str) -> str:
    """The letters, digits and marks of a text, with case and width folded."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] in "LMN")


def _grams(text: str) -> set[str]:
    text = folded(text)
    return {text[i : i + GRAM] for i in range(len(text) - GRAM + 1)}
