"""Articles about invented towns, requests, and commands of `m3jax synthesize`."""

import gzip
import json

from support.chat_stub import Stub

from m3jax.cli.main import main
from m3jax.synthesize.endpoint import Endpoint, chat_generator
from m3jax.synthesize.generators import Generator, Request

KEY = "sk-never-shown"
MLDR = "ar de en es fr hi it ja ko pt ru th zh".split()


def article_text(number: int, count: int = 6) -> str:
    """Paragraphs about invented towns: each has a name that no other has."""
    parts = []
    for part in range(count):
        name = f"Town{number}x{part}"
        parts.append(
            f"The market of {name} was founded by weavers in {1200 + number * 10 + part}. "
            + " ".join([f"Merchants of {name} sold cloth, salt and amber to travellers."] * 5)
        )
    return "\n\n".join(parts)


def generator(stub: Stub, **options) -> Generator:
    values = {
        "base_url": stub.url,
        "model": "stub",
        "key": KEY,
        "concurrency": 1,
        "retries": 3,
        "first_wait": 0.01,
        "timeout": 5.0,
    } | options
    return chat_generator(Endpoint(**values))


def requests(count: int) -> list[Request]:
    return [Request(f"prompt {i} Town{i}", f"paragraph {i}", "en") for i in range(count)]


def rows(path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def command(articles_file, output, kind: str) -> list[str]:
    return [
        "synthesize",
        "--input",
        str(articles_file),
        "--output",
        str(output),
        "--generator",
        kind,
    ]


def chat(stub: Stub, articles_file, output, *more: str) -> int:
    where = ("--model", "stub", "--base-url", stub.url)
    return main([*command(articles_file, output, "chat"), *where, *more])
