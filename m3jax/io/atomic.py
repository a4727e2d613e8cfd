"""Directories and files that appear under their name only when they are complete."""

import contextlib
import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal


@contextlib.contextmanager
def new_directory(path: Path | str, replace: bool = False) -> Iterator[Path]:
    """A temporary directory that is renamed to `path` when the block ends without error.

    If the block raises, nothing appears under `path`. Raises FileExistsError if `path` is a file,
    or a directory that is not empty; with `replace`, such a directory is removed once the new one
    is complete.
    """
    path = Path(path)
    if path.is_file() or (not replace and path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path} already exists; name a new directory or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = scratch.with_name(f"{scratch.name}.old")
    try:
        yield scratch
        scratch.chmod(0o755)
        if path.is_dir():
            old.mkdir()
            os.replace(path, old)
        os.replace(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path | str, replace: bool = False) -> Iterator[Callable[[str], Any]]:
    """A function that writes text to a new file, which appears when the block ends without error.

    The text is UTF-8, compressed if the name ends in .gz or .zst. Raises FileExistsError if `path`
    exists, unless `replace` is set; ImportError if the package for .zst is missing.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise FileExistsError(f"{path} already exists; name a new file or remove it first")
    with replace_file(path, "wb") as raw, _text_writer(raw, path.suffix) as stream:
        yield stream.write


@contextlib.contextmanager
def replace_file(path: Path | str, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """A stream whose contents replace `path` when the block ends without error.

    Text is UTF-8. If the block raises, `path` is unchanged. The parent directory is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(scratch, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: Path | str, values: Any, **options: Any) -> None:
    """Replaces `path` by `values` as JSON; `options` are those of json.dumps."""
    text = json.dumps(values, **options)
    with replace_file(path) as stream:
        stream.write(text + "\n")


def _text_writer(raw: IO[bytes], suffix: str) -> io.TextIOWrapper:
    stream: Any = raw
    if suffix == ".gz":
        # Without a name and a time stamp in the header, equal contents are equal files.
        stream = gzip.GzipFile("", "wb", 6, raw, mtime=0)
    elif suffix == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise ImportError(f"{suffix} needs zstandard: pip install 'm3jax[data]'") from error
        stream = zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
    return io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="\n")
