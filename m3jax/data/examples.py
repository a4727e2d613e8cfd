"""Training examples (query, positives, negatives), streamed from JSON Lines or Parquet files.

A record is {"query": str, "pos": [str], "neg": [str]}. Optional keys: "pos_scores", "neg_scores",
"prompt", "id", "lang", "source", "in_batch"; others are ignored.
"""

import glob
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.io.jsonl import BadRecords, numbered_lines, parse_object, string_of, with_title
from m3jax.io.tables import is_parquet, read_parquet

KEYS = (
    *("query", "pos", "neg", "pos_scores", "neg_scores"),
    *("prompt", "id", "lang", "source", "in_batch"),
)
RECORD_FORMATS = ("examples", "texts")  # {"query", "pos", "neg"}; {"text"}, for RetroMAE
TEXT_KEYS = ("text", "title", "_id", "id", "lang", "source")
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
LONGEST_LINE = 16 << 20  # bytes
# FlagEmbedding's convention; a split by length adds its range to the name.
_NO_IN_BATCH = re.compile(r"no_in_batch_neg(_len-\d+-(\d+|inf))?$")
OnBad = Callable[[ValueError], None]  # called with a record's error; returning skips the record
Paths = str | Path | Iterable[str | Path]


class Example(NamedTuple):
    """A query with its passages; a text for RetroMAE is a query without passages."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    positive_scores: tuple[float, ...] | None = None  # of a re-ranker, one per positive
    negative_scores: tuple[float, ...] | None = None
    prompt: str = ""  # prepended to the query in training
    id: str = ""
    lang: str = ""
    source: str = ""  # the record's source, else the stem of its file
    in_batch: bool = True  # whether passages of other queries serve as negatives


class Place(NamedTuple):
    """The place of a record; `str` gives "file:line" (Parquet: "file:row"), counted from 1."""

    path: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


def read_examples(
    paths: Paths, *, skip_bad: int | BadRecords = 0, longest_line: int = LONGEST_LINE
) -> Iterator[Example]:
    """Yields the examples of files, directories and globs (see `example_files`), in order.

    The first `skip_bad` records that cannot be used are logged and skipped; the next one raises
    ValueError with "file:line". Pass a `BadRecords` to read the count. Damaged compressed files
    always raise.
    """
    records = read_records_of(paths, "examples", _bad_records(skip_bad), longest_line)
    return (example for _, _, example in records)


def read_texts(
    paths: Paths, *, skip_bad: int | BadRecords = 0, longest_line: int = LONGEST_LINE
) -> Iterator[Example]:
    """`read_examples` for records {"text": str, "title": str?}, which become queries alone."""
    records = read_records_of(paths, "texts", _bad_records(skip_bad), longest_line)
    return (example for _, _, example in records)


def _bad_records(skip_bad: int | BadRecords) -> BadRecords:
    return skip_bad if isinstance(skip_bad, BadRecords) else BadRecords(skip_bad)


def read_records_of(
    paths: Paths, record_format: str, on_bad: OnBad, longest_line: int = LONGEST_LINE
) -> Iterator[tuple[Place, dict[str, Any], Example]]:
    """Yields (place, record, example); `record_format` is "examples" or "texts"."""
    if record_format not in RECORD_FORMATS:
        raise ValueError(f"record_format must be 'examples' or 'texts', got {record_format!r}")
    parse = parse_example if record_format == "examples" else parse_text
    return _records(example_files(paths), parse, on_bad, longest_line)


def _records(
    files: list[Path], parse: Callable[..., Example], on_bad: OnBad, longest_line: int
) -> Iterator[tuple[Place, dict[str, Any], Example]]:
    for file in files:
        source, in_batch = stem(file), _NO_IN_BATCH.search(stem(file)) is None
        for place, values in read_values(file, on_bad, longest_line):
            try:
                example = parse(values, str(place), source=source, in_batch=in_batch)
            except ValueError as error:
                on_bad(error)
                continue
            yield place, values, example


def read_values(
    file: Path, on_bad: OnBad, longest_line: int = LONGEST_LINE
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yields (place, record) of a JSON Lines or Parquet file with any fields."""
    if is_parquet(file):
        for number, row in enumerate(read_parquet(file), start=1):
            values = {key: value for key, value in row.items() if value is not None}
            yield Place(str(file), number), values
        return
    for number, line in numbered_lines(str(file), longest=longest_line, on_bad=on_bad):
        if not line.strip():
            continue
        place = Place(str(file), number)
        try:
            values = parse_object(line, str(place))
        except ValueError as error:
            on_bad(error)
            continue
        yield place, values


def example_files(paths: Paths) -> list[Path]:
    """The files that `paths` name: files, directories (searched recursively, sorted) or globs.

    In a directory these are *.jsonl, *.jsonl.gz, *.jsonl.zst and *.parquet, hidden ones excluded.
    Raises FileNotFoundError if there is none, ValueError for a file named twice.
    """
    files: list[Path] = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        files += _expand(str(path))
    if not files:
        raise ValueError("no files: name at least one file, directory or glob")
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise ValueError(f"{file} is named twice: each file may be given once")
        seen.add(file.resolve())
    return files


