"""An index on disk: whole, resumed, checked; and its commands as a user types them."""

import dataclasses
import gzip
import json
import os
import subprocess
import sys
from typing import Any

import ir_measures
import numpy as np
import pytest
from support import brute
from support.brute import every_score, expected
from support.tiny import TEXTS, write_tiny_model

from m3jax import M3Embedder, pretrained
from m3jax.cli.main import main
from m3jax.cli.tune_weights import read_kinds
from m3jax.config import HeadWeights
from m3jax.embed.corpus import read_shards
from m3jax.embed.embeddings import concatenate
from m3jax.embed.vectors import Rows
from m3jax.evaluate.protocol import Settings
from m3jax.evaluate.run import evaluate
from m3jax.evaluate.tasks import read_tasks
from m3jax.explain.alignment import explain_passages
from m3jax.io.jsonl import Record, read_records
from m3jax.search.fuse import preset
from m3jax.search.index import build, join, open_index
from m3jax.search.methods import METHODS, Depths, encode_queries, search

RECORDS = [Record(f"d{i}", f"{TEXTS[i % len(TEXTS)]} {i % 20}", i + 1) for i in range(45)]
WEIGHTS = HeadWeights(dense=1.0, sparse=0.3, colbert=1.0)


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("search") / "index"
    build(tiny, RECORDS, output, shard_size=10)
    return output


def check_against_brute_force(index, queries, depths):
    """Every method's ranking against the definition, on the index's own vectors."""
    documents = concatenate([part for _, part in read_shards(index.path / "embeddings")])
    scores = every_score(queries.embeddings, documents)
    for method in METHODS[1:]:
        hits = search(index, queries, method, top_k=25, depths=depths)
        for i in range(len(queries.texts)):
            want, values = expected(method, scores, i, 25, depths, WEIGHTS)
            np.testing.assert_array_equal(hits.documents[i], want)
            np.testing.assert_allclose(hits.scores[i], values, rtol=1e-5, atol=1e-6)


def test_indexes_of_one_model_are_joined(tiny, built, tmp_path):
    """As if all texts had been indexed together; another model's are refused."""
    some, others = RECORDS[:20], RECORDS[20:]
    for name, records in (("some", some), ("others", others)):
        build(tiny, records, tmp_path / name, shard_size=10)
    parts = {name: open_index(tmp_path / name) for name in ("some", "others")}
    joint, whole = join(parts), open_index(built)
    names = ["some"] * len(some) + ["others"] * len(others)
    assert joint.ids == [f"{n}:{r.id}" for n, r in zip(names, RECORDS, strict=True)]
    queries = encode_queries(tiny, TEXTS[:6])
    for method in METHODS[1:]:
        found, want = (search(index, queries, method, top_k=25) for index in (joint, whole))
        for i in range(6):
            np.testing.assert_array_equal(found.documents[i], want.documents[i])
            np.testing.assert_allclose(found.scores[i], want.scores[i], rtol=1e-5, atol=1e-6)
    parts["others"].manifest["fingerprint"] = "0"
    with pytest.raises(ValueError, match="others and .*some were made by different models"):
        join(parts)
    with pytest.raises(ValueError, match="only indexes on disk"):
        join({"memory": joint})


def test_rankings_of_an_index_are_those_of_brute_force(built):
    """Texts repeat, so documents tie."""
    index = open_index(built)
    queries = encode_queries(index, ["the cat", "die Katze", "北京", "word3 word4"])
    check_against_brute_force(index, queries, Depths(dense=20, sparse=15, rerank=18))


def test_rankings_on_real_text_are_those_of_brute_force(tiny, data_dir, tmp_path):
    folder = data_dir / "eval" / "xquad" / "en"
    records = [r for r in read_records(str(folder / "corpus.jsonl.gz")) if r.line % 8 == 0]
    queries = [r.text for r in read_records(str(folder / "queries.jsonl.gz"))][:120:10]
    build(tiny, records, tmp_path / "index", shard_size=64, max_length=64)
    index = open_index(tmp_path / "index")
    encoded = encode_queries(index, queries)
    check_against_brute_force(index, encoded, Depths(dense=60, sparse=60, rerank=40))


