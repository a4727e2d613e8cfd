"""Hard negatives come from the given ranks, are never relevant, and are the same in every run."""

import dataclasses
import gzip
import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from support.passages import PASSAGES, read, write

from m3jax import M3Embedder
from m3jax.cli.main import main
from m3jax.config import HeadWeights
from m3jax.data.cleaning import plain, shingles
from m3jax.data.examples import read_examples
from m3jax.io.trec import read_qrels
from m3jax.mine import negatives as mining
from m3jax.mine.negatives import mine_negatives
from m3jax.mine.options import MiningOptions

OPTIONS = MiningOptions(negatives=3, first=2, last=12)


def record(number: int, **more):
    passage = PASSAGES[number]
    query = " ".join(passage.text.split()[:5])
    values = {"query": query, "pos": [passage.text], "neg": [], "lang": passage.lang}
    return values | {"id": f"q{number}"} | more


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    path = tmp_path_factory.mktemp("train") / "qa.jsonl.gz"
    return write(path, [record(i) for i in range(len(PASSAGES))])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A working directory for all tests, so that equal pools are encoded once."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def dense(tiny):
    """Scores of every query and passage, and the ranking, by brute force."""
    queries = tiny.encode([record(i)["query"] for i in range(len(PASSAGES))])["dense_vecs"]
    passages = tiny.encode([p.text for p in PASSAGES])["dense_vecs"].astype(np.float16)
    scores = queries.astype(np.float64) @ passages.astype(np.float64).T
    return scores, np.argsort(-scores, axis=1, kind="stable")


def number_of(text: str) -> int:
    return next(i for i, p in enumerate(PASSAGES) if p.text == text)


def test_negatives_come_from_the_given_ranks(tiny, train, work, dense, tmp_path):
    mined = mine_negatives([train], tmp_path / "o.jsonl", tiny, OPTIONS, workdir=work)
    ranking = dense[1]
    for i, row in enumerate(read(tmp_path / "o.jsonl")):
        allowed = set(ranking[i][2:12].tolist()) - {i}
        found = {number_of(text) for text in row["neg"]}
        assert len(found) == 3 and found <= allowed
    assert mined.negatives == 3 * len(PASSAGES) and mined.queries == len(PASSAGES)
    assert mined.dropped["a positive"] == sum(i in r[2:12] for i, r in enumerate(ranking))
    # Their scores are those of search, and on average above a random passage's.
    statistics = mined.score_statistics()
    assert statistics["mined"]["mean"] > statistics["random"]["mean"]


def test_top_sampling_selects_the_best_candidates(tiny, train, work, dense, tmp_path):
    options = MiningOptions(negatives=4, first=1, last=30, sampling="top")
    mine_negatives([train], tmp_path / "o.jsonl", tiny, options, workdir=work)
    for i, row in enumerate(read(tmp_path / "o.jsonl")):
        assert [number_of(t) for t in row["neg"]] == [n for n in dense[1][i][1:] if n != i][:4]


@pytest.mark.parametrize(
    ("given", "below"),
    [({"max_positive_ratio": 0.99}, lambda p: 0.99 * p), ({"margin": 0.01}, lambda p: p - 0.01)],
    ids=["ratio", "margin"],
)
def test_thresholds_by_the_positive(tiny, train, work, dense, tmp_path, given, below):
    options = MiningOptions(negatives=60, first=0, last=50, near_duplicates=0.0, **given)
    mined = mine_negatives([train], tmp_path / "o.jsonl", tiny, options, workdir=work)
    scores, ranking = dense
    short = 0
    for i, row in enumerate(read(tmp_path / "o.jsonl")):
        limit = below(scores[i, i])
        want = {n for n in ranking[i][:50].tolist() if n != i and scores[i, n] < limit - 1e-6}
        sure = {n for n in ranking[i][:50].tolist() if n != i and scores[i, n] < limit + 1e-6}
        assert want <= {number_of(t) for t in row["neg"]} <= sure
        short += len(row["neg"]) < 60
    assert mined.dropped["score too close to the positive's"] > 0
    assert mined.incomplete == short > 0


