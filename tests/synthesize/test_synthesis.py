"""`m3jax synthesize` from articles to training and evaluation files, against a stub endpoint."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from support.chat_stub import completion, question_for, town
from support.synthesis import KEY, article_text, chat, command, rows

from m3jax.cli.main import main
from m3jax.data.cleaning import wrong_script
from m3jax.data.examples import read_examples
from m3jax.evaluate.tasks import read_tasks
from m3jax.synthesize.articles import (
    Article,
)
from m3jax.synthesize.reply_cache import read_cache
from m3jax.synthesize.synthesis import split_of


def test_questions_are_paired_with_complete_articles(
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
    for row in [row for part in splits.values() for row in part]:
        assert row["pos"] == [texts[row["id"].rsplit("-", 1)[0]]] and row["neg"] == []
        assert town(row["query"]) in row["pos"][0]
        assert (row["lang"], row["source"]) == ("en", "synthetic")
    documents = [{row["pos"][0] for row in splits[name]} for name in names]
    assert not (
        documents[0] & documents[1] or documents[0] & documents[2] or documents[1] & documents[2]
    )
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


def test_the_same_command_gives_the_same_files_and_sends_no_request(stub, articles_file, tmp_path):
    cache = str(tmp_path / "cache.jsonl")
    for name in ("one", "two"):
        assert chat(stub, articles_file, tmp_path / name, "--cache", cache) == 0
    assert len(stub.prompts) == 12
    one, two = ((tmp_path / name / "train.jsonl.gz").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_dry_run_sends_and_writes_nothing(stub, articles_file, tmp_path, capsys):
    output = tmp_path / "out"
    priced = ("--dry-run", "--price-in", "2", "--price-out", "10")
    assert chat(stub, articles_file, output, *priced) == 0
    printed = capsys.readouterr().out
    assert "12 articles (en 12)" in printed and "12 paragraphs to ask about; 0 have" in printed
    pattern = r"about (\d+) prompt.* (\d+) tokens.*about ([\d.]+) at"
    match = re.search(pattern, printed.replace(",", ""), re.DOTALL)
    assert match, printed
    prompts, answers, cost = map(float, match.groups())
    assert answers == 12 * 40 and 2000 < prompts < 6000  # 12 prompts of some 1,000 characters
    assert cost == pytest.approx((2 * prompts + 10 * answers) / 1e6, abs=1e-4)
    assert not stub.prompts and sorted(tmp_path.iterdir()) == [articles_file]
    assert chat(stub, articles_file, output) == 0
    cached = ("--cache", f"{output}.replies.jsonl")
    assert chat(stub, articles_file, tmp_path / "more", *priced, *cached) == 0
    assert "0 paragraphs to ask about; 12 have a reply" in capsys.readouterr().out


def test_a_killed_run_resumes_without_repeating_requests(stub, articles_file, tmp_path):
    release = threading.Event()

    def script(number, text):
        if number >= 5:
            release.wait(20)
        return 200, {}, completion(question_for(text))

    stub.script = script
    output, cache = tmp_path / "out", tmp_path / "out.replies.jsonl"
    arguments = [
        *command(articles_file, output, "chat"),
        "--model",
        "stub",
        "--base-url",
        stub.url,
        "--concurrency",
        "2",
    ]
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
        file.write(b'{"key": "to')  # an incomplete line, as after a kill
    first = stub.prompts[:5]
    stub.prompts.clear()
    assert chat(stub, articles_file, output) == 0
    assert len(stub.prompts) == 12 - answered and not set(stub.prompts) & set(first)
    assert len(rows(output / "train.jsonl.gz")) == 12 == len(read_cache(cache))


def test_extractive_works_offline_on_real_long_documents(data_dir, tmp_path):
    languages = ("en", "fr", "ja", "ko", "th", "zh-Hant")
    files = [str(data_dir / "train" / f"long_{lang}.jsonl.gz") for lang in languages]
    output = tmp_path / "out"
    assert (
        main(
            [
                "synthesize",
                "--input",
                *files,
                "--output",
                str(output),
                "--articles",
                "6",
                "--min-chars",
                "1500",
                "--generator",
                "extractive",
            ]
        )
        == 0
    )
    kept = Counter()
    for row in rows(output / "train.jsonl.gz"):
        kept[row["lang"]] += 1
        assert not wrong_script(row["query"], row["lang"], 0.5)
        assert all(word in row["pos"][0] for word in row["query"].split())
    assert set(kept) == set(languages) and min(kept.values()) >= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no endpoint: pass --base-url"),
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


def test_an_existing_output_is_unchanged_and_no_request_sent(stub, articles_file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert chat(stub, articles_file, tmp_path / "out") == 1
    assert not stub.prompts and [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_without_questions_only_the_replies_are_written(stub, articles_file, tmp_path, capsys):
    stub.script = lambda number, text: (200, {}, completion("NONE"))
    assert chat(stub, articles_file, tmp_path / "out") == 1
    assert (
        'no question is left: {"en": {"asked": 12, "no question": 12}}' in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists() and len(read_cache(tmp_path / "out.replies.jsonl")) == 12


def test_splits_depend_only_on_the_text_and_have_the_given_shares():
    texts = [Article(str(i), "", f"text {i}", "en", "s") for i in range(2000)]
    shares = (0.8, 0.05, 0.15)
    found = Counter(split_of(a, shares) for a in texts)
    assert abs(found["dev"] - 100) < 40 and abs(found["test"] - 300) < 60
    moved = (a._replace(id=f"new{a.id}", title="t", lang="de") for a in texts)
    assert [split_of(a, shares) for a in moved] == [split_of(a, shares) for a in texts]
    assert split_of(texts[0], (0.0, 1.0, 0.0)) == "dev"
    assert split_of(texts[0], (0.0, 0.0, 1.0)) == "test"


def test_the_model_check_drops_questions_it_does_not_retrieve(tiny_dir, articles_file, tmp_path):
    counts = []
    for check in ([], ["--check-model", str(tiny_dir), "--check-top-k", "1"]):
        output = tmp_path / f"out{len(check)}"
        assert (
            main(
                [
                    *command(articles_file, output, "extractive"),
                    "--articles",
                    "4",
                    "--paragraphs",
                    "4",
                    *check,
                ]
            )
            == 0
        )
        counts.append(json.loads((output / "report.json").read_text())["languages"]["en"])
    lost = counts[1]["paragraph not found"]
    assert lost > 0 and counts[1]["kept"] + lost == counts[0]["kept"]


def test_help_loads_neither_jax_nor_torch():
    code = "import sys; from m3jax.cli.main import main\n"
    code += "import m3jax.synthesize.synthesis, m3jax.synthesize.endpoint, m3jax.synthesize.local\n"
    code += "try: main(['synthesize', '--help'])\nexcept SystemExit: pass\n"
    code += "print('LOADED', [m for m in ('jax', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in out.stdout and "examples:" in out.stdout
