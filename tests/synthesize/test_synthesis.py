"""Questions for long documents: against a stub of a chat endpoint, and filter by filter."""

import gzip
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from support.chat_stub import Stub, completion, question_for, town

from m3jax.cli.main import main
from m3jax.data.cleaning import wrong_script
from m3jax.data.examples import read_examples
from m3jax.evaluate.tasks import read_tasks
from m3jax.io.jsonl import BadRecords
from m3jax.synthesize.articles import (
    Article,
    Sampling,
    choose,
    paragraphs,
    read_articles,
    sample,
    size,
)
from m3jax.synthesize.consistency import Asked, source_ranks
from m3jax.synthesize.deixis import leans_on_text
from m3jax.synthesize.endpoint import Endpoint, chat_generator
from m3jax.synthesize.extractive import extractive_generator
from m3jax.synthesize.generators import Generator, Reply, Request
from m3jax.synthesize.prompts import PROMPTS, prompt
from m3jax.synthesize.questions import Candidate, QuestionLimits, filters, question_of
from m3jax.synthesize.reply_cache import ask, read_cache
from m3jax.synthesize.synthesis import split_of

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


@pytest.fixture
def articles_file(tmp_path):
    path = tmp_path / "articles.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(12):
            record = {"id": f"a{number}", "title": f"Chronicle {number}", "lang": "en",
                      "text": article_text(number)}  # fmt: skip
            file.write(json.dumps(record) + "\n")
    return path


@pytest.fixture
def stub():
    server = Stub()
    yield server
    server.close()


def generator(stub: Stub, **options) -> Generator:
    values = {"base_url": stub.url, "model": "stub", "key": KEY, "parallel": 1, "retries": 3,
              "first_wait": 0.01, "timeout": 5.0} | options  # fmt: skip
    return chat_generator(Endpoint(**values))


def requests(count: int) -> list[Request]:
    return [Request(f"prompt {i} Town{i}", f"paragraph {i}", "en") for i in range(count)]


