"""M3Embedder: FlagEmbedding's contract, and that neither batch nor order nor packing matters."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from support.tiny import TEXTS, write_tiny_model

from m3jax import BGEM3FlagModel, M3Embedder, pretrained, sharding
from m3jax.embed.encode import Batching
from m3jax.model.families import param_sharding

EVERYTHING: dict[str, Any] = {"return_sparse": True, "return_colbert_vecs": True}


@pytest.fixture(scope="module")
def many() -> list[str]:
    return [f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(64)]


def assert_equal(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a["dense_vecs"], b["dense_vecs"], atol=tolerance, rtol=0)
    for x, y in zip(a["lexical_weights"], b["lexical_weights"], strict=True):
        for token in x.keys() | y.keys():
            assert abs(x.get(token, 0.0) - y.get(token, 0.0)) < tolerance
    for x, y in zip(a["colbert_vecs"], b["colbert_vecs"], strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance, rtol=0)


def test_keys_types_and_shapes(tiny):
    out = tiny.encode(TEXTS, **EVERYTHING)
    assert out["dense_vecs"].shape == (len(TEXTS), 32) and out["dense_vecs"].dtype == np.float32
    lengths = [len(ids) for ids in tiny.tokenizer.encode(TEXTS, 128)]
    assert [v.shape for v in out["colbert_vecs"]] == [(n - 1, 32) for n in lengths]
    for weights in out["lexical_weights"]:
        assert all(isinstance(t, str) and w > 0 for t, w in weights.items())
        assert not set(map(int, weights)) & set(tiny.config.special_ids)
    dense_only = tiny.encode(TEXTS)
    assert dense_only["lexical_weights"] is None and dense_only["colbert_vecs"] is None


def test_one_string_gives_one_of_each(tiny):
    out, listed = tiny.encode(TEXTS[0], **EVERYTHING), tiny.encode(TEXTS[:1], **EVERYTHING)
    assert out["dense_vecs"].shape == (32,) and out["colbert_vecs"].ndim == 2
    assert_equal({k: [v] for k, v in out.items()}, listed)


def test_empty_list_and_empty_string(tiny):
    out = tiny.encode([], **EVERYTHING)
    assert out["dense_vecs"].shape == (0, 32)
    assert out["lexical_weights"] == [] and out["colbert_vecs"] == []
    empty = tiny.encode("", **EVERYTHING)
    assert empty["colbert_vecs"].shape == (1, 32) and empty["lexical_weights"] == {}


def test_the_batch_does_not_matter(tiny, many):
    together = tiny.encode(many, **EVERYTHING)
    for options in ({"batch_size": 1}, {"batch_size": 64}, {"packing": True}):
        assert_equal(tiny.encode(many, **EVERYTHING, **options), together)
    alone = [tiny.encode(text, **EVERYTHING) for text in many[:12]]
    listed = {key: [one[key] for one in alone] for key in alone[0]}
    assert_equal(listed, {key: value[:12] for key, value in together.items()})


def test_order_is_kept(tiny, many):
    order = np.random.default_rng(0).permutation(len(many))
    shuffled = tiny.encode([many[i] for i in order])["dense_vecs"]
    np.testing.assert_allclose(shuffled, tiny.encode(many)["dense_vecs"][order], atol=1e-6)


def test_a_generator_streams_in_constant_memory(tiny):
    drawn = []

    def endless():
        while True:
            drawn.append(len(drawn))
            yield f"text number {drawn[-1]}"

    stream = tiny.encode_stream(endless(), heads=("dense",), chunk=16)
    first, second = next(stream), next(stream)
    assert first.dense.shape == second.dense.shape == (16, 32)
    assert len(drawn) <= 16 * 4  # what is encoded, and one chunk ahead
    want = tiny.encode([f"text number {i}" for i in range(16, 32)])["dense_vecs"]
    np.testing.assert_allclose(second.dense, want, atol=1e-6)
    assert tiny.encode(str(i) for i in range(5))["dense_vecs"].shape == (5, 32)


def test_csr_and_ragged_say_the_same_as_dicts_and_lists(tiny):
    plain = tiny.encode(TEXTS, **EVERYTHING)
    out = tiny.encode(TEXTS, **EVERYTHING, sparse_format="csr", colbert_format="ragged")
    matrix = out["lexical_weights"]
    assert scipy.sparse.issparse(matrix) and matrix.shape == (len(TEXTS), 606)
    assert matrix.has_sorted_indices
    for row, weights in zip(matrix.toarray(), plain["lexical_weights"], strict=True):
        assert {str(t): row[t] for t in np.flatnonzero(row)} == pytest.approx(weights)
    for a, b in zip(out["colbert_vecs"], plain["colbert_vecs"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_repeated_token_keeps_its_largest_weight(tiny):
    """Against the maximum over the model's own weights, token by token."""
    import jax

    from m3jax.model.m3 import encode_batch
    from m3jax.text.batches import rows_of_tokens

    (ids,) = tiny.tokenizer.encode([TEXTS[0]], 128)
    batch, _ = rows_of_tokens([ids], [[0]], 64, pad_id=1)
    out = jax.jit(encode_batch, static_argnums=2)(tiny.encoder.model.params, batch, tiny.config)
    weights = np.asarray(out.sparse)[0]
    want = {}
    for token, weight in zip(ids.tolist(), weights.tolist(), strict=False):
        if weight > 0:
            want[str(token)] = max(want.get(str(token), 0), weight)
    assert len(want) < (np.asarray(weights) > 0).sum()  # something does repeat
    assert tiny.encode(TEXTS[0], **EVERYTHING)["lexical_weights"] == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_small_outputs_stay_close(tiny, dtype):
    full = tiny.encode(TEXTS, **EVERYTHING)
    out = tiny.encode(TEXTS, **EVERYTHING, output_dtype=dtype)
    assert out["dense_vecs"].dtype == dtype and out["colbert_vecs"][0].dtype == dtype
    dense, vectors = out["dense_vecs"], out["colbert_vecs"]
    if dtype == "int8":
        dense = dense * out["dense_scales"][:, None]
        vectors = [v * s for v, s in zip(vectors, out["colbert_scales"], strict=True)]
    np.testing.assert_allclose(dense, full["dense_vecs"], atol=5e-3)
    for a, b in zip(vectors, full["colbert_vecs"], strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)


