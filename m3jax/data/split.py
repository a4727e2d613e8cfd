"""Splits training files by length, into one file for each range."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m3jax.data.examples import Paths, example_files, read_records_of, stem
from m3jax.data.lengths import measured, texts_of
from m3jax.io.atomic import new_directory
from m3jax.io.jsonl import BadRecords
from m3jax.text.tokenizer import Tokenizer

LENGTH_BOUNDARIES = (0, 500, 1000, 2000, 3000, 4000, 5000, 6000, 7000)


def split_by_length(
    inputs: Paths,
    output: Path | str,
    tokenizer: Tokenizer,
    *,
    boundaries: tuple[int, ...] = LENGTH_BOUNDARIES,
    skip_bad: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Writes STEM_len-L-R.jsonl with the records whose longest text has L <= tokens < R.

    Returns {file name: number of records}. The last range ends at "inf". Records keep all keys.
    `output` appears when it is complete. Raises ValueError for two inputs with the same stem.
    """
    if boundaries[0] != 0 or any(a >= b for a, b in zip(boundaries, boundaries[1:], strict=False)):
        raise ValueError(f"boundaries must begin with 0 and increase, got {boundaries}")
    stems: dict[str, Path] = {}
    for file in example_files(inputs):
        if (other := stems.setdefault(stem(file), file)) != file:
            raise ValueError(
                f"{other} and {file} have the same name: split them into two directories"
            )
    counts: dict[str, int] = {}
    done = 0
    with new_directory(output) as scratch, contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}
        records = read_records_of(inputs, "examples", BadRecords(skip_bad))
        for chunk, lengths in measured(records, lambda record: texts_of(record[2]), tokenizer):
            for (place, values, _), sizes in zip(chunk, lengths, strict=True):
                name = f"{stem(place.path)}_{_range(int(sizes.max()), boundaries)}.jsonl"
                if name not in files:
                    files[name] = stack.enter_context(open(scratch / name, "wb"))
                files[name].write(_line(values))
                counts[name] = counts.get(name, 0) + 1
            done += len(chunk)
            if progress:
                progress(done)
    return dict(sorted(counts.items()))


def _range(length: int, boundaries: tuple[int, ...]) -> str:
    number = sum(boundary <= length for boundary in boundaries)
    return (
        f"len-{boundaries[number - 1]}-{boundaries[number] if number < len(boundaries) else 'inf'}"
    )


def _line(values: dict[str, Any]) -> bytes:
    text = json.dumps(values, ensure_ascii=False, default=str)  # Parquet has dates, JSON does not
    # A lone surrogate is written as its JSON escape.
    return text.encode("utf-8", "backslashreplace") + b"\n"
