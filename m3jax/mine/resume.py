"""Results of a long job, written to disk chunk by chunk so that an interrupted job resumes.

    FOLDER/00000-DIGEST.json    the result of chunk 0, whose items have that digest

Each file is written atomically. A changed input changes the digests of the chunks that differ;
results of all other chunks are reused.
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
    compute: Callable[[list[Item]], Any],
) -> Iterator[tuple[list[Item], Any]]:
    """Yields (chunk, compute(chunk)) for chunks of `size` items; stored results are read back.

    The results of `compute` and of `identity` (what an item's digest is taken of) must be
    serialisable as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(items)
    for number in itertools.count():
        chunk = list(itertools.islice(stream, size))
        if not chunk:
            return
        path = folder / f"{number:05d}-{json_digest([identity(item) for item in chunk])}.json"
        if path.is_file():
            yield chunk, json.loads(path.read_text(encoding="utf-8"))
            continue
        result = compute(chunk)
        write_json(path, result)
        yield chunk, result


def json_digest(values: Any) -> str:
    """20 hexadecimal digits of a value in JSON's types."""
    # In ASCII, so lone surrogates are escaped. Parquet has values that JSON lacks, such as dates.
    text = json.dumps(values, sort_keys=True, default=str)
    return hex_digest(text, size=10)
