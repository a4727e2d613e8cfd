"""A generator that calls a chat model at an HTTP endpoint with OpenAI's protocol.

Uses only the standard library. The API key is sent to the endpoint and nowhere else: it is not
part of error messages or cache entries, and redirections are not followed.
"""

import dataclasses
import email.utils
import http.client
import json
import math
import random
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from m3jax.synthesize.generators import Generator, Reply, Request

RETRIED = {408, 429, 500, 502, 503, 504, 529}  # statuses of temporary failures
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_MAX_BYTES = 4 << 20  # of a response


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The address of a chat model and the settings of its requests. Times are in seconds.

    Raises ValueError for an invalid URL, key or number.
    """

    base_url: str  # https://host/v1
    model: str
    key: str = dataclasses.field(default="", repr=False)  # "": no key is sent
    temperature: float = 0.0
    max_tokens: int = 200
    body: dict[str, Any] = dataclasses.field(default_factory=dict)  # more fields; None removes one
    concurrency: int = 4  # requests at a time
    timeout: float = 60.0
    retries: int = 6
    first_wait: float = 1.0  # before the first retry; doubled with each further one
    max_wait: float = 60.0  # also limits Retry-After

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.base_url)
        plain = self.base_url.isascii() and self.base_url.isprintable() and " " not in self.base_url
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError(
                f"the base URL must look like https://host/v1, got {self.base_url!r}: name one "
                "with --base-url or in OPENAI_BASE_URL"
            )
        if parts.username or parts.password:
            raise ValueError(
                "the base URL contains a password: pass the key in an environment variable instead"
            )
        if not self.model:
            raise ValueError("the endpoint needs the name of a model: --model NAME")
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise ValueError(
                "the key has line breaks or other characters that are invalid in an HTTP header"
            )
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0:
            raise ValueError(
                "concurrency must be at least 1, retries at least 0, and timeout above 0; got "
                f"{self.concurrency}, {self.retries} and {self.timeout}"
            )


def chat_generator(endpoint: Endpoint) -> Generator:
    """A generator that sends each prompt to `endpoint` in a request of its own.

    Its `answer` raises ConnectionError if the endpoint cannot be reached, refuses the request, or
    still fails after all retries; InterruptedError if it is stopped while it waits.
    """
    stop = threading.Event()
    post = _poster(endpoint, stop)

    def answer(requests: Sequence[Request]) -> list[Reply]:
        return [_answer(post, _payload(endpoint, request.prompt)) for request in requests]

    # The URL is not part of the identity: a server at another port gives the same replies.
    settings = _payload(endpoint, "")
    identity = f"chat {json.dumps(settings, sort_keys=True)}"
    return Generator(
        identity,
        answer,
        stop,
        concurrency=endpoint.concurrency,
        name="chat",
        model=endpoint.model,
    )


def is_local(base_url: str) -> bool:
    """Whether the URL is that of a server on this machine."""
    return urllib.parse.urlsplit(base_url).hostname in LOCAL_HOSTS


def _payload(endpoint: Endpoint, prompt: str) -> dict[str, Any]:
    values = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
    } | endpoint.body
    return {key: value for key, value in values.items() if value is not None}


def _answer(post: Callable[[bytes], bytes], payload: dict[str, Any]) -> Reply:
    data = json.dumps(payload).encode()
    for _ in range(2):
        reply = _reply(post(data))
        if reply.text is not None:
            return reply
    return Reply(None)


def _reply(response: bytes) -> Reply:
    """The first choice of a completion; its text is None if the response is malformed."""
    try:
        values = json.loads(response)
        choice = values["choices"][0]
        text = choice["message"]["content"]
        usage = values.get("usage") or {}
        counts = [int(usage.get(f"{name}_tokens") or 0) for name in ("prompt", "completion")]
        if isinstance(text, str) and text.strip():
            return Reply(text, str(choice.get("finish_reason") or "stop"), *counts)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        pass
    return Reply(None)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: urllib would send the key to the new address."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _poster(endpoint: Endpoint, stop: threading.Event) -> Callable[[bytes], bytes]:
    """A function that posts a body and returns the response's, after retries."""
    attempt = _attempt(endpoint)

    def post(data: bytes) -> bytes:
        for number in range(endpoint.retries + 1):
            content, problem, requested_wait = attempt(data)
            if content is not None:
                return content
            if number == endpoint.retries:
                raise ConnectionError(
                    f"{problem} (after {number + 1} attempts); the replies so far are stored: run "
                    "the same command again to continue"
                )
            # Random, so that concurrent requests are not repeated all at once.
            wait = endpoint.first_wait * 2**number * random.uniform(0.5, 1.0)
            wait = min(wait if requested_wait is None else requested_wait, endpoint.max_wait)
            if stop.wait(wait):
                raise InterruptedError("stopped while waiting for the endpoint")
        raise AssertionError("unreachable")

    return post


def _attempt(endpoint: Endpoint) -> Callable[[bytes], tuple[bytes | None, str, float | None]]:
    """A function that posts once and returns (response, error message, requested wait).

    The response is None for a temporary failure. Raises ConnectionError for a permanent one.
    """
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    # A proxy from the environment cannot reach servers on this machine.
    proxies = [urllib.request.ProxyHandler({})] if is_local(url) else []
    opener = urllib.request.build_opener(_NoRedirect, *proxies)
    answered = threading.Event()

    def attempt(data: bytes) -> tuple[bytes | None, str, float | None]:
        request = urllib.request.Request(url, data, headers)
        try:
            with opener.open(request, timeout=endpoint.timeout) as response:
                content = response.read(_MAX_BYTES)
            answered.set()
            return content, "", None
        except urllib.error.HTTPError as error:
            answered.set()
            with error:
                message = _error_message(error, endpoint.key)
            problem = f"{url} answered {error.code}: {message}"
            if error.code not in RETRIED:
                raise ConnectionError(problem) from None
            return None, problem, _retry_after(error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            absent = isinstance(reason, (socket.gaierror, ConnectionRefusedError))
            untrusted = isinstance(reason, ssl.SSLCertVerificationError)
            if untrusted or (absent and not answered.is_set()):
                raise ConnectionError(
                    f"no endpoint at {url}: {reason}; is the URL right and the server running?"
                ) from None
            return None, f"{url}: {reason or type(error).__name__}", None

    return attempt


def _error_message(error: urllib.error.HTTPError, key: str) -> str:
    """The endpoint's message, in which the key, which some endpoints repeat, is masked."""
    try:
        text = error.read(_MAX_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    try:
        values = json.loads(text)
        inner = values.get("error", values)
        text = inner if isinstance(inner, str) else str(inner["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    text = " ".join(text.split()) or str(error.reason)
    return (text.replace(key, "***") if key else text)[:300]


def _retry_after(value: str | None) -> float | None:
    """The seconds in a Retry-After header, which is a number or a date; None if it is invalid."""
    if value is None:
        return None
    try:
        seconds = float(value)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