def test_truncated_dimensions_are_normalised_again(tiny):
    out = tiny.encode(TEXTS, truncate_dim=8)["dense_vecs"]
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)
    full = tiny.encode(TEXTS)["dense_vecs"][:, :8]
    want = full / np.linalg.norm(full, axis=1, keepdims=True)
    np.testing.assert_allclose(out, want, atol=1e-6)


def test_mcls_averages_the_cls_tokens_and_leaves_short_texts_alone(tiny):
    texts = [TEXTS[-1], TEXTS[0]]
    plain = tiny.encode(texts, **EVERYTHING)
    mcls = tiny.encode(texts, **EVERYTHING, cls_every=40)
    np.testing.assert_allclose(mcls["dense_vecs"][1], plain["dense_vecs"][1], atol=1e-6)
    assert np.abs(mcls["dense_vecs"][0] - plain["dense_vecs"][0]).max() > 1e-3
    assert abs(np.linalg.norm(mcls["dense_vecs"][0]) - 1) < 1e-5
    # The inserted [CLS] have no vector and no weight of their own.
    assert len(mcls["colbert_vecs"][0]) <= len(plain["colbert_vecs"][0])
    assert str(tiny.tokenizer.cls_id) not in mcls["lexical_weights"][0]


def test_scores_of_pairs(tiny):
    pairs = [(TEXTS[0], TEXTS[3]), (TEXTS[0], TEXTS[0]), (TEXTS[4], TEXTS[11])]
    scores = tiny.compute_score(pairs, weights_for_different_modes=[0.4, 0.2, 0.4])
    assert list(scores) == ["colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense"]
    out = tiny.encode(TEXTS, **EVERYTHING)
    for i, (a, b) in enumerate([(0, 3), (0, 0), (4, 11)]):
        dense = out["dense_vecs"][a] @ out["dense_vecs"][b]
        sparse = tiny.compute_lexical_matching_score(
            out["lexical_weights"][a], out["lexical_weights"][b]
        )
        late = tiny.colbert_score(out["colbert_vecs"][a], out["colbert_vecs"][b])
        assert scores["dense"][i] == pytest.approx(dense, abs=1e-5)
        assert scores["sparse"][i] == pytest.approx(sparse, abs=1e-4)
        assert scores["colbert"][i] == pytest.approx(late, abs=1e-5)
        two = (0.4 * dense + 0.2 * sparse) / (0.4 + 0.2)
        assert scores["sparse+dense"][i] == pytest.approx(two, abs=1e-4)
        three = (0.4 * dense + 0.2 * sparse + 0.4 * late) / 1.0
        assert scores["colbert+sparse+dense"][i] == pytest.approx(three, abs=1e-4)
    one = tiny.compute_score(list(pairs[0]))  # lists, as FlagEmbedding's examples have them
    assert tiny.compute_score([list(pairs[0])])["dense"] == [one["dense"]]
    assert one["dense"] == pytest.approx(scores["dense"][0], abs=1e-6)
    assert tiny.compute_score([])["dense"] == []
    with pytest.raises(ValueError, match="three numbers"):
        tiny.compute_score(pairs, weights_for_different_modes=[1.0, 1.0])


def test_late_interaction_by_hand(tiny):
    query = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    passage = np.array([[0.6, 0.8], [0.0, -1.0]], np.float32)
    assert tiny.colbert_score(query, passage) == pytest.approx((0.6 + 0.8) / 2)


def test_lexical_scores_of_lists_are_a_matrix(tiny):
    a, b = {"5": 0.5, "6": 1.0}, {"6": 0.25}
    np.testing.assert_allclose(
        tiny.compute_lexical_matching_score([a, b], [a, b]), [[1.25, 0.25], [0.25, 0.0625]]
    )
    with pytest.raises(ValueError, match="not one of each"):
        tiny.compute_lexical_matching_score(a, [b])


