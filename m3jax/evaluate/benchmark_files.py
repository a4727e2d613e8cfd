"""Where the records of a named benchmark come from: files, the Hugging Face hub, or TFDS.

Nothing is downloaded unless the user names the hub. MIRACL and MLDR are read from their published
files, since the hub's loading scripts for them no longer run.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from m3jax.io.jsonl import numbered_lines, parse_object

SOURCES = ("local", "hub", "tfds")
Rows = Callable[[], Iterator[tuple[str, dict[str, Any]]]]  # (place, record), any number of times

# Benchmark -> kind of record -> file, in a local copy and in the repository on the hub.
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
# The same on the hub: a repository of files, or (repository, configuration, split) of a data set.
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
# TFDS prepares BEIR: its splits, and how its fields are called in BEIR's own files.
TFDS_SPLITS = {"corpus": "passage", "queries": "query", "qrels": "{split}"}
TFDS_BENCHMARKS = {"beir": "{part}", "mkqa": "nq"}


def open_rows(
    benchmark: str, kind: str, *, part: str, split: str, source: str, data: str | None
) -> Rows:
    """The records of one kind, as published. `data` is the local copy, or TFDS's directory.

    Raises FileNotFoundError, ValueError or ImportError saying what to do.
    """
    names = {"part": part, "split": split}
    if (benchmark, kind) == ("mkqa", "questions") and source != "local":
        source = "local"  # published on GitHub alone, with answer types spelt out
        if data is None or not list(Path(data).glob("**/mkqa.jsonl*")):
            raise FileNotFoundError(
                "MKQA's questions are published at https://github.com/apple/ml-mkqa: put "
                "mkqa.jsonl.gz into a folder and name it with --data"
            )
    if source == "local":
        pattern = FILES[benchmark][kind].format(**names)
        return _from_files(_find(Path(data or "."), pattern))
    if source == "hub":
        if (benchmark, kind) in HUB_FILES:
            pattern = FILES[benchmark][kind].format(**names)
            return _from_files(_find(_download(HUB_FILES[benchmark, kind], pattern), pattern))
        repository, config, rows = HUB_SETS[benchmark, kind]
        return _from_hub(repository.format(**names), config, rows.format(**names))
    if source == "tfds":
        if benchmark not in TFDS_BENCHMARKS or kind not in TFDS_SPLITS:
            raise ValueError(
                f"TFDS has no {benchmark} {kind}; use --source local with --data DIR, or hub"
            )
        name = TFDS_BENCHMARKS[benchmark].format(**names)
        return _from_tfds(name, kind, TFDS_SPLITS[kind].format(**names), data)
    raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")


def _find(root: Path, pattern: str) -> list[Path]:
    found = sorted(p for p in root.glob(f"**/{pattern}") if p.is_file())
    if not found:
        raise FileNotFoundError(f"{root} and the folders in it hold no {pattern}")
    return found


def _from_files(paths: list[Path]) -> Rows:
    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for path in paths:
            read = {".parquet": _parquet, ".tsv": _table}.get(path.suffix, _json_lines)
            yield from read(path)

    return rows


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in numbered_lines(str(path)):
        if line.strip():
            place = f"{path}:{number}"
            yield place, parse_object(line, place)


def _table(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """MIRACL's topics (query, text) and qrels (TREC, 4 columns); BEIR's qrels (3, header)."""
    for number, line in numbered_lines(str(path)):
        fields = line.rstrip("\r\n").split("\t")
        place = f"{path}:{number}"
        if len(fields) == 2:
            yield place, {"_id": fields[0], "text": fields[1]}
        elif len(fields) in (3, 4):
            if number > 1 or fields[-1].lstrip("-").isdigit():  # else the header line
                yield place, {"query-id": fields[0], "corpus-id": fields[-2], "score": fields[-1]}
        elif line.strip():
            raise ValueError(f"{place}: expected 2, 3 or 4 columns set apart by tabs")


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{path} needs pyarrow: pip install pyarrow") from error
    number = 0
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=64):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}, row {number}", row


def _download(repository: str, pattern: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repository, repo_type="dataset", allow_patterns=[f"*{pattern}"])
        )
    except Exception as error:  # connection, authorisation, absence: a dozen classes
        raise FileNotFoundError(
            f"the data set {repository!r} could not be fetched from the Hugging Face hub: "
            f"{type(error).__name__}: {error}"
        ) from error


def _from_hub(repository: str, config: str, split: str) -> Rows:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{repository!r} is read with datasets: pip install datasets; or name a local copy"
        ) from error
    try:
        name = None if config == "default" else config
        table: Any = datasets.load_dataset(repository, name, split=split)
    except Exception as error:  # as above
        raise FileNotFoundError(
            f"the data set {repository!r} could not be read from the Hugging Face hub: "
            f"{type(error).__name__}: {error}; a local copy works too (--data DIR)"
        ) from error

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, row in enumerate(table, start=1):
            yield f"{repository}, row {number}", row

    return rows


def _from_tfds(name: str, kind: str, split: str, data: str | None) -> Rows:
    import tensorflow_datasets as tfds

    config = name.replace("/", ".").replace("-", "_")
    try:
        table: Any = tfds.data_source(f"beir/{config}", split=split, data_dir=data, download=False)
    except Exception as error:  # an unknown name, data not prepared, another file format
        raise FileNotFoundError(
            f"TFDS has no prepared beir/{config}, split {split}, in ArrayRecord format"
            f"{f' under {data}' if data else ''}: {type(error).__name__}: {error}"
        ) from error

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for number in range(len(table)):
            row = {k: v.decode() if isinstance(v, bytes) else v for k, v in table[number].items()}
            yield f"tfds beir/{config} {split}, row {number + 1}", _as_beir(row, kind)

    return rows


def _as_beir(row: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "qrels":
        return {
            "query-id": row["query_id"],
            "corpus-id": row["passage_id"],
            "score": int(row["score"]),
        }
    if kind == "queries":
        return {"_id": row["query_id"], "text": row["query"]}
    from json import loads

    title = loads(row["passage_metadata"] or "{}").get("title", "")
    return {"_id": row["passage_id"], "title": title, "text": row["passage"]}
