"""The cache of replies: interrupted runs resume, a torn last line is dropped."""

import threading

import pytest
from support.synthesis import requests

from m3jax.synthesize.generators import Generator, Reply
from m3jax.synthesize.reply_cache import ask, read_cache


def counted(stop_at: int | None = None) -> tuple[Generator, list[str]]:
    asked: list[str] = []

    def answer(some):
        if stop_at is not None and len(asked) >= stop_at:
            raise KeyboardInterrupt
        asked.extend(request.prompt for request in some)
        return [Reply(request.prompt.upper()) for request in some]

    return Generator("counted", answer, threading.Event()), asked


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    cache = tmp_path / "cache.jsonl"
    first, asked = counted(stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        ask(requests(9), first, cache)
    second, rest = counted()
    replies = ask(requests(9), second, cache)
    assert asked + rest == [request.prompt for request in requests(9)] and len(asked) == 4
    assert [reply.text for reply in replies] == [r.prompt.upper() for r in requests(9)]


@pytest.mark.parametrize("cut", [1, 30])  # the line end alone; half a line
def test_a_torn_last_line_costs_one_question_at_most(tmp_path, cut):
    cache = tmp_path / "cache.jsonl"
    ask(requests(3), counted()[0], cache)
    cache.write_bytes(cache.read_bytes()[:-cut])
    again, asked = counted()
    ask(requests(3), again, cache)
    assert asked == ([] if cut == 1 else [requests(3)[2].prompt])
    assert len(read_cache(cache)) == 3


def test_a_file_that_is_no_cache_is_refused_and_kept(tmp_path):
    cache = tmp_path / "cache.jsonl"
    cache.write_text('{"query": "q"}\n{"query": "r"}\n')
    with pytest.raises(ValueError, match=r"cache\.jsonl:1: not a line of a cache"):
        ask(requests(1), counted()[0], cache)
    assert cache.read_text().count("query") == 2


def test_another_generator_is_asked_anew(tmp_path):
    cache = tmp_path / "cache.jsonl"
    ask(requests(2), counted()[0], cache)
    other, asked = counted()
    ask(requests(2), other._replace(identity="other"), cache)
    assert len(asked) == 2
