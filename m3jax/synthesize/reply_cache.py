"""Replies of a generator, cached on disk so that no request is sent twice.

The cache is a JSON Lines file of {"key", "reply", "finish", "usage"}. Each reply is appended as it
arrives. The key is a digest of the generator's identity and the prompt.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any

from m3jax.io.hashing import hex_digest
from m3jax.synthesize.generators import Generator, Reply, Request

try:
    import fcntl
except ImportError:  # on Windows concurrent runs with the same cache are not detected
    fcntl = None

_PARSE_ERRORS = (ValueError, KeyError, TypeError, IndexError)


def generate_replies(
    requests: Sequence[Request],
    generator: Generator,
    cache: Path,
    progress: Callable[[int], None] | None = None,
) -> list[Reply]:
    """The reply to each request, in order, from the cache if it is there.

    Replies are in the cache as soon as they arrive, also if a later request fails. Malformed ones
    are not stored: the next run requests them again. `progress` is called with the number of new
    replies.

    Raises what the generator raises, BlockingIOError if another run uses the cache, ValueError for
    a file that is not a cache.
    """
    keys = [cache_key(generator.identity, request.prompt) for request in requests]
    with _open(cache) as stream:
        cached = read_cache(cache)
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in cached}
        new = _generate(missing, generator, stream, progress)
    return [cached[key] if key in cached else new[key] for key in keys]


def uncached(requests: Sequence[Request], generator: Generator, cache: Path) -> list[Request]:
    """The requests without a reply in the cache."""
    cached = read_cache(cache)
    return [r for r in requests if cache_key(generator.identity, r.prompt) not in cached]


def cache_key(identity: str, prompt: str) -> str:
    """The key of a reply: 32 hexadecimal digits."""
    return hex_digest(f"{identity}\0{prompt}")


def read_cache(path: Path) -> dict[str, Reply]:
    """{key: reply} of a cache, {} if the file does not exist; an incomplete last line is ignored.

    Raises ValueError with file and line for any other line that is not a reply.
    """
    replies: dict[str, Reply] = {}
    if not path.is_file():
        return replies
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                key, reply = _parse(line)
            except _PARSE_ERRORS as error:
                if not line.endswith(b"\n"):  # the run was killed while writing
                    break
                raise ValueError(
                    f"{path}:{number}: not a cached reply; remove the line, or use another --cache"
                ) from error
            replies[key] = reply
    return replies


def _generate(
    missing: dict[str, Request],
    generator: Generator,
    stream: IO[bytes],
    progress: Callable[[int], None] | None,
) -> dict[str, Reply]:
    replies: dict[str, Reply] = {}
    lock = threading.Lock()

    def work(keys: Sequence[str]) -> None:
        answers = generator.answer([missing[key] for key in keys])
        # Written by this thread at once, so that an interruption loses no reply.
        with lock:
            for key, reply in zip(keys, answers, strict=True):
                replies[key] = reply
                if reply.text is not None:
                    stream.write(_line(key, reply))
            stream.flush()

    order = list(missing)
    size = generator.batch_size
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    generator.stop.clear()
    pool = ThreadPoolExecutor(generator.concurrency)
    try:
        for future in as_completed([pool.submit(work, batch) for batch in batches]):
            future.result()
            if progress:
                progress(len(replies))
    except BaseException:
        generator.stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return replies


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The cache, open for appending and locked against other runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as stream:
        if fcntl:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(
                    f"{path} is used by another run: wait for it, or use another --cache"
                ) from error
        _repair(stream)
        yield stream


def _repair(stream: IO[bytes]) -> None:
    """Adds a missing line end after the last line, or removes an incomplete last line."""
    stream.seek(0)
    last, end = b"", 0
    for last in stream:
        end += len(last)
    if not last or last.endswith(b"\n"):
        return
    try:
        _parse(last)
        stream.write(b"\n")
        stream.flush()
    except _PARSE_ERRORS:
        stream.truncate(end - len(last))


def _parse(line: bytes) -> tuple[str, Reply]:
    values: Any = json.loads(line)
    key, text, finish, usage = (values[name] for name in ("key", "reply", "finish", "usage"))
    if not all(isinstance(value, str) for value in (key, text, finish)):
        raise TypeError("key, reply and finish must be strings")
    return key, Reply(text, finish, int(usage[0]), int(usage[1]))


def _line(key: str, reply: Reply) -> bytes:
    usage = [reply.prompt_tokens, reply.completion_tokens]
    values = {"key": key, "reply": reply.text, "finish": reply.finish, "usage": usage}
    return json.dumps(values).encode() + b"\n"
