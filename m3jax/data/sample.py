"""The small multilingual corpus in the package, with questions.

Sources and licences: assets/sample/ATTRIBUTION.md.
"""

import json
from importlib import resources
from typing import NamedTuple


class Passage(NamedTuple):
    """A paragraph of the sample corpus."""

    id: str
    text: str
    lang: str


class SampleQuestion(NamedTuple):
    """A question written by a person, and the id of the passage that answers it."""

    id: str
    text: str
    lang: str
    positive: str


def sample_passages() -> list[Passage]:
    """All passages, in file order."""
    return [Passage(row["_id"], row["text"], row["lang"]) for row in _rows("corpus.jsonl")]


def sample_questions() -> list[SampleQuestion]:
    """All questions, in file order."""
    rows = _rows("queries.jsonl")
    return [SampleQuestion(row["_id"], row["text"], row["lang"], row["positive"]) for row in rows]


def _rows(name: str) -> list[dict[str, str]]:
    path = resources.files("m3jax") / "assets" / "sample" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
