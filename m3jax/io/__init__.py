"""Files: atomic writes, digests, JSON Lines, tables, TREC runs and judgements.

Reading order: `streams` (bytes, decompressed), `jsonl` (records), `tables` (Parquet, hub, TFDS),
`trec` (runs, qrels), `npy` (arrays in parts), `atomic` (complete or absent), `hashing` (digests).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.io.atomic import new_directory, new_file, replace_file, write_json
    from m3jax.io.hashing import file_digest, file_digests, hex_digest, int_digest, new_digest
    from m3jax.io.jsonl import BadRecords, Record, numbered_lines, parse_object, read_records
    from m3jax.io.npy import NpyWriter
    from m3jax.io.tables import hub_reader, read_parquet, tfds_reader
    from m3jax.io.trec import Qrels, Run, read_qrels, read_run, write_run

__all__ = [
    "BadRecords",
    "NpyWriter",
    "Qrels",
    "Record",
    "Run",
    "file_digest",
    "file_digests",
    "hex_digest",
    "hub_reader",
    "int_digest",
    "new_digest",
    "new_directory",
    "new_file",
    "numbered_lines",
    "parse_object",
    "read_parquet",
    "read_qrels",
    "read_records",
    "read_run",
    "replace_file",
    "tfds_reader",
    "write_json",
    "write_run",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "atomic": ("new_directory", "new_file", "replace_file", "write_json"),
        "hashing": ("file_digest", "file_digests", "hex_digest", "int_digest", "new_digest"),
        "jsonl": ("BadRecords", "Record", "numbered_lines", "parse_object", "read_records"),
        "npy": ("NpyWriter",),
        "tables": ("hub_reader", "read_parquet", "tfds_reader"),
        "trec": ("Qrels", "Run", "read_qrels", "read_run", "write_run"),
    },
)
