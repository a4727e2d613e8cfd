"""Teacher scores: logits of a cross-encoder or scores of an M3 model, each pair scored once."""

import gzip
import json
import sys

import numpy as np
import pytest
import torch
import transformers
from support.passages import PASSAGES, read, write
from support.tiny import VOCAB, tokenizer_json

from m3jax.cli.main import main
from m3jax.config import HeadWeights
from m3jax.data.examples import read_examples
from m3jax.mine import rerankers, teacher
from m3jax.mine.rerankers import Reranker, cross_encoder_reranker, m3_reranker
from m3jax.mine.teacher import TeacherOptions, score_teacher

RECORDS = [
    {
        "query": f"query {i} {p.text[:20]}",
        "pos": [p.text],
        "neg": [PASSAGES[j % 12].text for j in range(i + 1, i + 4)],
        "lang": p.lang,
        "kept": [i],
    }
    for i, p in enumerate(PASSAGES[:12])
]


def write_cross_encoder(directory, labels=1):
    """A random XLM-R classifier with the tests' tokenizer."""
    torch.manual_seed(1)
    config = transformers.XLMRobertaConfig(
        vocab_size=VOCAB + 6,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.2,
        id2label={i: str(i) for i in range(labels)},
    )
    transformers.XLMRobertaForSequenceClassification(config).save_pretrained(directory)
    (directory / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=128,
    )
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def cross_dir(tmp_path_factory):
    return write_cross_encoder(tmp_path_factory.mktemp("cross"))


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "in.jsonl", RECORDS)


