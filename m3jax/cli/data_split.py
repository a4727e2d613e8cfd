"""Split training files by the length of an example's longest text: NAME_len-L-R.jsonl.

Records keep all keys. A file holds the lengths L <= tokens < R. Trainers that take each batch from
one file, such as FlagEmbedding's, then pad less; m3jax does not need such files.
"""

import argparse

from m3jax.cli.options import add_flags, deprecated_alias

EXAMPLES = """\
examples:
  m3jax data split-by-length --input train.jsonl --output by-length --tokenizer DIR
  m3jax data split-by-length --input train/ --output out --tokenizer DIR \\
      --length-boundaries 0,512,2048
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data split-by-length`."""
    from m3jax.data.split import LENGTH_BOUNDARIES

    parser.add_argument(
        "--input", nargs="+", required=True, metavar="PATH", help="files, directories, globs"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new directory")
    parser.add_argument(
        "--tokenizer", required=True, metavar="DIR", help="tokenizer of the model to train"
    )
    default = ",".join(map(str, LENGTH_BOUNDARIES))
    parser.add_argument(
        "--length-boundaries",
        default=default,
        metavar="L,L,...",
        help=f"in tokens (default: {default})",
    )
    add_flags(parser, "--skip-bad")
    deprecated_alias(parser, "--edges", "--length-boundaries")


def run(options: argparse.Namespace) -> int:
    """Splits the files, and prints the number of records in each."""
    from m3jax.cli.options import load_tokenizer
    from m3jax.cli.tables import counting
    from m3jax.data.split import split_by_length

    try:
        boundaries = tuple(int(text) for text in options.length_boundaries.split(","))
    except ValueError as error:
        raise ValueError(
            f"--length-boundaries must be numbers with commas, got {options.length_boundaries!r}"
        ) from error
    tokenizer = load_tokenizer(options.tokenizer)
    with counting("examples written") as progress:
        counts = split_by_length(
            options.input,
            options.output,
            tokenizer,
            boundaries=boundaries,
            skip_bad=options.skip_bad,
            progress=progress,
        )
    for name, count in counts.items():
        print(f"{count:>10,} {name}")
    return 0
