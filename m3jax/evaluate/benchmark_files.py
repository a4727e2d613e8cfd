"""Readers of a benchmark's records: local files, the Hugging Face hub, or TFDS.

Only the source "hub" downloads. MIRACL and MLDR are read from their published files, because the
hub's loading scripts for them no longer run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3jax.io.jsonl import numbered_lines, parse_object
from m3jax.io.tables import RecordReader, Row, download_files, hub_reader, read_parquet, tfds_reader

SOURCES = ("local", "hub", "tfds")

# Benchmark -> table -> file, in a local copy and in the repository on the hub.
FILES = {
    "miracl": {
        "corpus": "miracl-corpus-v1.0-{part}/docs-*.jsonl*",
        "queries": "topics.miracl-v1.0-{part}-dev.tsv",
        "qrels": "qrels.miracl-v1.0-{part}-dev.tsv",
    },
    "mldr": {
        "corpus": "mldr-v1.0-{part}/corpus.jsonl*",
        "test": "mldr-v1.0-{part}/test.jsonl*",
    },
    "mkqa": {"corpus": "nq/corpus.jsonl*", "questions": "mkqa.jsonl*"},
    "narrativeqa": {"test": "narrativeqa/**/*test*"},
    "beir": {
        "corpus": "{part}/corpus.jsonl*",
        "queries": "{part}/queries.jsonl*",
        "qrels": "{part}/qrels/{split}.tsv",
    },
}
# (benchmark, table) on the hub: a repository of files, or (repository, configuration, split).
HUB_FILES = {
    ("miracl", "corpus"): "miracl/miracl-corpus",
    ("miracl", "queries"): "miracl/miracl",
    ("miracl", "qrels"): "miracl/miracl",
    ("mldr", "corpus"): "Shitao/MLDR",
    ("mldr", "test"): "Shitao/MLDR",
}
HUB_SETS = {
    ("mkqa", "corpus"): ("BeIR/nq", "corpus", "corpus"),
    ("narrativeqa", "test"): ("deepmind/narrativeqa", "default", "test"),
    ("beir", "corpus"): ("BeIR/{part}", "corpus", "corpus"),
    ("beir", "queries"): ("BeIR/{part}", "queries", "queries"),
    ("beir", "qrels"): ("BeIR/{part}-qrels", "default", "{split}"),
}
# TFDS has BEIR only, with each table as a split.
TFDS_SPLITS = {"corpus": "passage", "queries": "query", "qrels": "{split}"}
TFDS_BENCHMARKS = {"beir": "{part}", "mkqa": "nq"}


def open_rows(
    benchmark: str, table: str, *, part: str, split: str, source: str, data: str | None
) -> RecordReader:
    """The records of a table of a benchmark, as published.

    `part` is a language or a set of BEIR; `data` the directory of the local copy, or of TFDS.
    Raises FileNotFoundError, ValueError or ImportError naming what is missing.
    """
    names = {"part": part, "split": split}
    if (benchmark, table) == ("mkqa", "questions") and source != "local":
        source = "local"  # published only on GitHub, with answer types as words
        if data is None or not list(Path(data).glob("**/mkqa.jsonl*")):
            raise FileNotFoundError(
                "MKQA's questions are published at https://github.com/apple/ml-mkqa: put "
                "mkqa.jsonl.gz into a directory and name it with --data"
            )
    if source == "local":
        pattern = FILES[benchmark][table].format(**names)
        return _from_files(_find(Path(data or "."), pattern))
    if source == "hub":
        if (benchmark, table) in HUB_FILES:
            pattern = FILES[benchmark][table].format(**names)
            return _from_files(_find(download_files(HUB_FILES[benchmark, table], pattern), pattern))
        repository, config, rows = HUB_SETS[benchmark, table]
        return hub_reader(
            repository.format(**names),
            None if config == "default" else config,
            rows.format(**names),
        )
    if source == "tfds":
        if benchmark not in TFDS_BENCHMARKS or table not in TFDS_SPLITS:
            raise ValueError(
                f"TFDS has no {benchmark} {table}; use --from local with --data DIR, or --from hub"
            )
        name = TFDS_BENCHMARKS[benchmark].format(**names)
        return _from_tfds(name, table, TFDS_SPLITS[table].format(**names), data)
    raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")


def _find(root: Path, pattern: str) -> list[Path]:
    paths = sorted(p for p in root.glob(f"**/{pattern}") if p.is_file())
    if not paths:
        raise FileNotFoundError(f"{root} and its subdirectories hold no {pattern}")
    return paths


def _from_files(paths: list[Path]) -> RecordReader:
    def rows() -> Iterator[Row]:
        for path in paths:
            read = {".parquet": _parquet, ".tsv": _tsv}.get(path.suffix, _json_lines)
            yield from read(path)

    return rows


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in numbered_lines(str(path)):
        if line.strip():
            where = f"{path}:{number}"
            yield where, parse_object(line, where)


def _tsv(path: Path) -> Iterator[Row]:
    """MIRACL's topics (query, text) and qrels (TREC, 4 columns); BEIR's qrels (3, header)."""
    for number, line in numbered_lines(str(path)):
        fields = line.rstrip("\r\n").split("\t")
        where = f"{path}:{number}"
        if len(fields) == 2:
            yield where, {"_id": fields[0], "text": fields[1]}
        elif len(fields) in (3, 4):
            if number > 1 or fields[-1].lstrip("-").isdigit():  # else the header line
                yield where, {"query-id": fields[0], "corpus-id": fields[-2], "score": fields[-1]}
        elif line.strip():
            raise ValueError(f"{where}: expected 2, 3 or 4 columns separated by tabs")


def _parquet(path: Path) -> Iterator[Row]:
    for number, row in enumerate(read_parquet(path), start=1):
        yield f"{path}, row {number}", row


def _from_tfds(name: str, table: str, split: str, data: str | None) -> RecordReader:
    config = name.replace("/", ".").replace("-", "_")
    read = tfds_reader(f"beir/{config}", split, data)
    return lambda: ((where, _as_beir(row, table)) for where, row in read())


def _as_beir(row: dict[str, Any], table: str) -> dict[str, Any]:
    if table == "qrels":
        return {
            "query-id": row["query_id"],
            "corpus-id": row["passage_id"],
            "score": int(row["score"]),
        }
    if table == "queries":
        return {"_id": row["query_id"], "text": row["query"]}
    from json import loads

    title = loads(row["passage_metadata"] or "{}").get("title", "")
    return {"_id": row["passage_id"], "title": title, "text": row["passage"]}
