"""Indexes on disk: built, resumed, checked; and the commands that use them."""

import dataclasses
import gzip
import json
import shutil
from typing import Any

import ir_measures
import numpy as np
import pytest
from support import brute, commands
from support.brute import every_score, expected
from support.tiny import TEXTS, write_tiny_model

from m3jax import M3Embedder, pretrained
from m3jax.cli.main import main
from m3jax.cli.tune_weights import read_groups
from m3jax.config import HeadWeights
from m3jax.embed.corpus import read_shards
from m3jax.embed.embeddings import concatenate
from m3jax.embed.vectors import StoredVectors
from m3jax.evaluate.options import EvaluationOptions
from m3jax.evaluate.run import evaluate_model
from m3jax.evaluate.tasks import read_tasks
from m3jax.explain.alignment import explain_passages
from m3jax.io.jsonl import Record, read_records
from m3jax.search.build import IndexOptions, build_index, join
from m3jax.search.fuse import preset
from m3jax.search.index import Index
from m3jax.search.methods import encode_queries
from m3jax.search.options import METHODS, Depths

RECORDS = [Record(f"d{i}", f"{TEXTS[i % len(TEXTS)]} {i % 20}", i + 1) for i in range(45)]
WEIGHTS = HeadWeights(dense=1.0, sparse=0.3, colbert=1.0)


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("search") / "index"
    build_index(tiny, RECORDS, output, IndexOptions(shard_size=10))
    return output


def check_against_brute_force(index, queries, depths):
    """Every method's ranking against the definition, on the index's own vectors."""
    documents = concatenate([part for _, part in read_shards(index.path / "embeddings")])
    scores = every_score(queries.embeddings, documents)
    for method in list(METHODS)[1:]:
        hits = index.search(queries, method=method, top_k=25, depths=depths)
        for i in range(len(queries.texts)):
            want, values = expected(method, scores, i, 25, depths, WEIGHTS)
            np.testing.assert_array_equal(hits.documents[i], want)
            np.testing.assert_allclose(hits.scores[i], values, rtol=1e-5, atol=1e-6)


def test_indexes_of_one_model_are_joined(tiny, built, tmp_path):
    """As if all texts had been indexed together; another model's are refused."""
    some, others = RECORDS[:20], RECORDS[20:]
    for name, records in (("some", some), ("others", others)):
        build_index(tiny, records, tmp_path / name, IndexOptions(shard_size=10))
    parts = {name: Index.open(tmp_path / name) for name in ("some", "others")}
    joint, whole = join(parts), Index.open(built)
    names = ["some"] * len(some) + ["others"] * len(others)
    assert joint.ids == [f"{n}:{r.id}" for n, r in zip(names, RECORDS, strict=True)]
    queries = encode_queries(tiny, TEXTS[:6])
    for method in list(METHODS)[1:]:
        found, want = (index.search(queries, method=method, top_k=25) for index in (joint, whole))
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
    index = Index.open(built)
    queries = encode_queries(index, ["the cat", "die Katze", "北京", "word3 word4"])
    check_against_brute_force(index, queries, Depths(dense=20, sparse=15, rerank_top_k=18))


def test_rankings_on_real_text_are_those_of_brute_force(tiny, data_dir, tmp_path):
    folder = data_dir / "eval" / "xquad" / "en"
    records = [r for r in read_records(str(folder / "corpus.jsonl.gz")) if r.line % 8 == 0]
    queries = [r.text for r in read_records(str(folder / "queries.jsonl.gz"))][:120:10]
    build_index(tiny, records, tmp_path / "index", IndexOptions(shard_size=64, max_length=64))
    index = Index.open(tmp_path / "index")
    encoded = encode_queries(index, queries)
    check_against_brute_force(index, encoded, Depths(dense=60, sparse=60, rerank_top_k=40))


