"""Which replies are questions worth training on; the others are counted by reason.

Never imports JAX.
"""

import dataclasses
import difflib
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from m3jax.data.cleaning import wrong_script
from m3jax.synthesize.articles import size
from m3jax.synthesize.deixis import leans_on_text
from m3jax.synthesize.generators import Reply
from m3jax.synthesize.prompts import NONE

GRAM = 3  # characters by which question and title are compared
NAME = 40  # `size` of a run that may be a long name; only longer ones are copied text
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)  # of models that reason aloud
_LABEL = re.compile(
    r"^(?:[-*•]\s+|\d{1,2}[.)]\s+)?\**(?:question|query|frage|pregunta|domanda|pergunta|вопрос|"
    r"प्रश्न|السؤال|سؤال|質問|问题|問題|질문|คำถาม)\**\s*[:：]\**\s*",
    re.IGNORECASE,
)
_QUOTES = ('""', "''", "“”", "„“", "«»", "「」", "『』", "**")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionLimits:
    """What a question must satisfy; 1 turns a share off (0 for script)."""

    shortest: int = 15  # `size`: five characters of Chinese
    longest: int = 300
    script: float = 0.5  # least share of letters in the language's script
    title: float = 0.7  # most of the question's 3-grams that stand in the title
    copied: float = 0.7  # most of the question in one run of the paragraph longer than a name

    def __post_init__(self):
        for name in ("script", "title", "copied"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.shortest <= self.longest:
            raise ValueError(f"no size lies between {self.shortest} and {self.longest}")


class Candidate(NamedTuple):
    """A question, and what it was made from."""

    question: str
    paragraph: str
    title: str
    lang: str


def question_of(reply: Reply) -> tuple[str, str]:
    """(question, "") of a reply, or ("", why it holds none)."""
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
    """A function of a candidate to why it is dropped, "" where it passes. It remembers duplicates.

    In order: too short, too long, wrong script, leans on the text, title alone, copied, duplicate.
    """
    known: set[tuple[str, str]] = set()

    def duplicate(candidate: Candidate) -> bool:
        key = candidate.lang, folded(candidate.question)
        if key in known:
            return True
        known.add(key)
        return False

    checks: list[tuple[str, Callable[[Candidate], bool]]] = [
        ("too short", lambda c: size(c.question) < limits.shortest),
        ("too long", lambda c: size(c.question) > limits.longest),
        ("wrong script", lambda c: wrong_script(c.question, c.lang, limits.script)),
        ("leans on the text", lambda c: leans_on_text(c.question, c.lang)),
        ("title alone", lambda c: title_share(c.question, c.title) > limits.title),
        ("copied", lambda c: copied_share(c.question, c.paragraph) > limits.copied),
        ("duplicate", duplicate),
    ]
    return lambda candidate: next((name for name, fails in checks if fails(candidate)), "")


def title_share(question: str, title: str) -> float:
    """Share of the question's distinct 3-grams that stand in the title; 0 without a title.

    The text that holds such a question is known by its title: no reading is needed.
    """
    asked, given = _grams(question), _grams(title)
    return len(asked & given) / len(asked) if asked else 0.0


def copied_share(question: str, paragraph: str) -> float:
    """The longest run that question and paragraph share, as a part of the question.

    0 for a run up to the size of a name: "Where is Des Moines?" copies nothing.
    """
    asked, given = folded(question), folded(paragraph)
    matcher = difflib.SequenceMatcher(None, asked, given, autojunk=False)
    run = matcher.find_longest_match()
    return run.size / len(asked) if size(asked[run.a : run.a + run.size]) > NAME else 0.0


def folded(text: str) -> str:
    """Letters, digits and their marks alone, case and width made equal."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] in "LMN")


def _grams(text: str) -> set[str]:
    text = folded(text)
    return {text[i : i + GRAM] for i in range(len(text) - GRAM + 1)}
