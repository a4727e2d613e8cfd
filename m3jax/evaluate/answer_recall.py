"""MKQA's measure: a passage is a hit if it holds an answer, word for word [M3 sec. 4.2].

Texts are compared as DPR and Contriever compare them: NFD, split into runs of letters, digits
and marks or else single visible characters, lower-cased, the answer's tokens standing next to
each other. An answer without any token matches nothing.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import regex

_TOKENS = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")  # and control characters
_GAP = "\x1f"  # a control character: never inside a token
_PLAIN = {ord(c): "-" for c in "‐‑‒–—―−"}
_PLAIN |= {ord(c): "'" for c in "‘’‚‛′ʼ`´"} | {ord(c): '"' for c in "“”„‟″«»"} | {ord("…"): "..."}


def tokens(text: str) -> str:
    """The text's tokens between gaps, so that `in` finds whole tokens in a row."""
    found = _TOKENS.findall(unicodedata.normalize("NFD", text).lower())
    return _GAP + "".join(token + _GAP for token in found)


def has_answer(passage: str, answers: Sequence[str]) -> bool:
    """Does any answer stand in the passage?"""
    return _holds(tokens(passage), [tokens(answer) for answer in answers])


def answer_recall(
    rankings: Mapping[str, Sequence[Any]],
    answers: Mapping[str, Sequence[str]],
    text_of: Callable[[Any], str],
    cutoffs: Sequence[int] = (20, 100),
) -> dict[str, dict[str, float]]:
    """Recall@k of every query of `answers`: 1 where any of the top k passages holds an answer.

    `rankings` are documents by any name that `text_of` knows, best first; a query without ranking
    counts 0. Each passage is split into tokens once.
    """
    passages: dict[Any, str] = {}
    values: dict[str, dict[str, float]] = {f"Recall@{k}": {} for k in cutoffs}
    for query, accepted in answers.items():
        wanted = [tokens(answer) for answer in accepted]
        first = None
        for rank, document in enumerate(rankings.get(query, ())[: max(cutoffs)]):
            if document not in passages:
                passages[document] = tokens(text_of(document))
            if _holds(passages[document], wanted):
                first = rank
                break
        for k in cutoffs:
            values[f"Recall@{k}"][query] = float(first is not None and first < k)
    return values


def plain(text: str) -> str:
    """MKQA's passages as they are encoded: lower-cased, typographic signs and spaces made plain.

    The published scripts do this with a longer table of signs; letters are never touched.
    """
    text = text.lower().translate(_PLAIN)
    return _SPACES.sub(" ", text).strip()


def _holds(passage: str, wanted: Sequence[str]) -> bool:
    return any(answer != _GAP and answer in passage for answer in wanted)