def rows(path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def command(articles_file, output, kind: str) -> list[str]:
    return ["synthesize", "--input", str(articles_file), "--output", str(output),
            "--generator", kind]  # fmt: skip


def chat(stub: Stub, articles_file, output, *more: str) -> int:
    where = ("--model", "stub", "--base-url", stub.url)
    return main([*command(articles_file, output, "chat"), *where, *more])


# End to end


def test_questions_are_paired_with_whole_articles_and_read_back(
    stub, articles_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MY_KEY", KEY)
    output = tmp_path / "out"
    more = ("--paragraphs", "2", "--shares", "0.4,0.3,0.3", "--beir", "--key-env", "MY_KEY")
    assert chat(stub, articles_file, output, *more) == 0
    texts = {f"a{i}": f"Chronicle {i} {article_text(i)}" for i in range(12)}
    names = ("train", "dev", "test")
    splits = {name: rows(output / f"{name}.jsonl.gz") for name in names}
    assert sum(map(len, splits.values())) == 24 == len(stub.prompts)
    for row in [row for some in splits.values() for row in some]:
        assert row["pos"] == [texts[row["id"].rsplit("-", 1)[0]]] and row["neg"] == []
        assert town(row["query"]) in row["pos"][0]
        assert (row["lang"], row["source"]) == ("en", "synthetic")
    held = [{row["pos"][0] for row in splits[name]} for name in names]
    assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    assert len(list(read_examples(output / "train.jsonl.gz"))) == len(splits["train"])
    for name in names[1:]:
        (task,) = read_tasks(output / "beir", split=name)
        assert sorted(task.document_ids) == sorted(texts)
        assert task.query_sets[0].ids == [row["id"] for row in splits[name]]
        for query, judged in task.query_sets[0].qrels.items():
            assert judged == {query.rsplit("-", 1)[0]: 1}
    report = json.loads((output / "report.json").read_text())
    assert report["languages"] == {"en": {"asked": 24, "kept": 24}}
    assert report["tokens"] == {"prompts": 2400, "replies": 240}
    assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert KEY.encode() not in written and KEY not in "".join(capsys.readouterr())


def test_the_same_command_gives_the_same_files_and_asks_nothing_again(
    stub, articles_file, tmp_path
):
    cache = str(tmp_path / "cache.jsonl")
    for name in ("one", "two"):
        assert chat(stub, articles_file, tmp_path / name, "--cache", cache) == 0
    assert len(stub.prompts) == 12
    one, two = ((tmp_path / name / "train.jsonl.gz").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_dry_run_asks_and_writes_nothing(stub, articles_file, tmp_path, capsys):
    output = tmp_path / "out"
    priced = ("--dry-run", "--price-in", "2", "--price-out", "10")
    assert chat(stub, articles_file, output, *priced) == 0
    said = capsys.readouterr().out
    assert "12 articles (en 12)" in said and "12 paragraphs to ask about; 0 have" in said
    pattern = r"about (\d+) prompt.* (\d+) tokens.*about ([\d.]+) at"
    found = re.search(pattern, said.replace(",", ""), re.DOTALL)
    assert found, said
    prompts, answers, cost = map(float, found.groups())
    assert answers == 12 * 40 and 2000 < prompts < 6000  # 12 prompts of some 1,000 characters
    assert cost == pytest.approx((2 * prompts + 10 * answers) / 1e6, abs=1e-4)
    assert not stub.prompts and sorted(tmp_path.iterdir()) == [articles_file]
    assert chat(stub, articles_file, output) == 0
    cached = ("--cache", f"{output}.replies.jsonl")
    assert chat(stub, articles_file, tmp_path / "more", *priced, *cached) == 0
    assert "0 paragraphs to ask about; 12 have a reply" in capsys.readouterr().out


def test_a_killed_run_goes_on_and_asks_no_answered_prompt_again(stub, articles_file, tmp_path):
    release = threading.Event()

    def script(number, text):
        if number >= 5:
            release.wait(20)
        return 200, {}, completion(question_for(text))

    stub.script = script
    output, cache = tmp_path / "out", tmp_path / "out.replies.jsonl"
    arguments = [*command(articles_file, output, "chat"), "--model", "stub", "--base-url", stub.url,
                 "--parallel", "2"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "m3jax", *arguments])
    deadline = time.monotonic() + 60
    while len(read_cache(cache)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    release.set()
    answered = len(read_cache(cache))
    assert answered == 5 and not output.exists()
    with open(cache, "ab") as file:
        file.write(b'{"key": "to')  # what a kill may leave
    first = stub.prompts[:5]
    stub.prompts.clear()
    assert chat(stub, articles_file, output) == 0
    assert len(stub.prompts) == 12 - answered and not set(stub.prompts) & set(first)
    assert len(rows(output / "train.jsonl.gz")) == 12 == len(read_cache(cache))


def test_extractive_works_offline_on_real_long_documents(data_dir, tmp_path):
    languages = ("en", "fr", "ja", "ko", "th", "zh-Hant")
    files = [str(data_dir / "train" / f"long_{lang}.jsonl.gz") for lang in languages]
    output = tmp_path / "out"
    assert main(["synthesize", "--input", *files, "--output", str(output), "--articles", "6",
                 "--min-chars", "1500", "--generator", "extractive"]) == 0  # fmt: skip
    kept = Counter()
    for row in rows(output / "train.jsonl.gz"):
        kept[row["lang"]] += 1
        assert not wrong_script(row["query"], row["lang"], 0.5)
        assert all(word in row["pos"][0] for word in row["query"].split())
    assert set(kept) == set(languages) and min(kept.values()) >= 4


# Endpoints that fail


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
    stub.script = lambda number, text: good(number, text) if number else (
        429, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, b""
    )  # fmt: skip
    (reply,) = generator(stub, longest_wait=0.05).answer(requests(1))
    assert reply.text and 0.04 <= stub.times[1] - stub.times[0] < 2


def test_a_wait_that_is_no_number_is_passed_over(stub):
    good = stub.script
    stub.script = lambda number, text: good(number, text) if number else (
        429, {"Retry-After": "nan"}, b""
    )  # fmt: skip
    assert generator(stub).answer(requests(1))[0].text and len(stub.prompts) == 2


def test_a_timeout_is_retried_and_then_named(stub):
    slow = threading.Event()
    good = stub.script
    stub.script = lambda number, text: (slow.wait(5), good(number, text))[1]
    with pytest.raises(ConnectionError, match=r"timed out \(asked 2 times\)"):
        generator(stub, timeout=0.1, retries=1).answer(requests(1))
    slow.set()
    assert len(stub.prompts) == 2


def test_retries_end_with_the_endpoints_message_and_keep_what_came(stub, tmp_path):
    good = stub.script
    error = json.dumps({"error": {"message": "quota used up"}}).encode()
    stub.script = lambda number, text: good(number, text) if number < 3 else (429, {}, error)
    cache = tmp_path / "cache.jsonl"
    with pytest.raises(ConnectionError, match=r"429: quota used up \(asked 3 times\)"):
        ask(requests(6), generator(stub, retries=2), cache)
    assert len(read_cache(cache)) == 3
    stub.script = good
    stub.prompts.clear()
    assert len(ask(requests(6), generator(stub), cache)) == 6
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
def test_a_malformed_reply_is_asked_for_twice_and_not_kept(stub, tmp_path, content):
    stub.script = lambda number, text: (200, {}, content)
    cache = tmp_path / "cache.jsonl"
    assert question_of(ask(requests(1), generator(stub), cache)[0]) == ("", "malformed")
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
    replies = ask(requests(8), generator(stub, parallel=4), tmp_path / "cache.jsonl")
    assert [reply.text for reply in replies] == [question_for(f"Town{i}") for i in range(8)]


def test_more_fields_of_the_request_and_none(stub):
    made = generator(stub, body={"seed": 3, "max_tokens": None, "max_completion_tokens": 50})
    made.answer(requests(1))
    assert stub.bodies[0] == {
        "model": "stub", "messages": [{"role": "user", "content": "prompt 0 Town0"}],
        "temperature": 0.0, "seed": 3, "max_completion_tokens": 50,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no endpoint: name it with --base-url"),
        (["--base-url", "host/v1"], "must look like https://host/v1"),
        (["--base-url", "http://127.0.0.1:9/v1"], "no endpoint at http://127.0.0.1:9"),
        (["--base-url", "https://example.com/v1"], "OPENAI_API_KEY is not set"),
        (["--base-url", "http://localhost", "--min-chars", "99999"], "no article is left"),
        (["--base-url", "http://localhost", "--min-tokens", "9"], "needs a tokenizer"),
        (["--base-url", "http://localhost", "--shares", "1,1,1"], "must add up to 1"),
        (["--base-url", "http://localhost", "--body", "[]"], "must be a JSON object"),
    ],
)
def test_errors_say_what_to_do(articles_file, tmp_path, capsys, monkeypatch, arguments, message):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    output = tmp_path / "out"
    assert main([*command(articles_file, output, "chat"), "--model", "m", *arguments]) == 1
    assert message in capsys.readouterr().err and not output.exists()


def test_an_output_that_exists_is_not_touched_and_nothing_asked(stub, articles_file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert chat(stub, articles_file, tmp_path / "out") == 1
    assert not stub.prompts and [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_no_question_left_leaves_no_output_but_the_replies(stub, articles_file, tmp_path, capsys):
    stub.script = lambda number, text: (200, {}, completion("NONE"))
    assert chat(stub, articles_file, tmp_path / "out") == 1
    assert (
        'no question is left: {"en": {"asked": 12, "no question": 12}}' in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists() and len(read_cache(tmp_path / "out.replies.jsonl")) == 12


def test_a_key_that_no_header_can_hold_is_not_shown():
    with pytest.raises(ValueError, match="line breaks") as caught:
        Endpoint(base_url="https://host/v1", model="m", key=f"{KEY}\nx")
    assert KEY not in str(caught.value)
    assert KEY not in repr(Endpoint(base_url="https://host/v1", model="m", key=KEY))


# The cache


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


# Articles and paragraphs


def articles(count: int, lang: str = "en") -> list[Article]:
    return [Article(f"{lang}{i}", "", article_text(i), lang, "s") for i in range(count)]


def test_articles_are_read_from_records_and_from_training_examples(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"_id": 3, "title": "T", "text": " body ", "lang": "de"},
        {"query": "q", "pos": ["one", "two"], "id": "q1", "source": "other"},
        {"text": "no id"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = list(read_articles(path, BadRecords(), "en"))
    assert [(a.title, a.text, a.lang, a.source) for a in found] == [
        ("T", "body", "de", "a"), ("", "one", "en", "other"), ("", "two", "en", "other"),
        ("", "no id", "en", "a"),
    ]  # fmt: skip
    assert found[0].id == "3" and found[0].whole == "T body" and len({a.id for a in found}) == 4


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": " "}, "a.jsonl:1: 'text' is missing or blank"),
        ({"text": "x", "id": "a\tb"}, "a.jsonl:1: the id is empty or holds a tab"),
        ({"text": "x", "lang": "../up"}, "a.jsonl:1: 'lang' must be a code"),
        ({"pos": "x"}, "a.jsonl:1: 'pos' must be a list of strings"),
    ],
)
def test_bad_records_are_named(tmp_path, record, message):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        list(read_articles(path, BadRecords()))


def test_sampling_by_length_language_and_number(tiny):
    long = [a._replace(text=article_text(i, 6 + i)) for i, a in enumerate(articles(9))]
    left: Counter[str] = Counter()
    some = [*long, *articles(3, "de"), Article("x", "", "short", "en", "s"), long[0]]
    few = Sampling(languages=("en",), per_language=4, seed=1)
    drawn = sample(some, few, left)
    assert left == {"another language": 3, "too short": 1, "duplicate": 1, "not drawn": 5}
    assert {a.id for a in sample(some[::-1], few, Counter())} == {a.id for a in drawn}
    assert [a.id for a in drawn] == sorted(a.id for a in drawn)
    assert {a.id for a in sample(long, few, Counter())} == {a.id for a in drawn}
    other = Sampling(languages=("en",), per_language=4, seed=2)
    assert {a.id for a in sample(some, other, Counter())} != {a.id for a in drawn}
    lengths = tiny.tokenizer.count([a.text for a in long])
    middle = int(np.median(lengths))
    by_tokens = Sampling(min_tokens=middle, max_tokens=int(lengths.max()) - 1)
    found = {a.id for a in sample(long, by_tokens, Counter(), tiny.tokenizer)}
    assert found == {
        a.id for a, n in zip(long, lengths, strict=True) if middle <= n < lengths.max()
    }


def test_two_articles_of_one_id_are_refused():
    twice = [a._replace(id="same") for a in articles(2)]
    with pytest.raises(ValueError, match="two different articles have the id 'same'"):
        sample(twice, Sampling(), Counter())


def test_paragraphs_have_bounded_sizes_and_lose_nothing_but_tables():
    long_line = " ".join(f"Sentence number {i} speaks of a thing." for i in range(200))
    table = "\n".join("| 12 | 34 | 56 | 78 |" for _ in range(40))
    japanese = "東京は日本の首都であり、世界最大級の都市である。" * 60
    text = f"Heading\n\n{long_line}\n{table}\n{japanese}"
    found = paragraphs(text, 300, 1000)
    assert all(300 <= size(p) <= 1000 for p in found)
    assert found[0].startswith("Heading\nSentence number 0 ")
    joined = " ".join(found)
    assert all(f"Sentence number {i} speaks" in joined for i in range(200))
    assert joined.count("首都") == 60 and "| 12 |" not in joined.replace("\n", "")[-2000:]
    assert paragraphs("short", 300, 1000) == []
    assert all(size(p) <= 1000 for p in paragraphs("x" * 5000 + "ก" * 5000, 300, 1000))


def test_chosen_paragraphs_are_a_function_of_seed_and_article():
    one, two = articles(2)
    assert choose(one, 3, 10, seed=0) == choose(one._replace(text="edited"), 3, 10, seed=0)
    assert set(choose(one, 2, 10, seed=0)) < set(choose(one, 3, 10, seed=0))
    ways = {tuple(choose(a, 3, 10, seed=s)) for a in (one, two) for s in range(3)}
    assert len(ways) >= 5 and choose(one, 5, 2, seed=0) == [0, 1]


def test_splits_depend_on_the_text_alone_and_have_their_shares():
    texts = [Article(str(i), "", f"text {i}", "en", "s") for i in range(2000)]
    shares = (0.8, 0.05, 0.15)
    found = Counter(split_of(a, shares) for a in texts)
    assert abs(found["dev"] - 100) < 40 and abs(found["test"] - 300) < 60
    moved = (a._replace(id=f"new{a.id}", title="t", lang="de") for a in texts)
    assert [split_of(a, shares) for a in moved] == [split_of(a, shares) for a in texts]
    assert split_of(texts[0], (0.0, 1.0, 0.0)) == "dev"
    assert split_of(texts[0], (0.0, 0.0, 1.0)) == "test"


# Prompts, replies, filters


def test_prompts_speak_the_language_of_the_text():
    for lang in MLDR:
        text = prompt("PARAGRAPH {x}", "TITLE", lang)
        assert "PARAGRAPH {x}" in text and "TITLE" in text and "NONE" in text
        assert lang in ("en", "it") or text.splitlines()[0] != PROMPTS["en"][0].splitlines()[0]
        first = text.split("PARAGRAPH")[0].replace("NONE", "").replace("TITLE", "")
        assert not wrong_script(first, lang, 0.9)
    assert prompt("p", "", "pt-BR") == prompt("p", "", "pt")
    assert prompt("p", "", "zh-TW") == prompt("p", "", "zh-Hant") != prompt("p", "", "zh-CN")
    assert "Write the question in Swahili," in prompt("p", "", "sw")
    assert "in the language of the passage," in prompt("p", "", "")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Who built it?", ("Who built it?", "")),
        ('  "Who built it?" \n', ("Who built it?", "")),
        ("**Question:** Who built it?", ("Who built it?", "")),
        ("问题：谁建造了长城？", ("谁建造了长城？", "")),
        ("« Qui l'a bâti ? »", ("Qui l'a bâti ?", "")),
        ('"Emma" or "Persuasion"', ('"Emma" or "Persuasion"', "")),
        ("<think>Hm.\nWell.</think>\nWho built it?", ("Who built it?", "")),
        ("NONE", ("", "no question")),
        ("none.", ("", "no question")),
        ("<think>a</think>", ("", "no question")),
        ("Here is one:\nWho built it?", ("", "several lines")),
    ],
)
def test_the_question_in_a_reply(text, want):
    assert question_of(Reply(text)) == want


def test_a_reply_that_was_cut_off_is_no_question():
    assert question_of(Reply("Who built the", "length")) == ("", "cut off")


GOOD = Candidate(
    "When was the iron tower of Paris painted red?",
    "The colour of the Eiffel Tower was changed to red in 1889, and to ochre some years later.",
    "Eiffel Tower", "en",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"question": "Which one?"}, "too short"),
        ({"question": "谁发明了纸？", "lang": "zh"}, ""),
        ({"question": "谁？", "lang": "zh"}, "too short"),
        ({"question": "Why " + "very " * 80 + "red?"}, "too long"),
        ({"lang": "ru"}, "wrong script"),
        ({"lang": "xx"}, ""),  # nothing is known of that language
        ({"question": "What does article 5 of the treaty say about salt?"}, ""),
        ({"question": "When does this article say the tower turned red?"}, "leans on the text"),
        ({"question": "When did he paint the tower red?"}, "leans on the text"),
        ({"question": "What is the Eiffel Tower?", "title": "The Eiffel Tower"}, ""),
        ({"question": "What of the history of the Eiffel Tower?",
          "title": "History of the Eiffel Tower"}, "title alone"),
        ({"question": "埃菲尔铁塔的历史是什么？", "title": "埃菲尔铁塔的历史", "lang": "zh"}, ""),
        ({"question": "The colour of the Eiffel Tower was changed to red in which year?"},
         "copied"),
        ({"question": "Where is the Eiffel Tower?"}, ""),  # a name is no copy
    ],
)  # fmt: skip
def test_each_filter(changed, reason):
    assert filters(QuestionLimits())(GOOD._replace(**changed)) == reason


