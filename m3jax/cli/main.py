"""The `m3jax` command: one file per subcommand."""

import argparse
import importlib
import logging
import os
import sys
from typing import NoReturn

from m3jax import __version__

# Name -> (module under m3jax.cli, one line of help).
COMMANDS = {
    "quickstart": "search a small multilingual corpus in the package",
    "score": "explain how well passages match a query",
    "encode": "encode a JSON Lines file: embeddings on disk",
    "train": "train or fine-tune, on one device or many hosts",
    "data": "check, build and split training data",
    "mine": "find hard negatives for training files with a model or BM25",
    "score-teacher": "score training files with a re-ranker or an M3, for distillation",
    "synthesize": "write questions for long articles with a language model",
    "index": "build a searchable index of a corpus",
    "search": "search an index by any method, one query or many",
    "evaluate": "measure retrieval on judged queries, and compare methods",
    "tune-weights": "tune the weights of hybrid search on judged queries",
    "convert": "convert, check, extend and shrink checkpoints",
    "info": "describe a model, an index or a data set",
}

EXAMPLES = """\
examples:
  m3jax quickstart --model BAAI/bge-m3
  m3jax score --model DIR --query "What is M3?" --passage "An embedding model." --passage "A fox."
  m3jax encode --model DIR --input corpus.jsonl.gz --output embeddings --modes dense,sparse
  m3jax evaluate --model DIR --task TASKS --methods bm25,dense,all --output RESULTS
  m3jax convert to-hf DIR BGE-M3-FINETUNED --dtype float16
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command. Returns 0, 1 for bad input, 2 for bad arguments, 130 if interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = make_parser(arguments)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(arguments)
    logging.basicConfig(format="m3jax: %(message)s", level=logging.WARNING)
    _prepare_jax()
    return _run(options)


class _Parser(argparse.ArgumentParser):
    """Prints the examples of a command after its usage errors."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.epilog or ''}{self.prog}: error: {message}\n")


def make_parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The parser of a command line; only the command in it gets its arguments."""
    name = next((a for a in arguments if not a.startswith("-")), None)
    parser = _Parser(
        prog="m3jax",
        description="M3-Embedding (BGE-M3) in JAX: dense, sparse and multi-vector at once.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"m3jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, summary in COMMANDS.items():
        module = importlib.import_module(f"m3jax.cli.{command.replace('-', '_')}")
        sub = commands.add_parser(
            command,
            help=summary,
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command == name or name is None:
            module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def _run(options: argparse.Namespace) -> int:
    try:
        return options.run(options)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        if os.environ.get("M3JAX_DEBUG"):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"m3jax: error: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("m3jax: interrupted", file=sys.stderr)
        return 130


def _prepare_jax() -> None:
    """Settings of the process, which a library must not change.

    Compiled programs are cached on disk. An empty M3JAX_CACHE_DIR turns the cache off.
    """
    default = os.path.join(os.path.expanduser("~"), ".cache", "m3jax", "xla")
    directory = os.environ.get("M3JAX_CACHE_DIR", default)
    if directory:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", directory)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
