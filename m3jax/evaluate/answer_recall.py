"""MKQA's measure: a passage is relevant if it contains an answer, token by token [M3 sec. 4.2].

Texts are compared as in DPR and Contriever: lower-cased, in Unicode NFD, split into runs of
letters, digits and marks, and other visible characters alone. The tokens of an answer must be
adjacent in the passage. An answer without tokens matches nothing.
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
    """The text's tokens, each between gaps, so that `in` matches sequences of complete tokens."""
    matches = _TOKENS.findall(unicodedata.normalize("NFD", text).lower())
    return _GAP + "".join(token + _GAP for token in matches)


def answer_recall(
    rankings: Mapping[str, Sequence[Any]],
    answers: Mapping[str, Sequence[str]],
    text_of: Callable[[Any], str],
    cutoffs: Sequence[int] = (20, 100),
) -> dict[str, dict[str, float]]:
    """Recall@k of every query of `answers`: 1 if one of the top k passages contains an answer.

    `rankings` holds documents, best first, in any form that `text_of` takes; a query without a
    ranking counts 0. Each passage is split into tokens once.
    """
    passages: dict[Any, str] = {}
    values: dict[str, dict[str, float]] = {f"Recall@{k}": {} for k in cutoffs}
    for query, accepted in answers.items():
        targets = [tokens(answer) for answer in accepted]
        first = None
        for rank, document in enumerate(rankings.get(query, ())[: max(cutoffs)]):
            if document not in passages:
                passages[document] = tokens(text_of(document))
            if _contains(passages[document], targets):
                first = rank
                break
        for k in cutoffs:
            values[f"Recall@{k}"][query] = float(first is not None and first < k)
    return values


def plain(text: str) -> str:
    """MKQA's passages as they are encoded: lower-cased, with ASCII quotes, dashes and spaces.

    The published scripts replace more characters; letters are never changed.
    """
    text = text.lower().translate(_PLAIN)
    return _SPACES.sub(" ", text).strip()


def _contains(passage: str, answers: Sequence[str]) -> bool:
    return any(answer != _GAP and answer in passage for answer in answers)
