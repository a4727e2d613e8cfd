"""Records of tables: Parquet files, data sets on the Hugging Face hub, data prepared by TFDS.

A record is a dict of plain Python values; it comes with its place ("file, row 7") for error
messages. Nothing is downloaded unless the caller asks for the hub, and no code from there is run.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, dict[str, Any]]  # (place, record)
RecordReader = Callable[[], Iterator[Row]]  # reads the records from the start, any number of times


def is_parquet(file: Path) -> bool:
    """True if the file begins with Parquet's signature."""
    with open(file, "rb") as stream:
        return stream.read(4) == b"PAR1"


def read_parquet(file: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file; a few hundred are in memory at a time.

    Raises ValueError if the file is damaged, ImportError if pyarrow is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{file} is Parquet: pip install 'm3jax[data]'") from error

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{file}: damaged Parquet after row {number} ({error}); get the file again"
        ) from error


def tfds_reader(name: str, split: str, data_dir: str | None = None) -> RecordReader:
    """A reader of a data set that TFDS has prepared in ArrayRecord format; downloads nothing.

    Raises FileNotFoundError if `data_dir` (None: TFDS's default directory) has no such data.
    """
    import tensorflow_datasets as tfds

    try:
        table: Any = tfds.data_source(
            name,
            split=split,
            data_dir=data_dir,
            download=False,
            builder_kwargs={"file_format": "array_record"},
        )
    except Exception as error:  # an unknown name, data not prepared, another file format
        raise FileNotFoundError(
            f"TFDS has no prepared {name}, split {split}, in ArrayRecord format"
            f"{f' under {data_dir}' if data_dir else ''}: {type(error).__name__}: {error}"
        ) from error

    def read() -> Iterator[Row]:
        for number in range(len(table)):
            yield f"tfds {name} {split}, row {number + 1}", _plain(table[number])

    return read


def hub_reader(
    repository: str, configuration: str | None, split: str, *, streaming: bool = False
) -> RecordReader:
    """A reader of a data set on the Hugging Face hub, downloaded first or streamed.

    Raises ImportError if the package `datasets` is missing, FileNotFoundError if the hub cannot be
    reached or has no such data set.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{repository!r} is read with datasets: pip install 'm3jax[hub]', or name local files"
        ) from error
    try:
        table: Any = datasets.load_dataset(
            repository, configuration or None, split=split, streaming=streaming
        )
    except Exception as error:  # connection, authorisation, absence: a dozen classes
        raise _unreachable(repository, error) from error

    def read() -> Iterator[Row]:
        try:
            for number, row in enumerate(table, start=1):
                yield f"{repository}, row {number}", row
        except (OSError, RuntimeError) as error:  # the connection broke while streaming
            raise _unreachable(repository, error) from error

    return read


def download_files(repository: str, pattern: str) -> Path:
    """A local copy of the files of a data set repository on the hub whose names end in `pattern`.

    Raises FileNotFoundError if they cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repository, repo_type="dataset", allow_patterns=[f"*{pattern}"])
        )
    except Exception as error:  # connection, authorisation, absence: a dozen classes
        raise _unreachable(repository, error) from error


def _unreachable(repository: str, error: Exception) -> FileNotFoundError:
    return FileNotFoundError(
        f"the data set {repository!r} could not be read from the Hugging Face hub: "
        f"{type(error).__name__}: {error}; local files work too"
    )


def _plain(value: Any) -> Any:
    """Strings for TFDS's bytes and lists for its arrays."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return [_plain(item) for item in value] if isinstance(value, list) else value