def duplicates(text: str) -> list[str]:
    """Copies that differ in case and space, and near copies."""
    words = text.split()
    return [text.upper(), "  " + "\n".join(words) + " ", f"{text} Indeed.", " ".join(words[1:])]


@pytest.fixture
def trap(tmp_path):
    """Every passage has copies among the negatives; queries 0 and 1 are equal up to case."""
    records = [record(i, neg=duplicates(PASSAGES[i].text)) for i in range(20)]
    same = records[0]["query"]
    records[1]["query"] = f" {same.upper()} "
    return write(tmp_path / "trap.jsonl", records)


@pytest.mark.parametrize("method", ["dense", "bm25"])
def test_no_relevant_passage_is_mined(tiny, trap, work, tmp_path, method):
    options = MiningOptions(method=method, negatives=50, first=0, last=60)
    mined = mine_negatives([trap], tmp_path / "o.jsonl", tiny, options, workdir=work)
    rows = read(tmp_path / "o.jsonl")
    rows[0]["pos"], rows[1]["pos"] = 2 * [rows[0]["pos"] + rows[1]["pos"]]
    assert sum(len(row["neg"]) for row in rows) > 200
    for number, row in enumerate(rows):
        relevant = [plain(text) for text in row["pos"]]
        positive = shingles(PASSAGES[number].text)
        for text in row["neg"]:
            assert plain(text) not in relevant and plain(text) != plain(row["query"])
            # MinHash estimates the similarity with an error of up to about 0.1.
            assert len(shingles(text) & positive) / len(shingles(text) | positive) < 0.9
    for reason in ("a positive", "known to be right for the query", "near duplicate of a positive"):
        assert mined.dropped[reason] > 0, reason


def test_order_chunks_and_files_do_not_matter(tiny, train, tmp_path, monkeypatch):
    mine_negatives([train], tmp_path / "a.jsonl", tiny, OPTIONS, workdir=tmp_path / "w1")
    records = [record(i) for i in range(len(PASSAGES))]
    random.Random(3).shuffle(records)
    files = [write(tmp_path / "b1.jsonl", records[:9]), write(tmp_path / "b2.jsonl", records[9:])]
    monkeypatch.setattr(mining, "CHUNK", 7)
    mine_negatives(files, tmp_path / "b.jsonl", tiny, OPTIONS, workdir=tmp_path / "w2")
    first, second = ({r["id"]: r["neg"] for r in read(tmp_path / f"{x}.jsonl")} for x in "ab")
    assert first == second
    other = dataclasses.replace(OPTIONS, seed=1)
    mine_negatives([train], tmp_path / "c.jsonl", tiny, other, workdir=tmp_path / "w1")
    assert {r["id"]: r["neg"] for r in read(tmp_path / "c.jsonl")} != first


def test_other_fields_are_kept(tiny, tmp_path, work):
    more = {"pos_scores": [2.5], "prompt": "Find: ", "mine": {"a": [1]}, "pos_lang": "xx"}
    records = [record(i, neg=["old"], neg_scores=[1.0], **more) for i in range(20)]
    path = write(tmp_path / "a_no_in_batch_neg.jsonl", records)
    options = MiningOptions(negatives=2, first=0, last=12)
    mined = mine_negatives([path], tmp_path / "new.jsonl", tiny, options, workdir=work)
    keep = dataclasses.replace(options, keep_negatives=True)
    mine_negatives([path], tmp_path / "kept.jsonl", tiny, keep, workdir=work)
    added = {"source": "a_no_in_batch_neg", "in_batch": False}
    for old, new, kept in zip(
        records, read(tmp_path / "new.jsonl"), read(tmp_path / "kept.jsonl"), strict=True
    ):
        fields = {k: v for k, v in old.items() if k not in ("neg", "neg_scores")} | added
        assert {k: v for k, v in new.items() if k != "neg"} == fields
        assert {k: v for k, v in kept.items() if k != "neg"} == fields
        assert len(new["neg"]) == 2
        assert kept["neg"][0] == "old" and len(kept["neg"]) == 3 and "old" not in kept["neg"][1:]
    assert mined.neg_scores_removed == 20
    assert len(list(read_examples(tmp_path / "kept.jsonl"))) == 20


