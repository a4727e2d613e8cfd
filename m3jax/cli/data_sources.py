"""Print the paper's data sources: stage, languages, size, origin, licence."""

import argparse

EXAMPLES = """\
examples:
  m3jax data sources
  m3jax data sources --stage finetune --language zh
  m3jax data sources miracl
  m3jax data sources --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data sources`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="print all fields of this source")
    parser.add_argument("--stage", choices=("pretrain", "finetune", "evaluate"))
    parser.add_argument("--language", metavar="CODE", help="sources with this language")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Prints a table, one source in full, or JSON."""
    import json

    from rich.table import Table

    from m3jax.cli.tables import wide_console
    from m3jax.data import registry

    chosen = (
        [registry.find(options.name)]
        if options.name
        else [
            s
            for s in registry.SOURCES
            if options.stage in (None, s.stage)
            and (options.language is None or options.language in s.languages.split())
        ]
    )
    rows = [_fields(source) for source in chosen]
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    elif options.name:
        for name, value in rows[0].items():
            print(f"{name:10} {value}")
    else:
        table = Table("name", "stage", "languages", "pairs", "where", "licence")
        for row in rows:
            table.add_row(
                *(row[key] for key in ("name", "stage", "languages", "size", "origin", "licence"))
            )
        wide_console().print(table)
    return 0


def _fields(source) -> dict[str, str]:
    where = {"hub": source.hub and "/".join(filter(None, source.hub)), "tfds": source.tfds}
    return {
        "name": source.name,
        "stage": source.stage,
        "languages": source.languages,
        "size": source.size,
        "origin": source.origin,
        "licence": source.licence,
        "record": (source.adapter.__doc__ or "").splitlines()[0],
        **{name: value for name, value in where.items() if value},
    }
