"""A chat endpoint that fails, waits, or answers with malformed replies."""

import json
import threading

import pytest
from support.chat_stub import completion, question_for
from support.synthesis import KEY, generator, requests

from m3jax.synthesize.endpoint import Endpoint
from m3jax.synthesize.questions import question_of
from m3jax.synthesize.reply_cache import generate_replies, read_cache


def test_busy_and_failing_answers_are_retried(stub):
    failures = {0: (429, {"Retry-After": "0.3"}, b"busy"), 1: (500, {}, b"oops"), 2: (503, {}, b"")}
    good = stub.script
    stub.script = lambda number, text: failures.get(number) or good(number, text)
    (reply,) = generator(stub).answer(requests(1))
    assert reply.text == question_for("Town0") and len(stub.prompts) == 4
    assert stub.times[1] - stub.times[0] >= 0.3
    assert stub.times[2] - stub.times[1] < 0.3  # no Retry-After: the short first wait


def test_a_wait_has_a_limit_whatever_the_server_asks(stub):
    good = stub.script
    stub.script = lambda number, text: (
        good(number, text)
        if number
        else (429, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, b"")
    )
    (reply,) = generator(stub, max_wait=0.05).answer(requests(1))
    assert reply.text and 0.04 <= stub.times[1] - stub.times[0] < 2


def test_a_wait_that_is_no_number_is_passed_over(stub):
    good = stub.script
    stub.script = lambda number, text: (
        good(number, text) if number else (429, {"Retry-After": "nan"}, b"")
    )
    assert generator(stub).answer(requests(1))[0].text and len(stub.prompts) == 2


def test_a_timeout_is_retried_and_then_named(stub):
    slow = threading.Event()
    good = stub.script
    stub.script = lambda number, text: (slow.wait(5), good(number, text))[1]
    with pytest.raises(ConnectionError, match=r"timed out \(after 2 attempts\)"):
        generator(stub, timeout=0.1, retries=1).answer(requests(1))
    slow.set()
    assert len(stub.prompts) == 2


def test_retries_end_with_the_endpoints_message_and_keep_what_came(stub, tmp_path):
    good = stub.script
    error = json.dumps({"error": {"message": "quota used up"}}).encode()
    stub.script = lambda number, text: good(number, text) if number < 3 else (429, {}, error)
    cache = tmp_path / "cache.jsonl"
    with pytest.raises(ConnectionError, match=r"429: quota used up \(after 3 attempts\)"):
        generate_replies(requests(6), generator(stub, retries=2), cache)
    assert len(read_cache(cache)) == 3
    stub.script = good
    stub.prompts.clear()
    assert len(generate_replies(requests(6), generator(stub), cache)) == 6
    assert stub.prompts == [request.prompt for request in requests(6)[3:]]


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_fails_at_once_without_the_key(stub, status):
    error = json.dumps({"error": {"message": f"wrong key {KEY} or model"}}).encode()
    stub.script = lambda number, text: (status, {"Location": stub.url}, error)
    with pytest.raises(
        ConnectionError, match=f"answered {status}: wrong key .* or model"
    ) as caught:
        generator(stub).answer(requests(1))
    assert len(stub.prompts) == 1 and KEY not in str(caught.value)


MALFORMED = [b"<html>", b"{}", b'{"choices": []}', b"[1]", completion(None), completion("  ")]


@pytest.mark.parametrize("content", MALFORMED)
def test_a_malformed_reply_is_requested_twice_and_not_stored(stub, tmp_path, content):
    stub.script = lambda number, text: (200, {}, content)
    cache = tmp_path / "cache.jsonl"
    assert question_of(generate_replies(requests(1), generator(stub), cache)[0]) == (
        "",
        "malformed",
    )
    assert len(stub.prompts) == 2 and not read_cache(cache)


def test_a_malformed_reply_may_be_followed_by_a_good_one(stub):
    good = stub.script
    stub.script = lambda number, text: good(number, text) if number else (200, {}, b"{}")
    assert generator(stub).answer(requests(1))[0].text


def test_requests_run_in_parallel_and_come_back_in_order(stub, tmp_path):
    together = threading.Barrier(4, timeout=10)
    good = stub.script

    def script(number, text):
        together.wait()  # passes only when four requests are under way
        return good(number, text)

    stub.script = script
    replies = generate_replies(
        requests(8), generator(stub, concurrency=4), tmp_path / "cache.jsonl"
    )
    assert [reply.text for reply in replies] == [question_for(f"Town{i}") for i in range(8)]


def test_more_fields_of_the_request_and_none(stub):
    made = generator(stub, body={"seed": 3, "max_tokens": None, "max_completion_tokens": 50})
    made.answer(requests(1))
    assert stub.bodies[0] == {
        "model": "stub",
        "messages": [{"role": "user", "content": "prompt 0 Town0"}],
        "temperature": 0.0,
        "seed": 3,
        "max_completion_tokens": 50,
    }


def test_a_key_that_no_header_can_hold_is_not_shown():
    with pytest.raises(ValueError, match="line breaks") as caught:
        Endpoint(base_url="https://host/v1", model="m", key=f"{KEY}\nx")
    assert KEY not in str(caught.value)
    assert KEY not in repr(Endpoint(base_url="https://host/v1", model="m", key=KEY))