def logits(directory, pairs):
    """By transformers alone, one pair at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    with torch.no_grad():
        return [
            model(**tokenizer(*pair, return_tensors="pt", truncation=True)).logits.item()
            for pair in pairs
        ]


def test_scores_are_the_cross_encoders_logits(cross_dir, path, tmp_path, capsys):
    out = tmp_path / "out.jsonl.gz"
    command = ["score-teacher", "--teacher", cross_dir, "--input", path, "--output", str(out)]
    assert main([*command, "--max-length", "128", "--device", "cpu"]) == 0
    assert "48 pairs of 12 examples scored" in capsys.readouterr().out
    examples = list(read_examples(out))
    pairs = [(e.query, text) for e in examples for text in (*e.positives, *e.negatives)]
    found = [s for e in examples for s in (*(e.positive_scores or ()), *(e.negative_scores or ()))]
    want = logits(cross_dir, pairs)
    assert np.std(want) > 0.03
    np.testing.assert_allclose(found, want, atol=1e-5)
    rows = [json.loads(line) for line in gzip.open(out, "rt", encoding="utf-8")]
    added = ("pos_scores", "neg_scores", "source")
    assert [{k: v for k, v in row.items() if k not in added} for row in rows] == RECORDS


@pytest.mark.parametrize("method", ["dense+sparse", "all"])
def test_scores_are_those_of_compute_score(tiny, path, tmp_path, method, monkeypatch):
    monkeypatch.setattr(rerankers, "SLICE", 7)
    weights = HeadWeights(dense=0.5, sparse=0.25, colbert=2.0)
    score_teacher([path], tmp_path / "o.jsonl", m3_reranker(tiny, method, weights, 128))
    w = (0.5, 0.25, 2.0 if method == "all" else 0.0)
    for row in read(tmp_path / "o.jsonl"):
        texts = [*row["pos"], *row["neg"]]
        scores = tiny.compute_score([(row["query"], text) for text in texts])
        want = [
            w[0] * d + w[1] * s + w[2] * c
            for d, s, c in zip(scores["dense"], scores["sparse"], scores["colbert"], strict=True)
        ]
        np.testing.assert_allclose([*row["pos_scores"], *row["neg_scores"]], want, atol=2e-5)


def lengths(calls):
    """A teacher that records its pairs and returns their lengths."""

    def score(pairs):
        calls.append(list(pairs))
        return [float(len(query) + len(text)) for query, text in pairs]

    return Reranker("lengths", score)


def test_pairs_are_scored_once_per_chunk_and_interrupted_runs_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "CHUNK", 4)
    path = write(tmp_path / "in.jsonl", [*RECORDS[:2], *RECORDS[:2], *RECORDS[2:]])
    calls: list = []
    score_teacher([path], tmp_path / "complete.jsonl", lengths(calls), workdir=tmp_path / "w0")
    assert [len(c) for c in calls] == [8, 16, 16, 8]  # the first four records are two, twice
    again: list = []
    good = lengths(again)

    def interrupted(pairs):
        if len(again) == 2:
            raise KeyboardInterrupt
        return good.score(pairs)

    def teach(name, reranker):
        score_teacher([path], tmp_path / name, reranker, workdir=tmp_path / "w")

    with pytest.raises(KeyboardInterrupt):
        teach("o.jsonl", Reranker("lengths", interrupted))
    assert not list(tmp_path.glob("*o.jsonl*"))
    teach("o.jsonl", good)
    assert again == calls
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "complete.jsonl").read_bytes()
    teach("p.jsonl", Reranker("other", good.score))
    assert len(again) == 8  # stored scores are those of one teacher


def test_the_order_of_pairs_does_not_matter(cross_dir, tiny):
    pairs = [(r["query"], text) for r in RECORDS[:4] for text in r["neg"]]
    rerankers = (
        cross_encoder_reranker(cross_dir, max_length=128, device="cpu", batch_size=5),
        m3_reranker(tiny, "dense", None, 128),
    )
    for reranker in rerankers:
        assert reranker.score(pairs) == reranker.score(pairs[::-1])[::-1]


def test_existing_scores_can_be_kept(tmp_path):
    have = RECORDS[0] | {"pos_scores": [7.0], "neg_scores": [1.0, 2.0, 3.0], "prompt": "Find: "}
    half = RECORDS[1] | {"pos_scores": [7.0]}
    path = write(tmp_path / "in.jsonl", [have, half])
    calls: list = []
    options = TeacherOptions(keep_scores=True)
    result = score_teacher([path], tmp_path / "a.jsonl", lengths(calls), options)
    assert (result.kept, result.pairs) == (1, 4)
    first, second = read(tmp_path / "a.jsonl")
    assert first == have | {"source": "in"} and len(second["neg_scores"]) == 3
    assert second["pos_scores"] != [7.0]
    options = TeacherOptions(with_prompt=True)
    score_teacher([path], tmp_path / "b.jsonl", lengths(calls), options)
    assert calls[1][0] == (f"Find: {have['query']}", have["pos"][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name one teacher"),
        (["--teacher", "x", "--model", "y"], "name one teacher"),
        (["--teacher", "./nowhere"], "./nowhere is not a directory with a cross-encoder"),
        (["--teacher", "EMPTY"], "contains no model"),
        (["--teacher", "THREE", "--device", "cpu"], "has 3 outputs; a reranker has one"),
        (["--teacher", "x", "--method", "all"], "--method and --weights are for --model"),
        (["--model", "TINY", "--method", "dense", "--weights", "1,1,1"], "has a single head"),
        (["--model", "TINY", "--weights", "much"], "--weights needs numbers like 1,0.3,1"),
        (["--teacher", "x", "--input", "missing.jsonl"], "no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_name_the_option_or_file(path, tmp_path, tiny_dir, capsys, options, message):
    (tmp_path / "empty").mkdir()
    names = {"EMPTY": str(tmp_path / "empty"), "TINY": str(tiny_dir)}
    if "THREE" in options:
        names["THREE"] = write_cross_encoder(tmp_path / "three", labels=3)
    out = tmp_path / "o.jsonl"
    command = ["score-teacher", "--input", path, "--output", str(out)]
    assert main([*command, *[names.get(option) or option for option in options]]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_no_file_is_overwritten_and_no_score_invented(path, tmp_path, capsys):
    out = tmp_path / "o.jsonl"
    out.write_text("mine")
    command = ["score-teacher", "--input", path, "--output", str(out), "--teacher", "x"]
    assert main(command) == 1
    assert "already exists" in capsys.readouterr().err and out.read_text() == "mine"
    empty = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(ValueError, match="no example to score"):
        score_teacher([empty], tmp_path / "a.jsonl", lengths([]))
    broken = Reranker("broken", lambda pairs: [float("nan")] * len(pairs))
    with pytest.raises(ValueError, match="the teacher gave the score nan"):
        score_teacher([path], tmp_path / "a.jsonl", broken)
    assert not (tmp_path / "a.jsonl").exists()


def test_without_pytorch_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'm3jax\[torch\]'"):
        cross_encoder_reranker(str(tmp_path))
