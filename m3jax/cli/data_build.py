"""Build a data set for training: random access to examples, and the token lengths of all texts.

The output is a TensorFlow Datasets directory in ArrayRecord format (TensorFlow is not needed) with
NumPy arrays. It appears when it is complete. Training then computes no lengths.
"""

import argparse
import os

from m3jax.cli.options import add_flags

EXAMPLES = """\
examples:
  m3jax data build --input train/ --output train-data --tokenizer BAAI/bge-m3
  m3jax data build --input a.jsonl.gz 'b/*.parquet' --output data --tokenizer DIR --skip-bad 100
  m3jax data build --format texts --input wiki.jsonl.zst --output wiki-data --tokenizer DIR
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data build`."""
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="PATH", help="files, directories, globs"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new directory")
    parser.add_argument(
        "--tokenizer", required=True, metavar="DIR", help="tokenizer of the model to train"
    )
    add_flags(parser, "--skip-bad")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads of the tokenizer (default: all cores)"
    )
    add_flags(parser, "--format")


def run(options: argparse.Namespace) -> int:
    """Builds the data set, and prints counts."""
    if options.workers is not None:
        if options.workers < 1:
            raise ValueError(f"--workers must be 1 or more, got {options.workers}")
        os.environ["RAYON_NUM_THREADS"] = str(
            options.workers
        )  # read when the tokenizer is first used
    from m3jax.cli.options import load_tokenizer
    from m3jax.cli.tables import counting
    from m3jax.data.build import build

    tokenizer = load_tokenizer(options.tokenizer)
    with counting("examples written") as progress:
        made = build(
            options.input,
            options.output,
            tokenizer,
            record_format=options.format,
            skip_bad=options.skip_bad,
            progress=progress,
        )
    skipped = f", {made['skipped']:,} bad records skipped" if made["skipped"] else ""
    print(
        f"{made['examples']:,} examples, {made['texts']:,} texts, {made['tokens']:,} tokens, "
        f"{len(made['sources']):,} sources{skipped}: {options.output}"
    )
    return 0
