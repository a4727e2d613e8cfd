"""Pairs for the unsupervised stage from raw records, such as title and body [M3 sec. 3.1].

An extractor is a pure function from one record to its pairs. A missing field gives no pair; a field
of another type raises ValueError.
"""

import ast
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Record = dict[str, Any]


class Pair(NamedTuple):
    """A query and its passage; an unknown language is ""."""

    query: str
    passage: str
    lang: str = ""
    passage_lang: str = ""
    id: str = ""

    def record(self) -> Record:
        """The pair as a record of the training format."""
        values: Record = {"query": self.query, "pos": [self.passage], "neg": []}
        values |= {"id": self.id} if self.id else {}
        values |= {"lang": self.lang} if self.lang else {}
        return values | ({"pos_lang": self.passage_lang} if self.passage_lang != self.lang else {})


def title_body(record: Record) -> Iterator[Pair]:
    """{"title", "text"}: pages, articles, news."""
    yield from _two(record, "title", "text")


def title_abstract(record: Record) -> Iterator[Pair]:
    """{"title", "abstract"}: papers."""
    yield from _two(record, "title", "abstract")


def instruction_output(record: Record) -> Iterator[Pair]:
    """{"instruction", "input"?, "output"} or {"inputs", "targets"}."""
    if "inputs" in record:
        yield from _two(record, "inputs", "targets")
        return
    parts = [_text(record, "instruction"), _text(record, "input")]
    record = record | {"instruction": "\n".join(part for part in parts if part)}
    yield from _two(record, "instruction", "output")


def parallel(record: Record) -> Iterator[Pair]:
    """{"translation": {language: sentence, language: sentence}}: one pair, in this order."""
    translation = record.get("translation")
    if translation is None:
        return
    if not isinstance(translation, dict) or len(translation) != 2:
        raise ValueError("'translation' must hold two languages")
    (lang, query), (other, passage) = translation.items()
    if not isinstance(query, str) or not isinstance(passage, str):
        raise ValueError("'translation' must hold two strings")
    if query.strip() and passage.strip():
        yield Pair(query.strip(), passage.strip(), lang, other, _id(record))


def code_comment(record: Record) -> Iterator[Pair]:
    """{"code", "language"?}: docstrings of Python functions and classes, or comment blocks.

    The passage is the code without that comment. Python code that does not parse gives no pair.
    """
    code = _text(record, "code")
    language = _text(record, "language").lower() or "python"
    found = _docstrings(code) if language == "python" else _comments(code)
    for number, (comment, body) in enumerate(found):
        name = _id(record)
        yield Pair(comment, body, "", "", f"{name}-{number}" if name else "")


EXTRACTORS: dict[str, Callable[[Record], Iterator[Pair]]] = {
    "title-body": title_body,
    "title-abstract": title_abstract,
    "instruction-output": instruction_output,
    "parallel": parallel,
    "code-comment": code_comment,
}


def _two(record: Record, query: str, passage: str) -> Iterator[Pair]:
    first, second = _text(record, query), _text(record, passage)
    if first and second:
        lang = _text(record, "lang") or _text(record, "language")
        yield Pair(first, second, lang, lang, _id(record))


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is {type(value).__name__}, expected a string")
    return value.strip()


def _id(record: Record) -> str:
    return str(record.get("id", record.get("_id", "")))


def _docstrings(code: str) -> Iterator[tuple[str, str]]:
    """Yields (docstring, definition without it) of functions and classes, outermost first."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = re.split(r"\r\n|\r|\n", code)  # as `ast` counts lines: a form feed does not end one
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        comment = ast.get_docstring(node)
        if not comment or len(node.body) < 2:
            continue
        first = node.body[0]
        kept = [
            *lines[node.lineno - 1 : first.lineno - 1],
            *lines[first.end_lineno : node.end_lineno],
        ]
        yield comment, textwrap.dedent("\n".join(kept))


_BLOCK = re.compile(
    r"^(?P<comment>[ \t]*/\*.*?\*/|(?:[ \t]*(?://|#)[^\n]*\n)+)[ \t]*\n?"
    r"(?P<code>[ \t]*[^\s/#*][^\n]*\n(?:[^\n]*\S[^\n]*(?:\n|$))*)",
    re.MULTILINE | re.DOTALL,
)
_MARKS = re.compile(r"^[ \t]*(?:/\*\*?|\*/|\*|//+|#+)[ \t]?|[ \t]*\*/[ \t]*$", re.MULTILINE)


def _comments(code: str) -> Iterator[tuple[str, str]]:
    """Yields (comment, the code directly below it, up to the first blank line)."""
    for match in _BLOCK.finditer(code + "\n"):
        comment = _MARKS.sub("", match["comment"]).strip()
        if comment:
            yield comment, textwrap.dedent(match["code"]).strip("\n")
