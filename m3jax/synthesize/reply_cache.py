"""Ask a generator, keep every reply on disk, ask nothing twice. Never imports JAX.

The cache is JSON Lines, {"key", "reply", "finish", "usage"} a line, added to as replies come in;
the key is a digest of (identity of the generator, prompt).
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
except ImportError:  # Windows: two runs with one cache are not kept apart
    fcntl = None

_NO_REPLY = (ValueError, KeyError, TypeError, IndexError)


def ask(
    requests: Sequence[Request],
    generator: Generator,
    cache: Path,
    progress: Callable[[int], None] | None = None,
) -> list[Reply]:
    """A reply to each request, in order, from the cache where it is there.

    Whatever stops it, the replies that came in are in the cache. Malformed ones are not: another
    run asks for them again. Raises what the generator raises; BlockingIOError where another run
    uses the cache; ValueError for a file that is no cache.
    """
    keys = [key_of(generator.identity, request.prompt) for request in requests]
    with _open(cache) as stream:
        known = read_cache(cache)
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in known}
        new = _ask(missing, generator, stream, progress)
    return [known[key] if key in known else new[key] for key in keys]


def key_of(identity: str, prompt: str) -> str:
    """Under which a reply is kept."""
    return hex_digest(f"{identity}\0{prompt}")


def read_cache(path: Path) -> dict[str, Reply]:
    """{key: reply} of a cache, {} where there is none; a torn last line does not count."""
    found: dict[str, Reply] = {}
    if not path.is_file():
        return found
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                key, reply = _parse(line)
            except _NO_REPLY as error:
                if not line.endswith(b"\n"):  # a run was killed while it wrote
                    break
                raise ValueError(
                    f"{path}:{number}: not a line of a cache of replies; remove the line, or name "
                    "another cache"
                ) from error
            found[key] = reply
    return found


def _ask(
    missing: dict[str, Request],
    generator: Generator,
    stream: IO[bytes],
    progress: Callable[[int], None] | None,
) -> dict[str, Reply]:
    found: dict[str, Reply] = {}
    lock = threading.Lock()

    def work(keys: Sequence[str]) -> None:
        # Written by the thread that got it: nothing that was paid for waits for anybody.
        replies = generator.answer([missing[key] for key in keys])
        with lock:
            for key, reply in zip(keys, replies, strict=True):
                found[key] = reply
                if reply.text is not None:
                    stream.write(_line(key, reply))
            stream.flush()

    order = list(missing)
    batches = [order[i : i + generator.batch] for i in range(0, len(order), generator.batch)]
    generator.stop.clear()
    pool = ThreadPoolExecutor(generator.parallel)
    try:
        for future in as_completed([pool.submit(work, batch) for batch in batches]):
            future.result()
            if progress:
                progress(len(found))
    except BaseException:
        generator.stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return found


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The cache to write to, for this run alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as stream:
        if fcntl:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(
                    f"{path} is in use: let the other run end, or name another cache"
                ) from error
        _mend(stream)
        yield stream


def _mend(stream: IO[bytes]) -> None:
    """Ends the last line where only that is missing, or takes it away where it is torn."""
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
    except _NO_REPLY:
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
