"""The interface of generators: requests, replies, and the object that answers them."""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Request(NamedTuple):
    """A request for one question."""

    prompt: str  # the input of a language model
    paragraph: str  # the input of a generator without a model
    lang: str


class Reply(NamedTuple):
    """The output of a generator; token counts are 0 if it does not report them."""

    text: str | None  # None: malformed, also after a second request
    finish: str = "stop"  # "length": truncated
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Generator(NamedTuple):
    """A generator of replies: `answer` returns one reply per request, in order."""

    identity: str  # everything that determines the replies; part of their key in the cache
    answer: Callable[[Sequence[Request]], list[Reply]]
    stop: threading.Event  # set to make running calls of `answer` stop waiting
    batch_size: int = 1  # most requests per call of `answer`
    concurrency: int = 1  # calls of `answer` at a time, each in its own thread
    name: str = "custom"  # for the report
    model: str | None = None  # for the report