def test_documents_and_bm25_are_kept(built):
    index = open_index(built)
    assert list(index.ids) == [record.id for record in RECORDS]
    assert index.documents[7].text == RECORDS[7].text and index.documents[-1].id == "d44"
    first = search(index, ["the dog"], "bm25", top_k=5)
    assert (built / "bm25-tokens").is_dir()
    again = search(open_index(built), ["the dog"], "bm25", top_k=5)
    np.testing.assert_array_equal(first.documents[0], again.documents[0])
    assert "dog" in index.documents[int(first.documents[0][0])].text
    words = index.bm25("words").search(["the dog"], 5)
    assert "dog" in index.documents[int(words.documents[0][0])].text


def test_a_stopped_build_goes_on_and_redoes_nothing(tiny, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    calls = []
    encode = M3Embedder.encode_stream

    def dies(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(M3Embedder, "encode_stream", dies)
    with pytest.raises(Killed):
        build(tiny, RECORDS, tmp_path / "i", shard_size=10)
    with pytest.raises(FileNotFoundError, match="not finished"):
        open_index(tmp_path / "i")
    stamp = (tmp_path / "i" / "embeddings" / "shard-00001" / "dense.npy").stat().st_mtime_ns
    (tmp_path / "i" / ".documents.abc").mkdir()  # what a kill -9 leaves behind
    build(tiny, RECORDS, tmp_path / "i", shard_size=10)
    assert len(calls) == 3 + 3
    after = (tmp_path / "i" / "embeddings" / "shard-00001" / "dense.npy").stat().st_mtime_ns
    assert after == stamp and not list((tmp_path / "i").glob(".*"))
    manifest = build(tiny, RECORDS, tmp_path / "i", shard_size=10)  # nothing to do
    assert len(calls) == 6 and manifest["documents"] == 45
    assert open_index(tmp_path / "i").size == 45


def test_small_storage_ranks_as_it_is_stored(tiny, tmp_path):
    build(tiny, RECORDS, tmp_path / "i", dtype="int8", sparse_bits=8, shard_size=20)
    index = open_index(tmp_path / "i")
    queries: Any = encode_queries(index, ["the cat and the dog"])
    assert index.dense is not None and index.sparse is not None
    vectors = [brute.wide(p, s) for p, s in zip(index.dense.parts, index.dense.scales, strict=True)]
    exact = brute.inner(queries.embeddings.dense[0].astype(float), np.concatenate(vectors))
    (found,) = search(index, queries, "dense", top_k=45).documents
    np.testing.assert_array_equal(found, brute.top(exact, 45))
    assert index.sparse.weights.dtype == np.uint8
    assert len(search(index, queries, "all", top_k=10).documents[0]) == 10


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_longest_vector_is_written_down(tiny, tmp_path, dtype):
    """So that one query need not read the vectors of all documents for it."""
    build(tiny, RECORDS, tmp_path / "index", dtype=dtype, shard_size=20)
    index = open_index(tmp_path / "index")
    assert index.dense is not None and index.colbert is not None
    for rows in (index.dense, index.colbert.rows):
        assert rows.norm == pytest.approx(Rows(rows.parts, rows.scales).largest_norm, rel=1e-6)
    manifest = tmp_path / "index" / "embeddings" / "manifest.json"
    values = json.loads(manifest.read_text())
    for shard in values["shards"]:
        del shard["norms"]  # as older versions wrote it
    manifest.write_text(json.dumps(values))
    older = open_index(tmp_path / "index")
    assert older.dense is not None and older.dense.norm is None
    assert older.dense.largest_norm == pytest.approx(index.dense.largest_norm, rel=1e-6)


def test_text_is_printed_as_it_stands(tiny_dir, tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "[b]", "text": "[edit] the cat [/INST]"}\n')
    index = ["--index", str(tmp_path / "index")]
    assert main(["index", "--model", str(tiny_dir), "--corpus", str(corpus), "--output",
                 index[1]]) == 0  # fmt: skip
    assert main(["search", *index, "--query", "the [/b] cat"]) == 0
    out = capsys.readouterr().out
    assert "[edit] the cat [/INST]" in out and "the [/b] cat" in out and "[b]" in out


def test_nothing_is_mixed(tiny, built, tmp_path):
    with pytest.raises(ValueError, match="begun with other documents"):
        build(tiny, RECORDS[:-1], built, shard_size=10)
    with pytest.raises(ValueError, match="modes"):
        build(tiny, RECORDS, built, shard_size=10, modes=("dense",))
    with pytest.raises(ValueError, match="sparse_bits = 32"):
        build(tiny, RECORDS, built, shard_size=10, sparse_bits=8)
    write_tiny_model(tmp_path / "other", seed=1)
    other = M3Embedder.from_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="fingerprint"):
        build(other, RECORDS, built, shard_size=10)
    with pytest.raises(ValueError, match="made by another model"):
        open_index(built).use(other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="is no index"):
        build(tiny, RECORDS, tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    assert open_index(built, verify=True).size == 45  # and all that harmed nothing


def test_bad_corpora_leave_nothing(tiny, tmp_path):
    with pytest.raises(ValueError, match="c.jsonl:9: the id 'd3' stands in line 4 already"):
        build(tiny, [*RECORDS[:8], RECORDS[3]._replace(line=9)], tmp_path / "i", source="c.jsonl")
    with pytest.raises(ValueError, match="c.jsonl holds no document"):
        build(tiny, [], tmp_path / "i", source="c.jsonl")
    assert not (tmp_path / "i").exists()
    with pytest.raises(FileNotFoundError, match="not an index"):
        open_index(tmp_path)


@pytest.mark.parametrize(
    "file",
    ["embeddings/shard-00001/dense.npy", "embeddings/shard-00000/colbert.npy",
     "sparse/weights.npy", "documents/documents.jsonl"],
)  # fmt: skip
def test_damage_is_named(tiny, tmp_path, file):
    build(tiny, RECORDS[:12], tmp_path / "i", shard_size=6)
    path = tmp_path / "i" / file
    data = path.read_bytes()
    # Not a byte that JSON needs: the second opening below reads a text now and then.
    path.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])
    with pytest.raises(ValueError, match=f"{path} has other contents"):
        open_index(tmp_path / "i")
    open_index(tmp_path / "i", verify=False)  # as a large index is opened: sizes alone
    path.write_bytes(data[:-3])
    with pytest.raises(ValueError, match=f"{path} has {len(data) - 3} bytes, not the {len(data)}"):
        open_index(tmp_path / "i", verify=False)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path} is missing"):
        open_index(tmp_path / "i", verify=False)


