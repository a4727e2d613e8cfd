"""The smallest files: words in few bytes, the tokenizer packed, and nothing lost twice."""

import dataclasses

import jax
import numpy as np
import pytest

from m3jax import pretrained, sharding
from m3jax.convert import product
from m3jax.convert.positions import extend_positions
from m3jax.text import tokenizer

ROWS, WIDTH = 1500, 32


@pytest.fixture(scope="module")
def table():
    """Rows in clusters, as words are: what k-means is for."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, WIDTH))
    noise = 0.3 * rng.standard_normal((ROWS, WIDTH))
    return (centres[rng.integers(0, 40, ROWS)] + noise).astype(np.float32)


def error(table, parts):
    gap = product.decode(*product.fit(table, parts)) - table
    return np.sqrt((gap**2).sum() / (table**2).sum())


def test_more_bytes_are_nearer_and_all_are_near(table):
    errors = [error(table, parts) for parts in (4, 8, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.25 and errors[3] < 0.02
    # Plain int4 of the same 16 bytes a row, a scale for each row, is farther away.
    scale = np.abs(table).max(axis=1, keepdims=True) / 7
    int4 = np.rint(table / scale) * scale - table
    assert errors[2] < np.sqrt((int4**2).sum() / (table**2).sum())


def test_a_decoded_table_is_encoded_exactly(table):
    decoded = product.decode(*product.fit(table, 8))
    assert product.parts_of(decoded) == 8
    assert product.parts_of(table) is None
    np.testing.assert_array_equal(product.decode(*product.fit(decoded, 8)), decoded)
    with pytest.raises(ValueError, match="7 bytes a row do not divide the embedding's width 32"):
        product.fit(table, 7)


def test_a_model_keeps_its_coded_words(model, tmp_path):
    embeddings = model.params["encoder"]["embeddings"]
    width = embeddings["word"].shape[1]
    pretrained.save_int8(tmp_path / "small", model, word_bytes=width // 4)
    small = pretrained.load(tmp_path / "small")
    words = np.asarray(small.params["encoder"]["embeddings"]["word"])
    assert words.shape == embeddings["word"].shape
    # Trained on with frozen words and stored again: the same words, without being asked.
    pretrained.save_int8(tmp_path / "again", small)
    again = pretrained.load(tmp_path / "again").params["encoder"]["embeddings"]["word"]
    np.testing.assert_array_equal(again, words)


def test_a_packed_tokenizer_is_the_same(tiny_dir, model, tmp_path):
    pretrained.save_int8(tmp_path / "small", model)
    packed = tmp_path / "small" / tokenizer.COMPRESSED
    assert packed.is_file() and not (tmp_path / "small" / "tokenizer.json").exists()
    small = pretrained.load(tmp_path / "small")
    assert small.tokenizer.fingerprint() == model.tokenizer.fingerprint()
    texts = ["the river", "tokens and words"]
    for ours, theirs in zip(
        small.tokenizer.encode(texts, 64), model.tokenizer.encode(texts, 64), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    pretrained.save_hugging_face(tmp_path / "hf", small)  # others read only the plain file
    plain = (tiny_dir / "tokenizer.json").read_bytes()
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == plain
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(ValueError, match="tokenizer.json.gz cannot be read, is it complete"):
        pretrained.load(tmp_path / "small")


def test_int8_is_small_and_close(model, tmp_path):
    size = pretrained.save_int8(tmp_path / "small", model)
    small = pretrained.load(tmp_path / "small")
    full_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    assert size < 0.45 * full_bytes  # toy matrices are narrow; real ones come to 0.26
    flat, want = sharding.flatten(small.params), sharding.flatten(model.params)
    for path, leaf in flat.items():
        # Half a step of 1/127 of the row's largest weight, and float16's own rounding.
        error = np.abs(np.asarray(leaf) - np.asarray(want[path])).max()
        assert error <= np.abs(want[path]).max() * (0.5 / 127 + 1e-3), path
    np.testing.assert_array_equal(small.params["heads"]["sparse"]["kernel"].dtype, np.float32)
    (tmp_path / "small" / "model.int8.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="model.int8.safetensors cannot be read"):
        pretrained.load(tmp_path / "small")


def test_int8_stores_repeated_positions_once(model, tmp_path):
    params, config = extend_positions(model.params, model.config, 2000)
    longer = dataclasses.replace(model, params=params, config=config)
    sizes = [pretrained.save_int8(tmp_path / n, m) for n, m in (("a", model), ("b", longer))]
    assert sizes[1] - sizes[0] < 200  # bytes: a few names, not 1,870 rows
    table = pretrained.load(tmp_path / "b").params["encoder"]["embeddings"]["position"]
    short = pretrained.load(tmp_path / "a").params["encoder"]["embeddings"]["position"]
    want, _ = extend_positions({"encoder": {"embeddings": {"position": short}}}, model.config, 2000)
    np.testing.assert_array_equal(table, want["encoder"]["embeddings"]["position"])