def test_documents_and_bm25_are_stored(built):
    index = Index.open(built)
    assert list(index.ids) == [record.id for record in RECORDS]
    assert index.documents[7].text == RECORDS[7].text and index.documents[-1].id == "d44"
    first = index.search(["the dog"], method="bm25", top_k=5)
    assert (built / "bm25-tokens").is_dir()
    again = Index.open(built).search(["the dog"], method="bm25", top_k=5)
    np.testing.assert_array_equal(first.documents[0], again.documents[0])
    assert "dog" in index.documents[int(first.documents[0][0])].text
    words = index.bm25("words").search(["the dog"], 5)
    assert "dog" in index.documents[int(words.documents[0][0])].text


def test_an_interrupted_build_resumes_without_repeating_work(tiny, tmp_path, monkeypatch):
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
        build_index(tiny, RECORDS, tmp_path / "i", IndexOptions(shard_size=10))
    with pytest.raises(FileNotFoundError, match="not finished"):
        Index.open(tmp_path / "i")
    stamp = (tmp_path / "i" / "embeddings" / "shard-00001" / "dense.npy").stat().st_mtime_ns
    (tmp_path / "i" / ".documents.abc").mkdir()  # what a kill -9 leaves behind
    build_index(tiny, RECORDS, tmp_path / "i", IndexOptions(shard_size=10))
    assert len(calls) == 3 + 3
    after = (tmp_path / "i" / "embeddings" / "shard-00001" / "dense.npy").stat().st_mtime_ns
    assert after == stamp and not list((tmp_path / "i").glob(".*"))
    manifest = build_index(
        tiny, RECORDS, tmp_path / "i", IndexOptions(shard_size=10)
    )  # nothing to do
    assert len(calls) == 6 and manifest["documents"] == 45
    assert Index.open(tmp_path / "i").size == 45


def test_small_storage_ranks_as_it_is_stored(tiny, tmp_path):
    build_index(
        tiny, RECORDS, tmp_path / "i", IndexOptions(dtype="int8", sparse_bits=8, shard_size=20)
    )
    index = Index.open(tmp_path / "i")
    queries: Any = encode_queries(index, ["the cat and the dog"])
    assert index.dense is not None and index.sparse is not None
    vectors = [
        brute.wide(p, s)
        for p, s in zip(index.dense.vectors.parts, index.dense.vectors.scales, strict=True)
    ]
    exact = brute.inner(queries.embeddings.dense[0].astype(float), np.concatenate(vectors))
    (found,) = index.search(queries, method="dense", top_k=45).documents
    np.testing.assert_array_equal(found, brute.top(exact, 45))
    assert index.sparse.postings.weights.dtype == np.uint8
    assert len(index.search(queries, method="all", top_k=10).documents[0]) == 10


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_largest_norm_is_stored(tiny, tmp_path, dtype):
    """Without it a single query would read all vectors."""
    build_index(tiny, RECORDS, tmp_path / "index", IndexOptions(dtype=dtype, shard_size=20))
    index = Index.open(tmp_path / "index")
    assert index.dense is not None and index.colbert is not None
    for rows in (index.dense.vectors, index.colbert.vectors.rows):
        assert rows.norm == pytest.approx(
            StoredVectors(rows.parts, rows.scales).largest_norm, rel=1e-6
        )
    manifest = tmp_path / "index" / "embeddings" / "manifest.json"
    values = json.loads(manifest.read_text())
    for shard in values["shards"]:
        del shard["norms"]  # as in older versions
    manifest.write_text(json.dumps(values))
    older = Index.open(tmp_path / "index")
    assert older.dense is not None and older.dense.vectors.norm is None
    assert older.dense.vectors.largest_norm == pytest.approx(
        index.dense.vectors.largest_norm, rel=1e-6
    )


def test_markup_in_texts_is_printed_literally(tiny_dir, tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "[b]", "text": "[edit] the cat [/INST]"}\n')
    index = tmp_path / "index"
    assert commands.run_here(f"index --model {tiny_dir} --corpus {corpus} --output {index}") == 0
    assert commands.run_here(f"search --index {index} --query 'the [/b] cat'") == 0
    out = capsys.readouterr().out
    assert "[edit] the cat [/INST]" in out and "the [/b] cat" in out and "[b]" in out