def test_instructions_stand_in_front(tiny_dir, tmp_path):
    model = M3Embedder.from_pretrained(
        tiny_dir, query_instruction="query: ", passage_instruction="passage: "
    )
    build(model, RECORDS[:5], tmp_path / "i", modes=("dense",))
    index = open_index(tmp_path / "i")
    assert index.documents[0].text == RECORDS[0].text and index.dense is not None
    want: Any = model.encode_corpus([RECORDS[0].text])["dense_vecs"][0]
    np.testing.assert_allclose(index.dense.parts[0][0], want, atol=1e-5)
    queries: Any = encode_queries(index, ["a cat"], ["dense"])
    np.testing.assert_allclose(
        queries.embeddings.dense, model.encode_queries(["a cat"])["dense_vecs"], atol=1e-5
    )


def command(*arguments, code=0) -> str:
    out = subprocess.run(
        [sys.executable, "-m", "m3jax", *map(str, arguments)], capture_output=True, text=True,
        check=False, env=os.environ | {"M3JAX_CACHE_DIR": "", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert out.returncode == code and "Traceback" not in out.stderr, out.stdout + out.stderr
    return out.stdout + out.stderr


def test_commands_from_corpus_to_run(tiny_dir, tmp_path, capsys):
    rows = [json.dumps({"_id": r.id, "title": "T", "text": r.text}) + "\n" for r in RECORDS]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress("".join(rows).encode()))
    (tmp_path / "q.jsonl").write_text(
        '{"_id": "q1", "text": "the cat and the dog"}\n{"_id": "q2", "text": "Katze"}\n'
    )
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\nq2\td3\t1\n")
    index = tmp_path / "index"
    out = command("index", "--model", tiny_dir, "--corpus", tmp_path / "c.jsonl.gz", "--output",
                  index, "--shard-size", 20)  # fmt: skip
    assert "45 documents by dense, sparse, multivector" in out
    told = command("info", index)
    assert "documents" in told and "45" in told and "files" not in told
    assert main(["search", "--index", str(index), "--query", "the cat", "--explain", "--top-k", "3",
                 "--method", "dense+sparse", "--weights", "0.2,0.8"]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    hits = search(open_index(index), ["the cat"], "dense+sparse", top_k=3,
                  weights=HeadWeights(dense=0.2, sparse=0.8, colbert=0.0))  # fmt: skip
    for number, score in zip(hits.documents[0], hits.scores[0], strict=True):
        assert f"d{number}" in shown and f"{score:.4f}" in shown
    assert "multivector" in shown and " x " in shown
    for method in METHODS:
        run = tmp_path / "runs" / f"{method}.trec"
        assert main(["search", "--index", str(index), "--model", str(tiny_dir), "--queries",
                     str(tmp_path / "q.jsonl"), "--method", method, "--output", str(run),
                     "--top-k", "20", "--verify"]) == 0  # fmt: skip
        docs = list(ir_measures.read_trec_run(str(run)))
        assert {doc.query_id for doc in docs} == {"q1", "q2"}
        assert len({(doc.query_id, doc.doc_id) for doc in docs}) == len(docs) <= 40
    assert main(["tune-weights", "--index", str(index), "--queries", str(tmp_path / "q.jsonl"),
                 "--qrels", str(tmp_path / "qrels.tsv"), "--output",
                 str(tmp_path / "w.json")]) == 0  # fmt: skip
    best = json.loads((tmp_path / "w.json").read_text())
    assert f"nDCG@10 {best['ndcg_at_10']:.4f}" in capsys.readouterr().out
    assert main(["tune-weights", "--index", str(index), "--queries", str(tmp_path / "q.jsonl"),
                 "--qrels", str(tmp_path / "qrels.tsv"), "--kinds", "lang"]) == 1  # fmt: skip
    assert f"{tmp_path / 'q.jsonl'}:1: lang (--kinds) must be a string" in capsys.readouterr().err
    with pytest.raises(ValueError, match="name a file, not -"):
        read_kinds("-", "lang")


def test_a_model_keeps_its_weights(tiny_dir, tmp_path, capsys):
    """What tune-weights saves is the default of search, scores and evaluation, and travels on."""
    ours, index = tmp_path / "ours", tmp_path / "index"
    assert main(["convert", "from-hf", str(tiny_dir), str(ours)]) == 0
    task = tmp_path / "task"
    (task / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": r.id, "text": r.text}) + "\n" for r in RECORDS]
    (task / "corpus.jsonl").write_text("".join(rows))
    (task / "queries.jsonl").write_text('{"_id": "q1", "text": "the cat and the dog"}\n')
    (task / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\n")
    build(M3Embedder.from_pretrained(ours), RECORDS, index)
    search_all = (["the cat"], "all")
    before = search(open_index(index), *search_all, top_k=9)
    tune = ["tune-weights", "--index", str(index), "--queries", str(task / "queries.jsonl"),
            "--qrels", str(task / "qrels" / "test.tsv"), "--save"]  # fmt: skip
    assert main([*tune, str(ours)]) == 0
    kept = pretrained.read_fusion(ours)["all"]
    assert kept != WEIGHTS
    after = search(open_index(index), *search_all, top_k=9)
    named = search(open_index(index), *search_all, top_k=9, weights=kept)
    np.testing.assert_array_equal(after.scores[0], named.scores[0])
    assert not np.allclose(after.scores[0], before.scores[0])
    scaled = [search(open_index(index), *search_all, top_k=9, fusion="zscore", weights=weights)
              for weights in (None, WEIGHTS)]  # tuned for the scores as they are  # fmt: skip
    np.testing.assert_array_equal(scaled[0].scores[0], scaled[1].scores[0])
    encoded = encode_queries(open_index(index), ["the cat"], ["all"])
    unloaded = search(open_index(index), encoded, "all", top_k=9)  # no model in memory
    np.testing.assert_array_equal(unloaded.scores[0], named.scores[0])

    assert main(["convert", "quantize", str(ours), str(tmp_path / "small")]) == 0
    small = M3Embedder.from_pretrained(tmp_path / "small")
    assert small.fusion("all") == kept and small.fusion("dense+sparse") == WEIGHTS
    for weights, want in ((None, kept), ("mldr", preset("mldr", "all"))):
        settings = Settings(methods=("all",), weights=weights)
        (result,) = evaluate(small, read_tasks(task), tmp_path / "results", settings)
        assert result.protocol["weights"] == dataclasses.asdict(want)
    (found,) = explain_passages(small, "the cat", ["the dog"])
    heads = {head: found.scores[head] for head in ("dense", "sparse", "colbert")}
    total = sum(getattr(kept, head) * score for head, score in heads.items())
    assert found.scores["all"] == pytest.approx(total, abs=1e-6)
    capsys.readouterr()
    assert main(["convert", "to-hf", str(ours), str(tmp_path / "hf")]) == 0
    assert f"hybrid: all {kept.dense:g}," in capsys.readouterr().out
    assert main(["info", str(ours)]) == 0 and f"{kept.sparse:g}" in capsys.readouterr().out
    assert main([*tune, str(tiny_dir)]) == 1
    assert "m3jax convert from-hf" in capsys.readouterr().err
    write_tiny_model(tmp_path / "deeper", layers=4)
    assert main(["convert", "from-hf", str(tmp_path / "deeper"), str(tmp_path / "other")]) == 0
    assert main([*tune, str(tmp_path / "other")]) == 1
    assert "is not the model that made the index" in capsys.readouterr().err
    damaged = json.loads((ours / "m3jax.json").read_text()) | {"fusion": {"all": [1, 2]}}
    (ours / "m3jax.json").write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match="fusion must hold dense, sparse and colbert"):
        M3Embedder.from_pretrained(ours)


def test_commands_name_what_is_wrong(tiny_dir, built, tmp_path, capsys):
    (tmp_path / "twice.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n')
    (tmp_path / "none.jsonl").write_text("\n")
    write_tiny_model(tmp_path / "other", seed=1)
    model, index = ["--model", str(tiny_dir)], ["--index", str(built)]
    for arguments, message in (
        (["index", *model, "--corpus", str(tmp_path / "twice.jsonl"), "--output", "i"],
         "twice.jsonl:2: the id 'a' stands in line 1 already"),
        (["index", *model, "--corpus", str(tmp_path / "none.jsonl"), "--output", "i"],
         "none.jsonl holds no document"),
        (["index", *model, "--corpus", "missing.jsonl", "--output", "i"], "no such file"),
        (["search", "--index", str(tmp_path), "--query", "x"], "not an index"),
        (["search", *index, "--query", "x", "--model", str(tmp_path / "other")],
         "made by another model"),
        (["search", *index, "--query", "x", "--weights", "1"], "--weights needs numbers"),
        (["search", *index, "--query", "x", "--output", "run"], "go together"),
        (["search", *index, "--queries", str(tmp_path / "none.jsonl"), "--output", "run"],
         "holds no query"),
        (["search", *index, "--queries", str(tmp_path / "twice.jsonl"), "--output", "run"],
         "twice.jsonl:2: the id 'a' stands in line 1 already"),
    ):  # fmt: skip
        assert main(arguments) == 1, arguments
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["search", *index, "--query", "x", "--method", "magic"])
    assert stop.value.code == 2
