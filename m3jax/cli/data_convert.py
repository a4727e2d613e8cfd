"""Convert a published data set (see `m3jax data sources`) to training files.

The input is files in their published form (JSON Lines, Parquet, JSON), three files to be joined
(queries, texts, judgements), data prepared by TFDS, or the Hugging Face hub, which alone uses the
network.
"""

import argparse

from m3jax.cli.options import add_flags

EXAMPLES = """\
examples:
  m3jax data convert --source squad --input train-v1.1.json --output squad.jsonl.gz --language en
  m3jax data convert --source t2ranking --queries q.tsv --corpus c.tsv --qrels r.tsv \\
      --output t2ranking.jsonl.gz
  m3jax data convert --source squad --tfds --split train --output squad.jsonl.gz
  m3jax data convert --source mr-tydi --hub swahili --output tydi-sw.jsonl.gz --language sw
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data convert`."""
    add = parser.add_argument
    add("--source", required=True, metavar="NAME", help="name of the data set")
    add("--output", required=True, metavar="FILE.jsonl[.gz|.zst]", help="a new file")
    add("--input", nargs="+", metavar="PATH", help="files, directories, globs")
    add("--queries", metavar="FILE", help="queries to be joined: .jsonl or .tsv")
    add("--corpus", metavar="FILE", help="texts to be joined: .jsonl or .tsv")
    add("--qrels", metavar="FILE", help="judgements to be joined: .tsv; label 0 is a negative")
    add("--tfds", action="store_true", help="read data that TFDS has prepared")
    add("--data-dir", metavar="DIR", help="directory of TFDS (default: its own)")
    add("--hub", nargs="?", const="", metavar="CONFIG", help="read from the Hugging Face hub")
    add("--split", default="train", help="split of TFDS or the hub (default: train)")
    add("--language", default="", metavar="CODE", help="language of records that name none")
    add_flags(parser, "--skip-bad")


def run(options: argparse.Namespace) -> int:
    """Converts the records, and prints counts."""
    from m3jax.cli.tables import counting
    from m3jax.data import registry

    source = registry.find(options.source)
    records = _records(options, source)
    with counting("examples written") as progress:
        made = registry.convert(
            source,
            records,
            options.output,
            language=options.language,
            skip_bad=options.skip_bad,
            progress=progress,
        )
    skipped = f", {made['skipped']:,} bad records skipped" if made["skipped"] else ""
    print(
        f"{made['examples']:,} examples, {made['negatives']:,} negatives{skipped}: {options.output}"
    )
    return 0


def _records(options: argparse.Namespace, source):
    from m3jax.data import registry
    from m3jax.io.jsonl import BadRecords

    joined = [options.queries, options.corpus, options.qrels]
    ways = [bool(options.input), any(joined), options.tfds, options.hub is not None]
    if sum(ways) != 1:
        raise ValueError(
            "name the input by exactly one of: --input; --queries with --corpus and --qrels; "
            "--tfds; --hub"
        )
    if options.input:
        return registry.from_files(options.input, BadRecords(options.skip_bad))
    if any(joined):
        if not all(joined):
            raise ValueError("--queries, --corpus and --qrels must be given together")
        return registry.from_tables(options.queries, options.corpus, options.qrels)
    if options.tfds:
        return registry.from_tfds(source, options.split, options.data_dir)
    return registry.from_hub(source, options.split, options.hub or None)