def _expand(path: str) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    if Path(path).is_dir():
        files = _files_of(Path(path))
    else:
        files = []
        for match in map(Path, sorted(glob.glob(path, recursive=True))):
            # With `**` the files of a directory are matches of their own.
            files += _files_of(match) if match.is_dir() and "**" not in path else [match]
        files = [file for file in files if file.is_file()]
    if not files:
        raise FileNotFoundError(
            f"no {', '.join(SUFFIXES)} file in the directory {path}"
            if Path(path).is_dir()
            else f"no such file, directory or glob: {path}"
        )
    return files


def _files_of(directory: Path) -> list[Path]:
    files = (f for f in directory.rglob("*") if f.name.endswith(SUFFIXES) and f.is_file())
    return sorted(f for f in files if all(p[0] != "." for p in f.relative_to(directory).parts))


def stem(file: Path | str) -> str:
    """The file's name without its suffix: the source of records that name none."""
    name = Path(file).name
    return next((name[: -len(s)] for s in SUFFIXES if name.endswith(s)), Path(name).stem)


def parse_example(
    values: dict[str, Any], place: str, *, source: str = "", in_batch: bool = True
) -> Example:
    """Converts a record to an Example.

    `source` and `in_batch` are used if the record does not state them. Raises ValueError beginning
    with `place`.
    """
    query = string_of(values, "query", place, required=True)
    if not query.strip():
        raise ValueError(f"{place}: 'query' is blank")
    positives = _strings(values, "pos", place, required=True)
    if not positives:
        raise ValueError(f"{place}: 'pos' is empty: an example needs a positive passage")
    for number, text in enumerate(positives):
        if not text.strip():
            raise ValueError(f"{place}: 'pos'[{number}] is blank")
    negatives = _strings(values, "neg", place)
    stated = values.get("in_batch")
    if stated is not None and not isinstance(stated, bool):
        raise ValueError(f"{place}: 'in_batch' is {_type_name(stated)}, expected true or false")
    return Example(
        query,
        positives,
        negatives,
        _scores(values, "pos_scores", len(positives), place),
        _scores(values, "neg_scores", len(negatives), place),
        prompt=string_of(values, "prompt", place),
        id=_identity(values, "id", place),
        lang=string_of(values, "lang", place),
        source=string_of(values, "source", place) or source,
        in_batch=in_batch if stated is None else stated,
    )


def parse_text(
    values: dict[str, Any], place: str, *, source: str = "", in_batch: bool = True
) -> Example:
    """Converts a record {"text": str, "title": str?} to an Example without passages."""
    text = string_of(values, "text", place, required=True)
    title = string_of(values, "title", place)
    text = with_title(title, text)
    if not text.strip():
        raise ValueError(f"{place}: 'text' is blank")
    return Example(
        text,
        (),
        id=_identity(values, "id" if "id" in values else "_id", place),
        lang=string_of(values, "lang", place),
        source=string_of(values, "source", place) or source,
        in_batch=in_batch,
    )


def to_json(example: Example) -> dict[str, Any]:
    """The record of an example, without empty fields; `parse_example` reads it."""
    values: dict[str, Any] = {
        "query": example.query,
        "pos": list(example.positives),
        "neg": list(example.negatives),
    }
    if example.positive_scores is not None:
        values["pos_scores"] = list(example.positive_scores)
    if example.negative_scores is not None:
        values["neg_scores"] = list(example.negative_scores)
    for key in ("prompt", "id", "lang", "source"):
        if getattr(example, key):
            values[key] = getattr(example, key)
    return values if example.in_batch else values | {"in_batch": False}


def _strings(
    values: dict[str, Any], key: str, place: str, required: bool = False
) -> tuple[str, ...]:
    value = values.get(key)
    if value is None and not required:
        return ()
    if not isinstance(value, list):
        got = f"is {_type_name(value)}" if key in values else "is missing"
        raise ValueError(f"{place}: {key!r} {got}, expected a list of strings")
    for number, item in enumerate(value):
        if not isinstance(item, str):
            raise ValueError(f"{place}: {key!r}[{number}] is {_type_name(item)}, expected a string")
    return tuple(value)


def _scores(values: dict[str, Any], key: str, count: int, place: str) -> tuple[float, ...] | None:
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"{place}: {key!r} is {_type_name(value)}, expected a list of numbers")
    if len(value) != count:
        raise ValueError(
            f"{place}: {key!r} has {len(value)} numbers for {count} passages: one each is expected"
        )
    for number, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, (int, float)) or not _finite(item):
            raise ValueError(f"{place}: {key!r}[{number}] is {item!r}, expected a finite number")
    return tuple(float(item) for item in value)


def _finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer too large for float64
        return False


def _identity(values: dict[str, Any], key: str, place: str) -> str:
    value = values.get(key, "")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{place}: {key!r} is {_type_name(value)}, expected a string or a number")
    return str(value)


def _type_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
