"""What asks, what answers, and what comes back. Never imports JAX."""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Request(NamedTuple):
    """One question to be written."""

    prompt: str  # what a language model reads
    paragraph: str  # what a generator without a model reads
    lang: str


class Reply(NamedTuple):
    """What a generator wrote; tokens are 0 where it does not count them."""

    text: str | None  # None: malformed, even when asked again
    finish: str = "stop"  # "length": cut off
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Generator(NamedTuple):
    """`answer` takes up to `batch` requests and gives a reply to each, in order."""

    identity: str  # all that shapes its replies: they are cached under it
    answer: Callable[[Sequence[Request]], list[Reply]]
    stop: threading.Event  # set when calls of `answer` are to give up what they wait for
    batch: int = 1
    parallel: int = 1  # calls of `answer` at one time, each in its own thread