def test_a_build_with_other_inputs_is_refused(tiny, built, tmp_path):
    with pytest.raises(ValueError, match="begun with other documents"):
        build_index(tiny, RECORDS[:-1], built, IndexOptions(shard_size=10))
    with pytest.raises(ValueError, match="modes"):
        build_index(tiny, RECORDS, built, IndexOptions(shard_size=10, modes=("dense",)))
    with pytest.raises(ValueError, match="sparse_bits = 32"):
        build_index(tiny, RECORDS, built, IndexOptions(shard_size=10, sparse_bits=8))
    write_tiny_model(tmp_path / "other", seed=1)
    other = M3Embedder.from_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="fingerprint"):
        build_index(other, RECORDS, built, IndexOptions(shard_size=10))
    with pytest.raises(ValueError, match="made by another model"):
        Index.open(built).use(other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="is no index"):
        build_index(tiny, RECORDS, tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    assert Index.open(built, verify=True).size == 45  # and all that harmed nothing


def test_bad_corpora_leave_no_files(tiny, tmp_path):
    with pytest.raises(ValueError, match="c.jsonl:9: the id 'd3' occurs in line 4 already"):
        build_index(
            tiny, [*RECORDS[:8], RECORDS[3]._replace(line=9)], tmp_path / "i", source="c.jsonl"
        )
    with pytest.raises(ValueError, match="c.jsonl holds no document"):
        build_index(tiny, [], tmp_path / "i", source="c.jsonl")
    assert not (tmp_path / "i").exists()
    with pytest.raises(FileNotFoundError, match="not an index"):
        Index.open(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "embeddings/shard-00001/dense.npy",
        "embeddings/shard-00000/colbert.npy",
        "sparse/weights.npy",
        "documents/documents.jsonl",
    ],
)
def test_damaged_files_are_named(tiny, tmp_path, file):
    build_index(tiny, RECORDS[:12], tmp_path / "i", IndexOptions(shard_size=6))
    path = tmp_path / "i" / file
    data = path.read_bytes()
    # Not a byte that JSON needs: the second opening below reads a text now and then.
    path.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])
    with pytest.raises(ValueError, match=f"{path} has other contents"):
        Index.open(tmp_path / "i")
    Index.open(tmp_path / "i", verify=False)  # as a large index is opened: sizes alone
    path.write_bytes(data[:-3])
    with pytest.raises(ValueError, match=f"{path} has {len(data) - 3} bytes, not the {len(data)}"):
        Index.open(tmp_path / "i", verify=False)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path} is missing"):
        Index.open(tmp_path / "i", verify=False)


def test_instructions_are_prepended(tiny_dir, tmp_path):
    model = M3Embedder.from_pretrained(
        tiny_dir, query_instruction="query: ", passage_instruction="passage: "
    )
    build_index(model, RECORDS[:5], tmp_path / "i", IndexOptions(modes=("dense",)))
    index = Index.open(tmp_path / "i")
    assert index.documents[0].text == RECORDS[0].text and index.dense is not None
    want: Any = model.encode_corpus([RECORDS[0].text])["dense_vecs"][0]
    np.testing.assert_allclose(index.dense.vectors.parts[0][0], want, atol=1e-5)
    queries: Any = encode_queries(index, ["a cat"], ["dense"])
    np.testing.assert_allclose(
        queries.embeddings.dense, model.encode_queries(["a cat"])["dense_vecs"], atol=1e-5
    )