def test_ids_are_spelt_as_tokens(tiny):
    weights = tiny.encode(TEXTS[0], **EVERYTHING)["lexical_weights"]
    spelt = tiny.convert_id_to_token(weights)
    assert "the" in {token.strip() for token in spelt}
    assert tiny.convert_id_to_token([weights, weights]) == [spelt, spelt]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 129}, "extend-positions"),
        ({"max_length": 1}, "max_length 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"cls_every": 0}, "cls_every"),
        ({"truncate_dim": 33}, "truncate_dim"),
    ],
)
def test_sizes_out_of_range_are_refused(tiny, options: dict[str, Any], message):
    with pytest.raises(ValueError, match=message):
        tiny.encode(TEXTS, **options)


def test_long_texts_are_packed_on_any_number_of_devices(tmp_path):
    """A row of 640 tokens: as many of them as the devices share evenly."""
    write_tiny_model(tmp_path / "long", max_positions=1026)
    model = M3Embedder.from_pretrained(tmp_path / "long")
    texts = ["the cat sat on the mat " * 65, *TEXTS]
    packed = model.encode(texts, max_length=1024, packing=True)
    assert 512 < len(model.tokenizer.encode(texts[:1], 1024)[0]) <= 640
    plain = model.encode(texts, max_length=1024)
    np.testing.assert_allclose(packed["dense_vecs"], plain["dense_vecs"], atol=1e-5)


def test_encoding_is_safe_in_threads(tiny, many):
    import concurrent.futures

    want = tiny.encode(many)["dense_vecs"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for out in pool.map(lambda _: tiny.encode(many)["dense_vecs"], range(8)):
            np.testing.assert_array_equal(out, want)


def test_flag_model_is_a_drop_in(tiny, tiny_dir):
    model = BGEM3FlagModel(
        str(tiny_dir), use_fp16=True, query_instruction_for_retrieval="find: ", return_sparse=True
    )
    out = model.encode_queries(TEXTS[:3])
    want = tiny.encode(["find: " + text for text in TEXTS[:3]], return_sparse=True)
    np.testing.assert_allclose(out["dense_vecs"], want["dense_vecs"], atol=1e-6)
    assert out["lexical_weights"] is not None and out["colbert_vecs"] is None
    passages = model.encode_corpus(TEXTS[:3], batch_size=2, max_length=64)
    np.testing.assert_allclose(
        passages["dense_vecs"], tiny.encode(TEXTS[:3])["dense_vecs"], atol=1e-6
    )
    with pytest.raises(ValueError, match="never runs code"):
        BGEM3FlagModel(str(tiny_dir), trust_remote_code=True)
    with pytest.raises(ValueError, match="must contain {} twice"):
        BGEM3FlagModel(
            str(tiny_dir),
            query_instruction_for_retrieval="x",
            query_instruction_format="{}: {} end",
        )


def test_instructions_go_in_front(tiny_dir, tiny):
    model = M3Embedder.from_pretrained(
        tiny_dir, query_instruction="query: ", passage_instruction="passage: "
    )
    a = model.encode_queries("cat")["dense_vecs"]
    b = model.encode_corpus(["cat"])["dense_vecs"][0]
    np.testing.assert_allclose(a, tiny.encode("query: cat")["dense_vecs"], atol=1e-6)
    np.testing.assert_allclose(b, tiny.encode("passage: cat")["dense_vecs"], atol=1e-6)


def test_number_of_compilations_is_bounded_by_the_shapes(tiny_dir, many):
    model = M3Embedder.from_pretrained(tiny_dir)
    shapes = {
        (batch.token_ids.shape)
        for batch, _ in model.encoder._batches(model.tokenizer.encode(many, 128), Batching())
    }
    model.encode(many)
    model.encode(many[::-1])
    assert model.encoder._compiled(("dense",))._cache_size() == len(shapes)


def test_any_mesh_gives_the_same(tiny, tiny_dir):
    want = tiny.encode(TEXTS, **EVERYTHING)
    for sizes in ((1, 8, 1), (2, 2, 2), (1, 1, 8)):
        model = M3Embedder.from_pretrained(tiny_dir, mesh=sharding.make_mesh(*sizes))
        assert_equal(model.encode(TEXTS, **EVERYTHING), want)


def test_parameters_land_on_the_mesh_in_pieces(tiny_dir):
    mesh = sharding.make_mesh(2, 2, 2)
    flat = sharding.flatten(pretrained.load(tiny_dir, mesh=mesh).params)
    word = flat["encoder/embeddings/word"]
    assert {shard.data.shape for shard in word.addressable_shards} == {(606, 8)}
    up = flat["encoder/layers/up/kernel"]
    assert {shard.data.shape for shard in up.addressable_shards} == {(3, 16, 32)}
    with pytest.raises(ValueError, match="cannot be split"):
        param_sharding("heads/colbert/bias", (33,), mesh)
    with pytest.raises(ValueError, match="does not cover"):
        sharding.make_mesh(3, 1, 1)
