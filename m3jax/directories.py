"""Directories that are whole or not there at all. Never imports JAX."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_directory(path: Path | str, replace: bool = False) -> Iterator[Path]:
    """A scratch directory beside `path` that takes its name when the block ends without error.

    Whatever stops the block, no half-written directory stands under `path`. Raises
    FileExistsError where `path` is a file or a directory with something in it; with `replace` such
    a directory goes when the new one is whole.
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