def test_commands_from_corpus_to_run(tiny_dir, tmp_path, capsys):
    rows = [json.dumps({"_id": r.id, "title": "T", "text": r.text}) + "\n" for r in RECORDS]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress("".join(rows).encode()))
    (tmp_path / "q.jsonl").write_text(
        '{"_id": "q1", "text": "the cat and the dog"}\n{"_id": "q2", "text": "Katze"}\n'
    )
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\nq2\td3\t1\n")
    index = tmp_path / "index"
    corpus = ["--corpus", tmp_path / "c.jsonl.gz"]
    out = commands.run("index", "--model", tiny_dir, *corpus, "--output", index, "--shard-size", 20)
    assert "45 documents by dense, sparse, colbert" in out
    manifest = commands.run("info", index)
    assert "documents" in manifest and "45" in manifest and "files" not in manifest
    code = commands.run_here(
        f"search --index {index} --query 'the cat' --explain --top-k 3 --method "
        "dense+sparse --weights 0.2,0.8"
    )
    assert code == 0
    shown = capsys.readouterr().out
    hits = Index.open(index).search(
        ["the cat"],
        method="dense+sparse",
        top_k=3,
        weights=HeadWeights(dense=0.2, sparse=0.8, colbert=0.0),
    )
    for number, score in zip(hits.documents[0], hits.scores[0], strict=True):
        assert f"d{number}" in shown and f"{score:.4f}" in shown
    assert "colbert" in shown and " x " in shown
    for method in METHODS:
        run = tmp_path / "runs" / f"{method}.trec"
        code = commands.run_here(
            f"search --index {index} --model {tiny_dir} --queries {tmp_path}/q.jsonl "
            f"--method {method} --output {run} --top-k 20 --verify"
        )
        assert code == 0
        docs = list(ir_measures.read_trec_run(str(run)))
        assert {doc.query_id for doc in docs} == {"q1", "q2"}
        assert len({(doc.query_id, doc.doc_id) for doc in docs}) == len(docs) <= 40
    code = commands.run_here(
        f"tune-weights --index {index} --queries {tmp_path}/q.jsonl --qrels "
        f"{tmp_path}/qrels.tsv --output {tmp_path}/w.json"
    )
    assert code == 0
    best = json.loads((tmp_path / "w.json").read_text())
    assert f"nDCG@10 {best['ndcg_at_10']:.4f}" in capsys.readouterr().out
    code = commands.run_here(
        f"tune-weights --index {index} --queries {tmp_path}/q.jsonl --qrels "
        f"{tmp_path}/qrels.tsv --group-by lang"
    )
    assert code == 1
    message = f"{tmp_path / 'q.jsonl'}:1: lang (--group-by) must be a string"
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="name a file, not -"):
        read_groups("-", "lang")


