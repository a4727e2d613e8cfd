"""The paper's sources of training data: what each one is, where it is, how it is converted.

`sources.tsv` holds one source per line. Names, stages and sizes: [M3 sec. 3.1, 4, app. A, B.1,
Table 8]; sizes are numbers of pairs, of a whole group of sources if the paper gives only that.
Licences are those that the publishers state, "unknown" if they state none; read them before you
train. Nothing is downloaded unless a caller asks for the Hugging Face hub.
"""

import json
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from m3jax.data import adapters
from m3jax.data.adapters import Adapter
from m3jax.data.examples import Example, Paths, example_files, read_values, to_json
from m3jax.io.atomic import new_file
from m3jax.io.jsonl import BadRecords, numbered_lines, parse_object, read_records
from m3jax.io.tables import Row, hub_reader, tfds_reader


class DataSource(NamedTuple):
    """A source of training data; `origin` describes for people where it is published."""

    name: str
    stage: str  # pretrain, finetune or evaluate
    languages: str
    size: str
    adapter: Adapter  # one published record to its examples
    licence: str
    hub: tuple[str, str] | None  # (repository, configuration or "") on the Hugging Face hub
    tfds: str | None  # its name in TensorFlow Datasets
    origin: str


def _read_sources() -> tuple[DataSource, ...]:
    text = resources.files("m3jax.data").joinpath("sources.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    return tuple(map(_source, rows))


def _source(columns: list[str]) -> DataSource:
    name, stage, languages, size, adapter, licence, hub, tfds, origin = columns
    repository, _, configuration = hub.partition(":")
    return DataSource(
        name,
        stage,
        languages,
        size,
        getattr(adapters, adapter),
        licence,
        (repository, configuration) if hub else None,
        tfds or None,
        origin,
    )


SOURCES = _read_sources()


def find(name: str) -> DataSource:
    """The source called `name`; the KeyError lists the known ones."""
    for source in SOURCES:
        if source.name == name:
            return source
    raise KeyError(f"no source {name!r}; known: {', '.join(s.name for s in SOURCES)}")


def examples_of(source: DataSource, records: Iterator[Row], on_bad: Callable) -> Iterator[Example]:
    """Yields the examples in published records; those without a source get this one's name.

    `on_bad` is called with a ValueError for a record that does not have the published form; if it
    returns, the record is skipped.
    """
    for place, record in records:
        try:
            examples = list(source.adapter(record))
            for example in examples:
                if not isinstance(example.query, str) or not example.query.strip():
                    raise ValueError("the query is blank")
                if any(not isinstance(t, str) or not t.strip() for t in example.positives):
                    raise ValueError("a positive is blank")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            on_bad(ValueError(f"{place}: not a record of {source.name}: {what}"))
            continue
        for example in examples:
            yield example._replace(source=example.source or source.name)


def convert(
    source: DataSource,
    records: Iterator[Row],
    output: Path | str,
    *,
    language: str = "",
    skip_bad: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Writes a file of training examples, compressed if it ends in .gz or .zst; returns counts.

    The file appears when it is complete. `language` is that of examples without one. Raises
    ValueError if there is no example.
    """
    bad = BadRecords(skip_bad)
    count = negatives = 0
    with new_file(output) as write:
        for example in examples_of(source, records, bad):
            if language and not example.lang:
                example = example._replace(lang=language)
            write(json.dumps(to_json(example), ensure_ascii=False) + "\n")
            count += 1
            negatives += len(example.negatives)
            if progress and count % 1000 == 0:
                progress(count)
        if not count:
            raise ValueError(f"no example of {source.name} in the input; nothing was written")
    return {"examples": count, "negatives": negatives, "skipped": bad.count}


def from_files(paths: Paths, on_bad: Callable) -> Iterator[Row]:
    """Yields the records of JSON Lines, Parquet and .json files (a list, or {"data": list})."""
    for file in example_files(paths):
        if file.suffix != ".json":
            yield from ((str(place), values) for place, values in read_values(file, on_bad))
            continue
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is not valid JSON: {error}") from error
        rows = document.get("data") if isinstance(document, dict) else document
        if not isinstance(rows, list):
            raise ValueError(f'{file} holds neither a list nor {{"data": [...]}}')
        for number, row in enumerate(rows, start=1):
            yield f"{file}, item {number}", parse_object(json.dumps(row), f"{file}, item {number}")


def from_tables(queries: Path | str, corpus: Path | str, qrels: Path | str) -> Iterator[Row]:
    """Joins files of queries, texts and judgements to records for `adapters.passages`.

    Queries and texts are JSON Lines {"_id", "text", "title"?} or two tab-separated columns (id,
    text). Judgements are BEIR's or TREC's; the last column is the label, 0 for a negative. Only
    judged texts are held in memory. Raises ValueError if a judged text is missing.
    """
    judged: dict[str, dict[str, list[str]]] = {}
    for place, fields in _columns(qrels):
        if len(fields) < 3 or not fields[-1].strip().lstrip("-").isdigit():
            if place.endswith(":1"):
                continue  # a header
            raise ValueError(f"{place}: expected query, text and label, got {fields}")
        side = "positive" if int(fields[-1]) > 0 else "negative"
        entry = judged.setdefault(fields[0], {"positive": [], "negative": []})
        entry[side].append(fields[-2])
    judged_ids = {name for sides in judged.values() for side in sides.values() for name in side}
    texts = {name: text for _, name, text in _named_texts(corpus) if name in judged_ids}
    if missing := sorted(judged_ids - texts.keys()):
        raise ValueError(f"{corpus} lacks {len(missing)} judged texts, such as {missing[0]!r}")
    for place, name, text in _named_texts(queries):
        if name in judged:
            sides = {
                f"{side}_passages": [{"text": texts[i]} for i in ids]
                for side, ids in judged[name].items()
            }
            yield place, {"query_id": name, "query": text, **sides}


def from_tfds(
    source: DataSource, split: str = "train", data_dir: str | None = None
) -> Iterator[Row]:
    """Yields the records of a source that TFDS has prepared; downloads nothing."""
    if source.tfds is None:
        raise ValueError(f"{source.name} is not in TFDS; its origin: {source.origin}")
    yield from tfds_reader(source.tfds, split, data_dir)()


def from_hub(
    source: DataSource, split: str = "train", configuration: str | None = None
) -> Iterator[Row]:
    """Yields the records of a source on the Hugging Face hub, streamed."""
    if source.hub is None:
        raise ValueError(
            f"{source.name} is not a plain data set on the hub: get its files "
            f"({source.origin}) and name them"
        )
    repository, default = source.hub
    yield from hub_reader(repository, configuration or default, split, streaming=True)()


def _columns(path: Path | str) -> Iterator[tuple[str, list[str]]]:
    for number, line in numbered_lines(str(path)):
        if line.strip():
            yield f"{path}:{number}", line.rstrip("\r\n").split("\t")


def _named_texts(path: Path | str) -> Iterator[tuple[str, str, str]]:
    """Yields (place, id, text); a text begins with its title, if it has one."""
    if not str(path).endswith(".tsv"):
        for record in read_records(str(path)):
            yield f"{path}:{record.line}", record.id, record.text
        return
    for place, fields in _columns(path):
        if len(fields) != 2:
            raise ValueError(f"{place}: expected two columns, id and text, got {len(fields)}")
        yield place, fields[0], fields[1]
