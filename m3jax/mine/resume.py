"""Results of a long job kept on disk chunk by chunk, so that a job which was killed goes on.

    FOLDER/00000-DIGEST.json    what was made of chunk 0, whose items have that digest

A file appears when it is whole. Another input has other digests: what it shares with an earlier
one, chunk by chunk, is not made again.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from m3jax.io.atomic import write_json
from m3jax.io.hashing import hex_digest

Item = TypeVar("Item")


def resumable(
    items: Iterable[Item],
    size: int,
    folder: Path,
    identity: Callable[[Item], Any],
    make: Callable[[list[Item]], Any],
) -> Iterator[tuple[list[Item], Any]]:
    """(items, what `make` gives for them) of `size` items at a time, read where it was kept.

    What `make` returns and what `identity` says of an item must be JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(items)
    for number in itertools.count():
        chunk = list(itertools.islice(stream, size))
        if not chunk:
            return
        path = folder / f"{number:05d}-{digest_of([identity(item) for item in chunk])}.json"
        if path.is_file():
            yield chunk, json.loads(path.read_text(encoding="utf-8"))
            continue
        made = make(chunk)
        write_json(path, made)
        yield chunk, made


def digest_of(values: Any) -> str:
    """20 hex digits for a value of JSON."""
    # ASCII: lone surrogates are escaped. Parquet has values that JSON has not, such as dates.
    text = json.dumps(values, sort_keys=True, default=str)
    return hex_digest(text, size=10)