def test_tuned_weights_are_stored_with_the_model(tiny_dir, tmp_path, capsys):
    """Weights that tune-weights saves are the default of search, scoring and evaluation, and are
    kept by conversions."""
    ours, index = tmp_path / "ours", tmp_path / "index"
    assert main(["convert", "from-hf", str(tiny_dir), str(ours)]) == 0
    task = tmp_path / "task"
    (task / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": r.id, "text": r.text}) + "\n" for r in RECORDS]
    (task / "corpus.jsonl").write_text("".join(rows))
    (task / "queries.jsonl").write_text('{"_id": "q1", "text": "the cat and the dog"}\n')
    (task / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\n")
    build_index(M3Embedder.from_pretrained(ours), RECORDS, index)
    before = Index.open(index).search(["the cat"], top_k=9)
    judged = f"--queries {task / 'queries.jsonl'} --qrels {task / 'qrels' / 'test.tsv'}"
    tune = f"tune-weights --index {index} {judged} --save"
    assert commands.run_here(f"{tune} {ours}") == 0
    kept = pretrained.read_fusion(ours)["all"]
    assert kept != WEIGHTS
    after = Index.open(index).search(["the cat"], top_k=9)
    named = Index.open(index).search(["the cat"], top_k=9, weights=kept)
    np.testing.assert_array_equal(after.scores[0], named.scores[0])
    assert not np.allclose(after.scores[0], before.scores[0])
    scaled = [
        Index.open(index).search(["the cat"], top_k=9, fusion="zscore", weights=weights)
        for weights in (None, WEIGHTS)
    ]  # tuned for the scores as they are
    np.testing.assert_array_equal(scaled[0].scores[0], scaled[1].scores[0])
    encoded = encode_queries(Index.open(index), ["the cat"], ["all"])
    unloaded = Index.open(index).search(encoded, method="all", top_k=9)  # no model in memory
    np.testing.assert_array_equal(unloaded.scores[0], named.scores[0])

    assert main(["convert", "quantize", str(ours), str(tmp_path / "small")]) == 0
    small = M3Embedder.from_pretrained(tmp_path / "small")
    assert small.fusion("all") == kept and small.fusion("dense+sparse") == WEIGHTS
    for weights, want in ((None, kept), ("mldr", preset("mldr", "all"))):
        settings = EvaluationOptions(methods=("all",), weights=weights)
        (result,) = evaluate_model(small, read_tasks(task), tmp_path / "results", settings)
        assert result.protocol["weights"] == dataclasses.asdict(want)
    (found,) = explain_passages(small, "the cat", ["the dog"])
    heads = {head: found.scores[head] for head in ("dense", "sparse", "colbert")}
    total = sum(getattr(kept, head) * score for head, score in heads.items())
    assert found.scores["all"] == pytest.approx(total, abs=1e-6)
    capsys.readouterr()
    assert main(["convert", "to-hf", str(ours), str(tmp_path / "hf")]) == 0
    assert f"fusion weights all {kept.dense:g}," in capsys.readouterr().out
    assert main(["info", str(ours)]) == 0 and f"{kept.sparse:g}" in capsys.readouterr().out
    assert commands.run_here(f"{tune} {tiny_dir}") == 1
    assert "m3jax convert from-hf" in capsys.readouterr().err
    write_tiny_model(tmp_path / "deeper", layers=4)
    assert main(["convert", "from-hf", str(tmp_path / "deeper"), str(tmp_path / "other")]) == 0
    assert commands.run_here(f"{tune} {tmp_path / 'other'}") == 1
    assert "is not the model of the index" in capsys.readouterr().err
    damaged = json.loads((ours / "m3jax.json").read_text()) | {"fusion": {"all": [1, 2]}}
    (ours / "m3jax.json").write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match="fusion must hold dense, sparse and colbert"):
        M3Embedder.from_pretrained(ours)


def test_commands_name_bad_arguments(tiny_dir, built, tmp_path, capsys):
    (tmp_path / "twice.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n')
    (tmp_path / "none.jsonl").write_text("\n")
    write_tiny_model(tmp_path / "other", seed=1)
    index, search = f"index --model {tiny_dir} --output i", f"search --index {built}"
    for line, message in (
        (f"{index} --corpus {tmp_path}/twice.jsonl", "2: the id 'a' occurs in line 1 already"),
        (f"{index} --corpus {tmp_path}/none.jsonl", "none.jsonl holds no document"),
        (f"{index} --corpus missing.jsonl", "no such file"),
        (f"search --index {tmp_path} --query x", "not an index"),
        (f"{search} --query x --model {tmp_path}/other", "made by another model"),
        (f"{search} --query x --weights 1", "--weights needs numbers"),
        (f"{search} --query x --output run", "go together"),
        (f"{search} --query x --method sparse --engine faiss", "engine of sparse must be one of"),
        (f"{search} --queries {tmp_path}/none.jsonl --output run", "holds no query"),
        (
            f"{search} --queries {tmp_path}/twice.jsonl --output run",
            "twice.jsonl:2: the id 'a' occurs in line 1 already",
        ),
    ):
        assert commands.run_here(line) == 1, line
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        commands.run_here(f"{search} --query x --method magic")
    assert stop.value.code == 2
    assert "method must be one of bm25, dense" in capsys.readouterr().err


def test_the_former_name_of_colbert_is_accepted(built, capsys):
    with pytest.warns(FutureWarning, match="'multivector' is deprecated, use 'colbert'"):
        assert commands.run_here(f"search --index {built} --query cat --method multivector") == 0
    by_former_name = capsys.readouterr().out
    line = f"search --index {built} --query cat --method colbert --engine numpy"
    assert commands.run_here(line) == 0
    assert capsys.readouterr().out == by_former_name


def test_an_index_with_the_former_name_is_opened(built, tmp_path):
    copy = tmp_path / "index"
    shutil.copytree(built, copy)
    for path in (copy / "index.json", copy / "embeddings" / "manifest.json"):
        assert '"colbert"' in path.read_text()
        path.write_text(path.read_text().replace('"colbert"', '"multivector"', 1))
    index = Index.open(copy)
    assert index.manifest["modes"] == ["dense", "sparse", "colbert"] and index.colbert is not None
