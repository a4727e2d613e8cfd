"""Print statistics and defects of training files.

Reads all records and lists the bad ones. The exit code is 1 if there are more than --skip-bad N:
`m3jax data build` would refuse them. Paths are files (.jsonl, .jsonl.gz, .jsonl.zst, .parquet),
directories or globs.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from m3jax.cli.options import add_flags

EXAMPLES = """\
examples:
  m3jax data check train.jsonl.gz
  m3jax data check train/ 'more/*.parquet' --tokenizer DIR --json report.json
"""
LISTED = 12  # languages, sources, keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data check`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, directory or glob")
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="measure lengths in tokens of this model (default: in characters)",
    )
    add_flags(parser, "--skip-bad", help="exit code 0 with up to N records that cannot be used")
    parser.add_argument("--json", metavar="FILE", help="also write the report to a file")
    add_flags(parser, "--format")


def run(options: argparse.Namespace) -> int:
    """Prints the report; returns 1 if there are too many bad records."""
    from m3jax.cli.options import load_tokenizer
    from m3jax.cli.tables import counting
    from m3jax.data.check import check

    tokenizer = load_tokenizer(options.tokenizer) if options.tokenizer else None
    with counting("examples checked") as progress:
        report = check(
            options.paths, tokenizer=tokenizer, record_format=options.format, progress=progress
        )
    _print(report)
    if options.json:
        text = json.dumps(report.to_json(), indent=2, ensure_ascii=True)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    return 1 if report.bad.total() > options.skip_bad else 0


def _print(report) -> None:
    from rich.table import Table

    from m3jax.cli.tables import wide_console

    console = wide_console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts(report):
        table.add_row(name, value)
    console.print(table)
    if report.examples:
        console.print(_histogram(report))
    for title, places in (
        ("bad records", report.bad_places),
        ("a positive is also a negative", report.positive_is_negative_places),
    ):
        if places:
            console.print(f"\n{title} (the first {len(places)}):", highlight=False)
            for place in places:
                console.print(f"  {place}", highlight=False, markup=False)


def _facts(report) -> list[tuple[str, str]]:
    facts = [
        ("files", f"{report.files:,}"),
        ("examples", f"{report.examples:,}"),
        ("bad records", _counts(report.bad) if report.bad else "0"),
        ("languages", _counts(report.languages)),
        ("sources", _counts(report.sources)),
        ("positives each", _counts(report.positives)),
        ("negatives each", _counts(report.negatives)),
        ("with teacher scores", f"{report.scored:,}"),
        ("without in-batch negatives", f"{report.not_in_batch:,}"),
        ("repeated queries", f"{report.repeated_queries:,}"),
        ("repeated query + positive", f"{report.repeated_pairs:,}"),
        ("positive among negatives", f"{report.positive_is_negative:,}"),
        ("empty fields", _counts(report.empty)),
        ("unknown keys (ignored)", _counts(report.unknown_keys)),
    ]
    return [(name, value or "none") for name, value in facts]


def _counts(counter: Counter) -> str:
    """`de 120, en 80 and 3 more`: the most frequent first."""
    listed = [f"{name} {count:,}" for name, count in counter.most_common(LISTED)]
    more = len(counter) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def _histogram(report):
    from rich.table import Table

    from m3jax.data.check import LENGTH_BOUNDARIES

    table = Table(title=f"texts by length in {report.unit}", title_justify="left")
    table.add_column("length", justify="right")
    for name in report.lengths:
        table.add_column(name, justify="right")
    for number, start in enumerate(LENGTH_BOUNDARIES):
        if any(lengths.bins[number] for lengths in report.lengths.values()):
            end = (
                f"{LENGTH_BOUNDARIES[number + 1] - 1}"
                if number + 1 < len(LENGTH_BOUNDARIES)
                else ""
            )
            counts = [f"{lengths.bins[number]:,}" for lengths in report.lengths.values()]
            table.add_row(f"{start}-{end}", *counts)
    for name, values in (
        ("mean", [f"{x.total / x.count:.1f}" if x.count else "-" for x in report.lengths.values()]),
        ("longest", [f"{x.longest:,}" for x in report.lengths.values()]),
    ):
        table.add_row(name, *values)
    return table
