"""Embeddings on disk: whole shards only, resumed without redoing or losing a line."""

import itertools
import json

import numpy as np
import pytest
from support.tiny import TEXTS, write_tiny_model

from m3jax import M3Embedder
from m3jax.config import HEADS
from m3jax.embed.corpus import CorpusOptions, encode_corpus, read_manifest, read_shards
from m3jax.io.jsonl import Record

ALL = HEADS
RECORDS = [Record(f"d{i}", f"{TEXTS[i % len(TEXTS)]} {i}", i + 1) for i in range(25)]


def everything(output):
    ids, parts = [], []
    for shard_ids, embeddings in read_shards(output):
        ids += shard_ids
        parts.append(embeddings)
    return ids, parts


def test_shards_hold_what_encode_returns(tiny, tmp_path):
    manifest = encode_corpus(
        tiny, RECORDS, tmp_path / "out", CorpusOptions(modes=ALL, shard_size=10)
    )
    assert manifest["complete"] and [s["texts"] for s in manifest["shards"]] == [10, 10, 5]
    ids, parts = everything(tmp_path / "out")
    assert ids == [record.id for record in RECORDS]
    want = tiny.encode(
        [r.text for r in RECORDS],
        return_sparse=True,
        return_colbert_vecs=True,
        sparse_format="csr",
    )
    np.testing.assert_allclose(
        np.concatenate([p.dense for p in parts]), want["dense_vecs"], atol=1e-5
    )
    sparse = np.concatenate([p.sparse.toarray() for p in parts])
    np.testing.assert_allclose(sparse, want["lexical_weights"].toarray(), atol=1e-5)
    vectors = [matrix for p in parts for matrix in p.colbert]
    for a, b in zip(vectors, want["colbert_vecs"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_stopped_run_goes_on_and_redoes_nothing(tiny, tmp_path):
    class Killed(Exception):
        pass

    def dies(after):
        yield from itertools.islice(RECORDS, after)
        raise Killed

    with pytest.raises(Killed):
        encode_corpus(tiny, dies(17), tmp_path / "out", CorpusOptions(modes=ALL, shard_size=10))
    assert not read_manifest(tmp_path / "out")["complete"]
    first = tmp_path / "out" / "shard-00000" / "dense.npy"
    stamp = first.stat().st_mtime_ns
    (tmp_path / "out" / ".shard-00001.abc").mkdir()  # what a kill -9 leaves behind
    encode_corpus(tiny, RECORDS, tmp_path / "out", CorpusOptions(modes=ALL, shard_size=10))
    assert first.stat().st_mtime_ns == stamp
    assert everything(tmp_path / "out")[0] == [record.id for record in RECORDS]
    assert not list((tmp_path / "out").glob(".shard*"))
    encode_corpus(
        tiny, RECORDS, tmp_path / "out", CorpusOptions(modes=ALL, shard_size=10)
    )  # nothing to do
    assert first.stat().st_mtime_ns == stamp


def test_a_shard_outside_the_manifest_is_made_again(tiny, tmp_path):
    """Killed between the shard's rename and the manifest's."""
    encode_corpus(tiny, RECORDS, tmp_path / "out", CorpusOptions(modes=("dense",), shard_size=10))
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"].pop()
    path.write_text(json.dumps(manifest | {"complete": False}))
    encode_corpus(tiny, RECORDS, tmp_path / "out", CorpusOptions(modes=("dense",), shard_size=10))
    assert everything(tmp_path / "out")[0] == [record.id for record in RECORDS]


def test_nothing_is_mixed(tiny, tmp_path):
    out = tmp_path / "out"
    encode_corpus(tiny, RECORDS, out, CorpusOptions(modes=("dense",), shard_size=10))
    with pytest.raises(ValueError, match="modes"):
        encode_corpus(tiny, RECORDS, out, CorpusOptions(modes=("sparse",), shard_size=10))
    with pytest.raises(ValueError, match="max_length"):
        encode_corpus(
            tiny, RECORDS, out, CorpusOptions(modes=("dense",), shard_size=10, max_length=64)
        )
    changed = [Record("d3", "another text", 4) if r.id == "d3" else r for r in RECORDS]
    with pytest.raises(ValueError, match="shard-00000 was made from other records"):
        encode_corpus(tiny, changed, out, CorpusOptions(modes=("dense",), shard_size=10))
    with pytest.raises(ValueError, match="more records"):
        encode_corpus(
            tiny, [*RECORDS, *RECORDS], out, CorpusOptions(modes=("dense",), shard_size=10)
        )
    write_tiny_model(tmp_path / "other", seed=1)
    other = M3Embedder.from_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="fingerprint"):
        encode_corpus(other, RECORDS, out, CorpusOptions(modes=("dense",), shard_size=10))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="full"):
        encode_corpus(tiny, RECORDS, tmp_path / "full", CorpusOptions(modes=("dense",)))
    with pytest.raises(FileNotFoundError, match="not an embeddings directory"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_small_shards_stay_close(tiny, tmp_path, dtype):
    encode_corpus(
        tiny, RECORDS, tmp_path / dtype, CorpusOptions(modes=("dense", "colbert"), dtype=dtype)
    )
    (part,) = everything(tmp_path / dtype)[1]
    want = tiny.encode([r.text for r in RECORDS], return_colbert_vecs=True)
    np.testing.assert_allclose(part.dense, want["dense_vecs"], atol=5e-3)
    np.testing.assert_allclose(part.colbert[3], want["colbert_vecs"][3], atol=5e-3)
    assert part.sparse is None


def test_an_empty_input_gives_an_empty_whole(tiny, tmp_path):
    manifest = encode_corpus(tiny, [], tmp_path / "out", CorpusOptions(modes=ALL))
    assert manifest["complete"] and manifest["shards"] == []
