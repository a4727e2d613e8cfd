"""JSON Lines: one JSON object per line, in a plain, gzip or zstd file or on standard input."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from m3jax.io.streams import open_chunks

MAX_LOGGED = 5  # bad records that are logged; further ones are only counted


class BadRecords:
    """Counts records that cannot be used, and raises once there are more than `allowed`.

    The first few are logged. `count` is the number so far.
    """

    def __init__(self, allowed: int = 0):
        if allowed < 0:
            raise ValueError(f"skip_bad must be 0 or more, got {allowed}")
        self.allowed = allowed
        self.count = 0

    def __call__(self, error: ValueError) -> None:
        """Counts one bad record; raises `error`, with advice, if no more are allowed."""
        self.count += 1
        if self.count > self.allowed:
            if self.allowed:
                raise ValueError(
                    f"{error} (bad record number {self.count}; {self.allowed} may be skipped)"
                ) from error
            raise ValueError(
                f"{error} (correct or remove the record, or allow N bad ones: --skip-bad N)"
            ) from error
        if self.count <= MAX_LOGGED:
            more = "; further ones are only counted" if self.count == MAX_LOGGED else ""
            logging.getLogger(__name__).warning("skipped %s%s", error, more)


class Record(NamedTuple):
    """A text to encode, with its id and its line in the file."""

    id: str
    text: str  # preceded by its title, if it has one
    line: int  # from 1


def read_records(path: str) -> Iterator[Record]:
    """Yields the records {"text": str, "_id": str?, "title": str?} of a file, or of "-".

    Blank lines are skipped. A record without "_id" gets its position, counted from 0. Raises
    FileNotFoundError, or ValueError that names file and line.
    """
    name = "<stdin>" if path == "-" else path
    position = 0
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        values = parse_object(line, f"{name}:{number}")
        text = string_of(values, "text", f"{name}:{number}", required=True)
        title = string_of(values, "title", f"{name}:{number}")
        record_id = values.get("_id", position)
        if not isinstance(record_id, (str, int)) or isinstance(record_id, bool):
            raise ValueError(f"{name}:{number}: _id must be a string or a number: {record_id!r}")
        yield Record(str(record_id), with_title(title, text), number)
        position += 1


def with_title(title: str, text: str) -> str:
    """The text as it is encoded: its title, if it has one, a space, the text."""
    return f"{title} {text}".strip() if title else text


def _raise(error: ValueError) -> None:
    raise error


def numbered_lines(
    path: str,
    *,
    longest: int | None = None,
    on_bad: Callable[[ValueError], None] = _raise,
) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line) of a UTF-8 file.

    Lines of more than `longest` bytes are not held in memory. `on_bad` is called with the
    ValueError of a line that is too long or not UTF-8; if it returns, reading continues with the
    next line. Damaged compressed data always raise, since the number of lost lines is unknown.
    """
    name = "<stdin>" if path == "-" else path
    number = 0
    try:
        for number, (raw, size) in enumerate(_split_lines(open_chunks(path), longest), start=1):
            if raw is None:
                on_bad(
                    ValueError(
                        f"{name}:{number}: a line of {size:,} bytes, more than the {longest:,} "
                        "a record may have: is a line end missing?"
                    )
                )
                continue
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                on_bad(ValueError(f"{name}:{number}: not valid UTF-8: {error}"))
                continue
            yield number, line
    except EOFError as error:
        raise ValueError(f"{name}: {error} after line {number}; get the file again") from error


def _split_lines(
    chunks: Iterable[bytes], longest: int | None
) -> Iterator[tuple[bytes | None, int]]:
    """Yields (line without its end, its bytes); None for the line if it is over `longest`."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for end in complete:
            size += len(end)
            kept = longest is None or size <= longest
            yield b"".join([*held, end]) if kept else None, size
            held, size = [], 0
        size += len(rest)
        if longest is None or size <= longest:
            held.append(rest)
        else:
            held = []
    if size:
        yield b"".join(held) if longest is None or size <= longest else None, size


def parse_object(line: str, place: str) -> dict[str, Any]:
    """Parses a line that holds a JSON object; the ValueError names `place` (file:line)."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, deep nesting
        raise ValueError(f"{place}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{place}: expected a JSON object, got {type(values).__name__}")
    return values


def string_of(values: dict[str, Any], key: str, place: str, required: bool = False) -> str:
    """The string under `key`; "" if it is missing or null and not required."""
    value = values.get(key, None if required else "")
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        got = f"is {type(value).__name__}" if key in values else "is missing"
        raise ValueError(f"{place}: {key!r} {got}, expected a string")
    return value