def test_filters_can_be_turned_off_and_duplicates_are_found():
    off = filters(QuestionLimits(shortest=0, longest=10**6, script=0.0, title=1.0, copied=1.0))
    for question in ("x", "y " * 900, "Eiffel Tower", GOOD.paragraph):
        assert off(GOOD._replace(question=question)) == ""
    assert off(GOOD._replace(question="Eiffel  tower!")) == "duplicate"
    assert off(GOOD._replace(question="Eiffel  tower!", lang="de")) == ""


LEANING = {
    "ar": "ماذا يقول هذا المقال عن القاهرة؟", "de": "Was sagt dieser Text über Berlin?",
    "en": "According to the passage, what is salt?", "es": "¿Qué dice este texto de Lima?",
    "fr": "De quoi parle cet article ?", "hi": "इस लेख में दिल्ली के बारे में क्या है?",
    "it": "Di cosa parla questo brano?", "ja": "この記事では何が説明されていますか？",
    "ko": "이 글에서 말하는 것은 무엇인가?", "pt": "O que diz este texto sobre Lisboa?",
    "ru": "О чём говорится в этом отрывке?", "th": "บทความนี้กล่าวถึงอะไร", "zh": "本文主要讲了什么？",
    "zh-Hant": "他們在哪一年抵達臺灣？",
}  # fmt: skip
STANDING = {
    "ar": "ما هو عدد سكان القاهرة؟", "de": "Wann wurde die Universität Jena gegründet?",
    "en": "How long does it take light to reach the Moon?", "es": "¿Cuándo se fundó Lima?",
    "fr": "Quand Napoléon est-il né ?", "hi": "दिल्ली की स्थापना कब हुई?",
    "it": "Chi ha scritto la Divina Commedia?", "ja": "その他の惑星より大きい木星の直径は？",
    "ko": "경복궁은 언제 지어졌는가?", "pt": "Quem fundou a cidade de São Paulo?",
    "ru": "Когда был основан Петербург?", "th": "กรุงเทพมหานครก่อตั้งเมื่อใด",
    "zh": "吉他们手和其它乐器哪个更古老？", "zh-Hant": "臺北的其他名稱是什麼？",
}  # fmt: skip


