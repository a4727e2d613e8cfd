"""Digests of texts, files and values: BLAKE2b, the same on every machine.

Digests name cached files and tell whether something has changed. They are not a protection against
forgery: `size` is the number of bytes, chosen by how many values share one name space.
"""

import hashlib
from pathlib import Path
from typing import Any


def new_digest(data: bytes = b"", *, size: int = 16) -> Any:
    """A BLAKE2b object of `size` bytes: `update(data)`, then `hexdigest()`."""
    return hashlib.blake2b(data, digest_size=size)


def hex_digest(data: bytes | str, *, size: int = 16) -> str:
    """2 * `size` hexadecimal digits. Strings are UTF-8; lone surrogates are kept."""
    return new_digest(_as_bytes(data), size=size).hexdigest()


def int_digest(data: bytes | str, *, size: int = 8, byteorder: Any = "little") -> int:
    """An unsigned integer of `size` bytes."""
    return int.from_bytes(new_digest(_as_bytes(data), size=size).digest(), byteorder)


def file_digest(path: Path, *, size: int = 16) -> str:
    """The digest of a file's contents, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: new_digest(size=size)).hexdigest()


def file_digests(folder: Path, pattern: str = "*") -> dict[str, list[Any]]:
    """{path relative to `folder`: [bytes, digest]} of the files matching `pattern`, sorted."""
    paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(p.relative_to(folder)): [p.stat().st_size, file_digest(p)] for p in paths}


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
