"""The cache of replies: interrupted runs resume, an incomplete last line is dropped."""

import threading

import pytest
from support.synthesis import requests

from m3jax.synthesize.generators import Generator, Reply
from m3jax.synthesize.reply_cache import generate_replies, read_cache


def counted(stop_at: int | None = None) -> tuple[Generator, list[str]]:
    """A generator that records its prompts, and that record."""
    prompts: list[str] = []

    def answer(batch):
        if stop_at is not None and len(prompts) >= stop_at:
            raise KeyboardInterrupt
        prompts.extend(request.prompt for request in batch)
        return [Reply(request.prompt.upper()) for request in batch]

    return Generator("counted", answer, threading.Event()), prompts


def test_an_interrupted_run_resumes(tmp_path):
    cache = tmp_path / "cache.jsonl"
    first, prompts = counted(stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        generate_replies(requests(9), first, cache)
    second, rest = counted()
    replies = generate_replies(requests(9), second, cache)
    assert prompts + rest == [request.prompt for request in requests(9)] and len(prompts) == 4
    assert [reply.text for reply in replies] == [r.prompt.upper() for r in requests(9)]


@pytest.mark.parametrize("cut", [1, 30])  # the line end alone; half a line
def test_an_incomplete_last_line_costs_at_most_one_request(tmp_path, cut):
    cache = tmp_path / "cache.jsonl"
    generate_replies(requests(3), counted()[0], cache)
    cache.write_bytes(cache.read_bytes()[:-cut])
    again, prompts = counted()
    generate_replies(requests(3), again, cache)
    assert prompts == ([] if cut == 1 else [requests(3)[2].prompt])
    assert len(read_cache(cache)) == 3


def test_a_file_that_is_not_a_cache_is_an_error_and_unchanged(tmp_path):
    cache = tmp_path / "cache.jsonl"
    cache.write_text('{"query": "q"}\n{"query": "r"}\n')
    with pytest.raises(ValueError, match=r"cache\.jsonl:1: not a cached reply"):
        generate_replies(requests(1), counted()[0], cache)
    assert cache.read_text().count("query") == 2


def test_another_generator_has_its_own_replies(tmp_path):
    cache = tmp_path / "cache.jsonl"
    generate_replies(requests(2), counted()[0], cache)
    other, prompts = counted()
    generate_replies(requests(2), other._replace(identity="other"), cache)
    assert len(prompts) == 2