@pytest.mark.parametrize("lang", [*MLDR, "zh-Hant"])
def test_questions_that_lean_on_the_text(lang):
    assert leans_on_text(LEANING[lang], lang)
    assert not leans_on_text(STANDING[lang], lang)


# The check by a model, other generators


def test_ranks_count_better_paragraphs_of_this_article_and_of_others():
    vectors = {"q": [1.0, 0.0], "own": [0.6, 0.8], "better": [0.9, 0.1], "worse": [0.1, 0.9],
               "other": [0.7, 0.7], "far": [0.0, 1.0], "q2": [0.0, 1.0]}  # fmt: skip

    def embed(texts):
        return np.array([vectors[text] for text in texts], np.float32)

    first = Article("1", "", "text 1", "en", "s")
    second = Article("2", "", "text 2", "en", "s")
    asked = [Asked(first, ("own", "better", "worse"), 0), Asked(second, ("other", "far"), 0),
             Asked(first, ("own", "better", "worse"), 2)]  # fmt: skip
    # q: behind "better" and the other article's "other".
    # q2, asked for "other": behind "far", "own" and "worse".
    ranks = source_ranks(["q", "q2", "q"], asked, asked, embed, embed)
    assert list(ranks) == [3, 4, 4]


def test_the_model_check_drops_what_it_does_not_find(tiny_dir, articles_file, tmp_path):
    counts = []
    for check in ([], ["--check-model", str(tiny_dir), "--check-top-k", "1"]):
        output = tmp_path / f"out{len(check)}"
        assert main([*command(articles_file, output, "extractive"), "--articles", "4",
                     "--paragraphs", "4", *check]) == 0  # fmt: skip
        counts.append(json.loads((output / "report.json").read_text())["languages"]["en"])
    lost = counts[1]["paragraph not found"]
    assert lost > 0 and counts[1]["kept"] + lost == counts[0]["kept"]


