"""Questions from a chat model behind an HTTP endpoint that speaks OpenAI's protocol.

The standard library alone. The key is sent to the endpoint and nowhere else: it is in no message,
no cache, and follows no redirection. Never imports JAX.
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

RETRIED = {408, 429, 500, 502, 503, 504, 529}  # statuses of a server that may do better later
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_LARGEST = 4 << 20  # bytes of a response that are read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how to ask; times in seconds."""

    base_url: str  # https://host/v1
    model: str
    key: str = dataclasses.field(default="", repr=False)  # "": none is sent
    temperature: float = 0.0
    max_tokens: int = 200
    body: dict[str, Any] = dataclasses.field(default_factory=dict)  # more fields; None removes one
    parallel: int = 4
    timeout: float = 60.0
    retries: int = 6
    first_wait: float = 1.0  # doubled with every retry
    longest_wait: float = 60.0  # whatever Retry-After says

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.base_url)
        plain = self.base_url.isascii() and self.base_url.isprintable() and " " not in self.base_url
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError(
                f"the base URL must look like https://host/v1, got {self.base_url!r}: name one "
                "with --base-url or in OPENAI_BASE_URL"
            )
        if parts.username or parts.password:
            raise ValueError("the base URL holds a password: give the key in a variable instead")
        if not self.model:
            raise ValueError("the endpoint needs the name of a model: --model NAME")
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise ValueError("the key has line breaks or other signs that no HTTP header can hold")
        if self.parallel < 1 or self.retries < 0 or self.timeout <= 0:
            raise ValueError("parallel must be at least 1, retries 0, the timeout above 0")


def chat_generator(endpoint: Endpoint) -> Generator:
    """A generator that asks `endpoint`, one prompt a request.

    Raises ConnectionError for an endpoint that is not there, that refuses the request, or that
    fails after all retries.
    """
    stop = threading.Event()
    post = _poster(endpoint, stop)

    def answer(requests: Sequence[Request]) -> list[Reply]:
        return [_answer(post, _payload(endpoint, request.prompt)) for request in requests]

    # Not the URL: a server may move to another port and its replies still hold.
    settings = _payload(endpoint, "")
    identity = f"chat {json.dumps(settings, sort_keys=True)}"
    return Generator(identity, answer, stop, parallel=endpoint.parallel)


def is_local(base_url: str) -> bool:
    """Does the URL name this machine?"""
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
    """The first choice of a completion; without text where the response is no completion."""
    try:
        values = json.loads(response)
        choice = values["choices"][0]
        text = choice["message"]["content"]
        usage = values.get("usage") or {}
        counts = [int(usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion")]
        if isinstance(text, str) and text.strip():
            return Reply(text, str(choice.get("finish_reason") or "stop"), *counts)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        pass
    return Reply(None)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The library would send the key along to wherever it is sent."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _poster(endpoint: Endpoint, stop: threading.Event) -> Callable[[bytes], bytes]:
    """A function that posts a body and returns the response's, after retries."""
    attempt = _attempt(endpoint)

    def post(data: bytes) -> bytes:
        for number in range(endpoint.retries + 1):
            content, problem, asked = attempt(data)
            if content is not None:
                return content
            if number == endpoint.retries:
                raise ConnectionError(
                    f"{problem} (asked {number + 1} times); the replies so far are kept: run the "
                    "same command again to go on"
                )
            # Spread, so that parallel requests do not come back all at once.
            wait = endpoint.first_wait * 2**number * random.uniform(0.5, 1.0)
            wait = min(wait if asked is None else asked, endpoint.longest_wait)
            if stop.wait(wait):
                raise InterruptedError("stopped while waiting for the endpoint")
        raise AssertionError("unreachable")

    return post


def _attempt(endpoint: Endpoint) -> Callable[[bytes], tuple[bytes | None, str, float | None]]:
    """A function that posts once: (response, "", None), or (None, what went wrong, wait asked for).

    It raises ConnectionError where another attempt would not help.
    """
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    # A proxy of the environment has no way to this machine's own servers.
    proxies = [urllib.request.ProxyHandler({})] if is_local(url) else []
    opener = urllib.request.build_opener(_NoRedirect, *proxies)
    answered = threading.Event()

    def attempt(data: bytes) -> tuple[bytes | None, str, float | None]:
        request = urllib.request.Request(url, data, headers)
        try:
            with opener.open(request, timeout=endpoint.timeout) as response:
                content = response.read(_LARGEST)
            answered.set()
            return content, "", None
        except urllib.error.HTTPError as error:
            answered.set()
            with error:
                said = _said(error, endpoint.key)
            problem = f"{url} answered {error.code}: {said}"
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


def _said(error: urllib.error.HTTPError, key: str) -> str:
    """The endpoint's own message, without the key that some repeat."""
    try:
        text = error.read(_LARGEST).decode("utf-8", "replace")
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
    """Seconds of a Retry-After header, a number or a date."""
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
