"""JSON Lines to texts, one object a line, plain or gzip-compressed or from standard input.

Never imports JAX.
"""

import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Record(NamedTuple):
    """One text to encode, and where it came from."""

    id: str
    text: str  # the title in front, where there is one
    line: int  # from 1


def read_records(path: str) -> Iterator[Record]:
    """Yields the records of FILE.jsonl, FILE.jsonl.gz or `-`; blank lines are passed over.

    `{"text": str, "_id": str?, "title": str?}`; without `_id` a record is named by its place, from
    0. Raises FileNotFoundError, or ValueError that names file and line.
    """
    name = "<stdin>" if path == "-" else path
    place = 0
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        values = parse_object(line, f"{name}:{number}")
        text = _string(values, "text", f"{name}:{number}", required=True)
        title = _string(values, "title", f"{name}:{number}")
        record_id = values.get("_id", place)
        if not isinstance(record_id, (str, int)) or isinstance(record_id, bool):
            raise ValueError(f"{name}:{number}: _id must be a string or a number: {record_id!r}")
        yield Record(str(record_id), f"{title} {text}".strip() if title else text, number)
        place += 1


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of a UTF-8 file; ValueError names the line that cannot be read."""
    name = "<stdin>" if path == "-" else path
    number = 0
    try:
        with _open(path) as stream:
            for raw in stream:
                number += 1
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(f"{name}:{number}: not valid UTF-8: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: damaged gzip data after line {number}: {error}") from error


def parse_object(line: str, place: str) -> dict[str, Any]:
    """A JSON object; `place` (file:line) is named in the ValueError."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{place}: expected a JSON object, got {type(values).__name__}")
    return values


def _string(values: dict[str, Any], key: str, place: str, required: bool = False) -> str:
    value = values.get(key, None if required else "")
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        got = f"is {type(value).__name__}" if key in values else "is missing"
        raise ValueError(f"{place}: {key!r} {got}, expected a string")
    return value


def _open(path: str) -> Any:
    if path == "-":
        return sys.stdin.buffer
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    with open(path, "rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else open(path, "rb")