def test_extractive_takes_the_words_that_others_lack():
    texts = [p for number in range(3) for p in paragraphs(article_text(number), 300, 2000)]
    made = extractive_generator(texts)
    wanted = texts[4]
    (reply,) = made.answer([Request("", wanted, "en")])
    assert reply.text and town(wanted) in reply.text.split()
    assert extractive_generator(texts).identity == made.identity
    assert extractive_generator(texts[1:]).identity != made.identity
    assert made.answer([Request("", "1 2 3 4", "en")])[0].text == "NONE"


def test_a_local_causal_model_answers_in_batches(tiny_dir, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from m3jax.synthesize.local import local_generator

    torch.manual_seed(0)
    directory = tmp_path / "causal"
    config = transformers.LlamaConfig(
        vocab_size=606, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=2, pad_token_id=1,
        initializer_range=0.5,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    transformers.AutoTokenizer.from_pretrained(tiny_dir).save_pretrained(directory)
    made = local_generator(directory, max_tokens=6, batch=3)
    some = [Request(text, "", "en") for text in ("the cat", "a much longer text on the mat", "x")]
    together = made.answer(some)
    assert together == [made.answer([request])[0] for request in some]  # padding changes nothing
    assert all(0 < reply.completion_tokens <= 6 for reply in together)
    assert together[0].prompt_tokens < together[1].prompt_tokens
    with pytest.raises(FileNotFoundError, match="is no model"):
        local_generator(tmp_path / "absent")


def test_help_loads_neither_jax_nor_torch():
    code = "import sys; from m3jax.cli.main import main\n"
    code += "import m3jax.synthesize.synthesis, m3jax.synthesize.endpoint, m3jax.synthesize.local\n"
    code += "try: main(['synthesize', '--help'])\nexcept SystemExit: pass\n"
    code += "print('LOADED', [m for m in ('jax', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in out.stdout and "examples:" in out.stdout
