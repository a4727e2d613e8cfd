"""The texts of an index, for display, BM25 and encoding: JSON Lines with offsets.

DIRECTORY/documents.jsonl   {"_id", "text"} a line; the text begins with the title
         /offsets.npy       int64 [n + 1]: line i is bytes offsets[i]..offsets[i + 1]
         /summary.json      {"count", "digest"}
"""

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from m3jax.io.hashing import new_digest
from m3jax.io.jsonl import Record


class Document(NamedTuple):
    """One text of the corpus."""

    id: str
    text: str


class Documents(Sequence[Document]):
    """The documents in a directory, read from disk one at a time."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.path = directory / "documents.jsonl"
        self.offsets = np.load(directory / "offsets.npy")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, number: int) -> Document: ...
    @overload
    def __getitem__(self, number: slice) -> list[Document]: ...
    def __getitem__(self, number: int | slice) -> Document | list[Document]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"document {number} of {len(self)}")
        number %= len(self)
        with open(self.path, "rb") as stream:
            stream.seek(int(self.offsets[number]))
            line = stream.read(int(self.offsets[number + 1] - self.offsets[number]))
        return _document(line)

    def __iter__(self) -> Iterator[Document]:
        with open(self.path, "rb") as stream:
            yield from map(_document, stream)

    @functools.cached_property
    def ids(self) -> list[str]:
        """All ids, in order; read once."""
        return [document.id for document in self]


def write_documents(records: Iterable[Record], directory: Path, source: str) -> dict[str, Any]:
    """Writes the texts to an empty directory; returns the summary.

    Raises ValueError for an id that occurs twice, naming both lines, and for an empty corpus.
    """
    lines: dict[str, int] = {}
    offsets = [0]
    digest = new_digest()
    with open(directory / "documents.jsonl", "wb") as stream:
        for record in records:
            if (first := lines.setdefault(record.id, record.line)) != record.line:
                raise ValueError(
                    f"{source}:{record.line}: the id {record.id!r} occurs in line {first} already; "
                    "ids must be unique"
                )
            row = json.dumps({"_id": record.id, "text": record.text}, ensure_ascii=True) + "\n"
            data = row.encode()
            digest.update(data)
            stream.write(data)
            offsets.append(offsets[-1] + len(data))
    if not lines:
        raise ValueError(f"{source} holds no document: nothing to index")
    np.save(directory / "offsets.npy", np.array(offsets, np.int64))
    summary = {"count": len(lines), "digest": digest.hexdigest()}
    (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return summary


def read_summary(directory: Path) -> dict[str, Any]:
    """The summary that `write_documents` stored."""
    return json.loads((directory / "summary.json").read_text(encoding="utf-8"))


def _document(line: bytes) -> Document:
    values = json.loads(line)
    return Document(values["_id"], values["text"])
