"""Check training files, and build data sets from them.

check            statistics and defects of files
build            files to a data set with random access and token lengths
split-by-length  one file for each range of lengths
sources          the paper's data sources, their origins and licences
convert          a published data set to training files
pairs            raw text to cleaned pairs for the unsupervised stage
"""

import argparse
import importlib

# Action -> (module under m3jax.cli, one line of help).
ACTIONS = {
    "check": ("data_check", "statistics and defects of files"),
    "build": ("data_build", "files to a data set with random access and token lengths"),
    "split-by-length": ("data_split", "one file for each range of lengths"),
    "sources": ("data_sources", "the paper's data sources, their origins and licences"),
    "convert": ("data_convert", "a published data set to training files"),
    "pairs": ("data_pairs", "raw text to cleaned pairs"),
}

EXAMPLES = """\
examples:
  m3jax data check train/ --tokenizer BAAI/bge-m3
  m3jax data build --input train/ --output train-data --tokenizer BAAI/bge-m3
  m3jax data split-by-length --input train.jsonl --output by-length --tokenizer BAAI/bge-m3
  m3jax data sources --stage finetune
  m3jax data pairs --extractor title-body --input wiki.jsonl.zst --output pairs.jsonl.gz
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `data` and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (module_name, summary) in ACTIONS.items():
        module = importlib.import_module(f"m3jax.cli.{module_name}")
        sub = actions.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(act=module.run)


def run(options: argparse.Namespace) -> int:
    """Runs the action."""
    return options.act(options)