def test_a_corpus_and_excluded_passages(tiny, tmp_path, work):
    corpus = [{"_id": f"d{i}", "title": "T", "text": p.text} for i, p in enumerate(PASSAGES)]
    corpus.append({"_id": "copy", "text": f"T {PASSAGES[3].text}"})
    pool = write(tmp_path / "c.jsonl", corpus)
    path = write(tmp_path / "t.jsonl", [record(i) for i in range(6)])
    (tmp_path / "x.tsv").write_text("query\tdoc\tscore\nq0\tcopy\t1\nq0\td4\t2\nq1\td5\t0\n")
    options = MiningOptions(
        corpus=[pool], negatives=99, first=0, last=len(PASSAGES), near_duplicates=0.0
    )
    mine_negatives([path], tmp_path / "a.jsonl", tiny, options, workdir=work)
    options = dataclasses.replace(options, exclude=read_qrels(tmp_path / "x.tsv"))
    mined = mine_negatives([path], tmp_path / "b.jsonl", tiny, options, workdir=work)
    assert mined.pools == {"": len(PASSAGES)}  # the copy equals d3
    free, bound = read(tmp_path / "a.jsonl"), read(tmp_path / "b.jsonl")
    assert all(text.startswith("T ") for row in free for text in row["neg"])
    gone = {f"T {PASSAGES[i].text}" for i in (3, 4)}
    assert set(free[0]["neg"]) - set(bound[0]["neg"]) == gone and free[1:] == bound[1:]
    assert mined.dropped["known to be right for the query"] == 2


def test_negatives_in_the_language_of_the_positives(tiny, tmp_path, work):
    records = [record(i, pos_lang=PASSAGES[i].lang, lang="xx") for i in range(len(PASSAGES))]
    path = write(tmp_path / "x.jsonl", records)
    languages = {p.text: p.lang for p in PASSAGES}
    options = MiningOptions(negatives=5, first=0, last=10, same_language=True)
    mined = mine_negatives([path], tmp_path / "o.jsonl", tiny, options, workdir=work)
    for row in read(tmp_path / "o.jsonl"):
        assert len(row["neg"]) == 5
        assert {languages[text] for text in row["neg"]} == {row["pos_lang"]}
    assert mined.pools == Counter(p.lang for p in PASSAGES)
    large = MiningOptions(negatives=30, first=2, last=30, same_language=True)
    with pytest.raises(ValueError, match=r"fewer passages than the 30 .*de 18, en 22, fr 14"):
        mine_negatives([path], tmp_path / "p.jsonl", tiny, large, workdir=work)
    large = dataclasses.replace(large, allow_small_pool=True)
    mined = mine_negatives([path], tmp_path / "p.jsonl", tiny, large, workdir=work)
    assert mined.incomplete == len(PASSAGES)
    assert mined.empty == 0


@pytest.mark.parametrize("method", ["sparse", "colbert", "all", "bm25"])
def test_every_method_scores_positives_as_it_ranks(tiny, tmp_path, work, method):
    """A ratio of 1 keeps exactly the passages that score below the positive.

    Each query is written for another passage than its positive.
    """
    records = [record(i, query=record(i + 1)["query"]) for i in range(24)]
    path = write(tmp_path / "t.jsonl", records)
    weights = HeadWeights(dense=0.5, sparse=0.2, colbert=2.0) if method == "all" else None
    terms = "tokens" if method == "bm25" else "words"
    options = MiningOptions(
        method=method,
        weights=weights,
        bm25_terms=terms,
        negatives=24,
        first=0,
        last=24,
        near_duplicates=0.0,
        sampling="top",
    )
    a = mine_negatives([path], tmp_path / "a.jsonl", tiny, options, workdir=work)
    options = dataclasses.replace(options, max_positive_ratio=1.0)
    b = mine_negatives([path], tmp_path / "b.jsonl", tiny, options, workdir=work)
    assert a.scores["positive"] == b.scores["positive"] and len(a.scores["positive"]) == 24
    fewer = 0
    taken = iter(a.scores["mined"])
    rows = zip(read(tmp_path / "a.jsonl"), read(tmp_path / "b.jsonl"), strict=True)
    for positive, (free, bound) in zip(a.scores["positive"], rows, strict=True):
        some = [next(taken) for _ in free["neg"]]
        assert some == sorted(some, reverse=True)
        below_it = [t for t, score in zip(free["neg"], some, strict=True) if score < positive]
        assert bound["neg"] == below_it
        fewer += len(free["neg"]) - len(below_it)
    assert b.dropped["score too close to the positive's"] == fewer > 0


