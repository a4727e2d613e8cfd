"""Conversion: bit-exact both ways, strict about names and shapes, nothing half-written."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.model_files import assert_same_bits, copy, edit_json, state
from support.tiny import TEXTS, write_tiny_model

from m3jax import M3Embedder, pretrained, sharding


def test_to_ours_and_back_is_the_identity(tiny_dir, model, tmp_path):
    pretrained.save(tmp_path / "ours", model)
    again = pretrained.load(tmp_path / "ours")
    assert again.config == model.config
    assert_same_bits(sharding.flatten(model.params), sharding.flatten(again.params))
    pretrained.save_hugging_face(tmp_path / "hf", again)
    assert_same_bits(state(tiny_dir), state(tmp_path / "hf"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_survives_float32(tiny_dir, model, tmp_path, dtype):
    pretrained.save_hugging_face(tmp_path / "a", model, dtype)
    pretrained.save_hugging_face(tmp_path / "b", pretrained.load(tmp_path / "a"), dtype)
    first, second = state(tmp_path / "a"), state(tmp_path / "b")
    assert_same_bits(first, second)
    assert str(first["embeddings.word_embeddings.weight"].dtype) == dtype
    full = state(tiny_dir)
    for name, tensor in first.items():
        np.testing.assert_allclose(tensor.astype(np.float32), full[name], rtol=1e-2, atol=1e-6)


def test_shards_hold_what_one_file_does(tiny_dir, model, tmp_path):
    pretrained.save_hugging_face(tmp_path / "hf", model, shard_bytes=20_000)
    files = sorted(f.name for f in (tmp_path / "hf").glob("*.safetensors"))
    assert len(files) > 2 and files[0].startswith("model-00001-of-")
    assert_same_bits(state(tiny_dir), state(tmp_path / "hf"))
    again = pretrained.load(tmp_path / "hf")
    assert_same_bits(sharding.flatten(model.params), sharding.flatten(again.params))
    import transformers

    theirs = transformers.XLMRobertaModel.from_pretrained(tmp_path / "hf", add_pooling_layer=False)
    want = state(tiny_dir)["embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(theirs.embeddings.word_embeddings.weight.detach(), want)
    (tmp_path / "hf" / files[1]).unlink()
    with pytest.raises(FileNotFoundError, match=files[1]):
        pretrained.load(tmp_path / "hf")


def test_pytorch_bin_and_masked_language_models_load(tiny_dir, model, tmp_path):
    """`pytorch_model.bin`, the prefix of XLMRobertaForMaskedLM, its head, a pooler."""
    directory = copy(tiny_dir, tmp_path / "bin")
    tensors = load_file(directory / "model.safetensors")
    old = {f"roberta.{k}": torch.from_numpy(v) for k, v in tensors.items()}
    old |= {"lm_head.bias": torch.zeros(606), "roberta.pooler.dense.weight": torch.zeros(32, 32)}
    torch.save(old, directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    assert_same_bits(
        sharding.flatten(model.params), sharding.flatten(pretrained.load(directory).params)
    )


def test_a_pickle_with_code_is_refused(tiny_dir, tmp_path):
    import pickle

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    directory = copy(tiny_dir, tmp_path / "evil")
    (directory / "sparse_linear.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="sparse_linear.pt"):
        pretrained.load(directory)
    assert not (tmp_path / "executed").exists()


BAD = {
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "broken config": (lambda d: (d / "config.json").write_text("{"), "config.json is not valid"),
    "another model": (lambda d: edit_json(d / "config.json", model_type="bert"), "'bert', m3jax"),
    "no model_type": (lambda d: edit_json(d / "config.json", model_type=None), "is None, m3jax"),
    "another activation": (lambda d: edit_json(d / "config.json", hidden_act="relu"), "hidden_act"),
    "no width": (lambda d: edit_json(d / "config.json", hidden_size=None), "lacks hidden_size"),
    "other width": (lambda d: edit_json(d / "config.json", hidden_size=64), "shape"),
    "fewer layers": (
        lambda d: edit_json(d / "config.json", num_hidden_layers=2),
        "encoder.layer.2",
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "has no weights"),
    "truncated weights": (
        lambda d: (d / "model.safetensors").write_bytes(
            (d / "model.safetensors").read_bytes()[:-100]
        ),
        "model.safetensors cannot be read, is it complete",
    ),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "has no tokenizer"),
    "one head": (lambda d: (d / "sparse_linear.pt").unlink(), "not sparse_linear.pt"),
    "wrong head": (
        lambda d: torch.save(torch.nn.Linear(31, 1).state_dict(), d / "sparse_linear.pt"),
        r"sparse_linear.weight has shape \(1, 31\), expected \(1, 32\)",
    ),
    "truncated head": (
        lambda d: (d / "sparse_linear.pt").write_bytes(b"PK\x03\x04"),
        "sparse_linear.pt cannot be read",
    ),
    "other pooling": (
        lambda d: (
            (d / "1_Pooling").mkdir(),
            (d / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}'),
        ),
        "supports pooling by",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_directory_gives_one_clear_error(tiny_dir, tmp_path, name):
    damage, message = BAD[name]
    directory = copy(tiny_dir, tmp_path / "model")
    damage(directory)
    with pytest.raises((OSError, ValueError, KeyError), match=message) as error:
        pretrained.load(directory)
    assert str(directory) in str(error.value)


def test_a_tokenizer_of_another_model_is_refused(tiny_dir, tmp_path):
    directory = copy(tiny_dir, tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    words = "embeddings.word_embeddings.weight"
    save_file(tensors | {words: tensors[words][:500].copy()}, directory / "model.safetensors")
    edit_json(directory / "config.json", vocab_size=500)
    with pytest.raises(ValueError, match="tokenizer has ids up to 599, the embedding 500 rows"):
        pretrained.load(directory)


def test_colbert_width_comes_from_the_head(tmp_path):
    write_tiny_model(tmp_path / "narrow", colbert_dim=8)
    model = M3Embedder.from_pretrained(tmp_path / "narrow")
    out = model.encode(TEXTS[0], return_colbert_vecs=True)
    assert out["colbert_vecs"].shape[1] == 8
    pretrained.save_hugging_face(tmp_path / "out", model.encoder.model)
    assert_same_bits(state(tmp_path / "narrow"), state(tmp_path / "out"))
