"""Training records as mining and scoring read and write them."""

import json
from typing import Any

from m3jax.data.examples import Example, Place
from m3jax.io.jsonl import string_of


def passage_language(record: dict[str, Any], example: Example, place: Place) -> str:
    """The language of an example's passages: "pos_lang", else "lang"."""
    return string_of(record, "pos_lang", str(place)) or example.lang


def record_line(record: dict[str, Any], example: Example) -> str:
    """The record as a line of an output that merges several files.

    What a file's name implies (source, no in-batch negatives) becomes part of the record.
    """
    if example.source:
        record = record | {"source": example.source}
    if not example.in_batch:
        record = record | {"in_batch": False}
    return json.dumps(record, ensure_ascii=False, default=str) + "\n"