def test_positives_outside_the_corpus_are_scored(tiny, tmp_path, work):
    inside = write(tmp_path / "c.jsonl", [{"text": p.text} for p in PASSAGES[:30]])
    outside = write(tmp_path / "d.jsonl", [{"text": p.text} for p in PASSAGES[2:30]])
    path = write(tmp_path / "t.jsonl", [record(i) for i in range(4)])
    for method in ("dense", "colbert"):
        results = []
        for corpus in (inside, outside):
            output = tmp_path / f"{method}{len(results)}.jsonl"
            options = MiningOptions(
                method=method, dtype="float32", corpus=[corpus], first=0, last=20
            )
            results.append(mine_negatives([path], output, tiny, options, workdir=work))
        first, second = (np.array(result.scores["positive"]) for result in results)
        np.testing.assert_allclose(first, second, atol=2e-5)


def test_an_interrupted_run_resumes_and_models_do_not_mix(
    tiny, tmp_path, train, encoded, monkeypatch
):
    monkeypatch.setattr(mining, "CHUNK", 10)
    calls = []
    mine_chunk = mining._mine_chunk

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return mine_chunk(*arguments)

    def mine(name, embedder=tiny):
        workdir = tmp_path / "w"
        mine_negatives([train], tmp_path / name, embedder, OPTIONS, workdir=workdir)

    monkeypatch.setattr(mining, "_mine_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine("a.jsonl")
    assert not list(tmp_path.glob("*a.jsonl*"))
    assert len(encoded) == len(PASSAGES) + 20
    mine("a.jsonl")
    assert len(encoded) == 2 * len(PASSAGES)
    mine("b.jsonl")  # every result is stored
    assert len(encoded) == 2 * len(PASSAGES)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    mine("c.jsonl", M3Embedder(tiny.encoder.model, passage_instruction="passage: "))
    assert len(encoded) == 4 * len(PASSAGES)
    assert len(list((tmp_path / "w").glob("index-*"))) == 2


def test_report_and_plot(train, tmp_path, capsys):
    command = ["mine", "--method", "bm25", "--input", train, "--range", "1-40", "--negatives", "4"]
    files = [tmp_path / name for name in ("o.jsonl.gz", "r.json", "p.png")]
    options = [f"--{n}" for n in ("output", "report", "plot")]
    paths = [str(x) for pair in zip(options, files, strict=True) for x in pair]
    assert main([*command, *paths]) == 0
    report = json.loads(files[1].read_text())
    examples = list(read_examples(files[0]))
    assert report["queries"] == len(examples) == len(PASSAGES)
    assert report["negatives"] == sum(len(e.negatives) for e in examples)
    short = sum(len(e.negatives) < 4 for e in examples)
    assert report["queries_with_fewer_than_asked"] == short
    assert report["model"] is None and report["pools"] == {"": len(PASSAGES)}
    scores = report["scores"]
    assert scores["positive"]["mean"] > scores["mined"]["mean"] > scores["random"]["mean"]
    assert files[2].read_bytes().startswith(b"\x89PNG")
    assert f"{report['negatives']} " in capsys.readouterr().out.replace(",", "")
    for path in files:  # nothing is overwritten
        others = [x for x in paths if x != str(path)]
        for other in files:
            if other != path:
                other.rename(other.with_suffix(".old"))
        assert main([*command, *paths]) == 1
        assert f"{path} already exists" in capsys.readouterr().err
        assert len(others) == 5
        for other in files:
            if other != path:
                other.with_suffix(".old").rename(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs a model: name one with --model"),
        (["--method", "bm25", "--bm25-terms", "tokens"], "BM25 over tokens needs a model"),
        (["--method", "bm25"], "fewer passages than the 210 that the ranks .*: the pool 54"),
        (["--method", "bm25", "--range", "20-5"], "0 <= first < last, got 20-5"),
        (["--method", "bm25", "--range", "twenty"], "--range needs two numbers like 10-210"),
        (["--method", "bm25", "--max-positive-ratio", "95"], r"must be in \(0, 1\], got 95"),
        (["--method", "bm25", "--margin", "nan"], "margin must be 0 or more, got nan"),
        (["--method", "bm25", "--negatives", "0"], "negatives must be at least 1"),
        (["--method", "bm25", "--near-duplicates", "2"], "near_duplicates must be in"),
        (["--method", "bm25", "--corpus", "nowhere.jsonl"], "no such file.*nowhere.jsonl"),
        (["--method", "bm25", "--input", "missing.jsonl"], "no such file.*missing.jsonl"),
        (["--method", "bm25", "--corpus", "EMPTY"], "there is no passage to mine from"),
        (["--method", "bm25", "--exclude", "nowhere.tsv"], "nowhere.tsv"),
        (["--method", "bm25", "--exclude", "QRELS"], "none of its passages is in the pool"),
        (["--method", "bm25", "--corpus", "PLAIN", "--same-language"], "no record has a lang"),
        (
            ["--method", "bm25", "--corpus", "PLAIN", "--range", "0-2", "--margin", "1"],
            "BM25 scores only passages of its pool",
        ),
        (["--method", "dense", "--weights", "1,2,3"], "needs a model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_name_the_option_or_file(train, tmp_path, capsys, options, message):
    names: dict[str, str] = {
        "EMPTY": write(tmp_path / "empty.jsonl", []),
        "PLAIN": write(tmp_path / "plain.jsonl", [{"text": f"passage {i}"} for i in range(5)]),
        "QRELS": str(tmp_path / "q.tsv"),
    }
    (tmp_path / "q.tsv").write_text("q0 0 nothing 1\n")
    out = tmp_path / "o.jsonl"
    command = ["mine", "--input", train, "--output", str(out)]
    assert main([*command, *[names.get(option) or option for option in options]]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not out.exists()


def test_invalid_records_are_errors_or_counted(tmp_path, capsys):
    records = [record(i) for i in range(12)] + [{"query": "x"}]
    path = write(tmp_path / "t.jsonl", records)
    command = ["mine", "--method", "bm25", "--input", path, "--range", "0-9"]
    command += ["--output", str(tmp_path / "o.jsonl"), "--report", str(tmp_path / "r.json")]
    assert main(command) == 1
    assert f"{path}:13: 'pos' is missing" in capsys.readouterr().err
    assert main([*command, "--skip-bad", "1"]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["queries"], report["bad_records"]) == (12, 1)


@pytest.mark.slow
def test_real_negatives_are_harder_than_random_ones(data_dir, backbone_dir, tmp_path):
    """Two languages; every mined passage is compared with every positive of its query."""
    files = []
    for name in ("qa_de_mlqa", "qa_ja_jaquad"):
        with gzip.open(data_dir / "train" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
            lines = random.Random(0).sample(stream.readlines(), 100)
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        files.append(str(path))
    embedder = M3Embedder.from_pretrained(
        backbone_dir, pooling="mean", query_instruction="query: ", passage_instruction="passage: "
    )
    options = MiningOptions(passage_length=64, negatives=5, first=2, last=40, same_language=True)
    mined = mine_negatives(files, tmp_path / "o.jsonl", embedder, options, workdir=tmp_path / "w")
    positives: dict[str, set[str]] = {}
    rows = read(tmp_path / "o.jsonl")
    language = {text: row["lang"] for row in rows for text in row["pos"]}
    for row in rows:
        positives.setdefault(plain(row["query"]), set()).update(map(plain, row["pos"]))
    for row in rows:
        assert len(row["neg"]) == 5
        for text in row["neg"]:
            assert plain(text) not in positives[plain(row["query"])]
            assert language[text] == row["lang"]
            for right in row["pos"]:
                a, b = shingles(text), shingles(right)
                assert len(a & b) / len(a | b) < 0.9
    mean = {group: row["mean"] for group, row in mined.score_statistics().items()}
    assert mean["positive"] > mean["mined"] > mean["random"] + 0.01
