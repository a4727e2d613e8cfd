"""The small multilingual corpus that ships in the package, with its questions.

Sources and licences: assets/sample/ATTRIBUTION.md. Never imports JAX.
"""

import json
from importlib import resources
from typing import NamedTuple


class Passage(NamedTuple):
    """A paragraph of the sample corpus."""

    id: str
    text: str
    lang: str


class Question(NamedTuple):
    """A human question and the passage that answers it."""

    id: str
    text: str
    lang: str
    positive: str


def passages() -> list[Passage]:
    """All passages, in file order."""
    return [Passage(row["_id"], row["text"], row["lang"]) for row in _rows("corpus.jsonl")]


def questions() -> list[Question]:
    """All questions, in file order."""
    rows = _rows("queries.jsonl")
    return [Question(row["_id"], row["text"], row["lang"], row["positive"]) for row in rows]


def _rows(name: str) -> list[dict[str, str]]:
    path = resources.files("m3jax") / "assets" / "sample" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
