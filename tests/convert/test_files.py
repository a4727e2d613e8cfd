"""Conversion: bit-exact both ways, strict about names and shapes, nothing half-written."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.tiny import TEXTS, write_tiny_model

from m3jax import M3Embedder, checkpoint, pretrained, sharding
from m3jax.cli.main import main
from m3jax.convert.heads import fit_sparse_head
from m3jax.convert.names import ENCODER_ROWS, Source, from_torch
from m3jax.convert.positions import extend_positions
from m3jax.convert.reference import Outputs, differences


@pytest.fixture(scope="module")
def model(tiny_dir):
    return pretrained.load(tiny_dir)


def state(directory) -> dict[str, np.ndarray]:
    """Every tensor of a Hugging Face directory."""
    tensors = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(file)
    for file in sorted(directory.glob("*.pt")):
        loaded = torch.load(file, weights_only=True)
        tensors |= {f"{file.stem}.{k}": v.float().numpy() for k, v in loaded.items()}
    return tensors


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        assert np.asarray(a[name]).tobytes() == np.asarray(b[name]).tobytes(), name


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


@pytest.mark.parametrize(
    ("change", "message"),
    [("extra", "holds encoder.layer.3"), ("missing", "lacks encoder.layer.1"), ("shape", "shape")],
)
def test_any_other_set_of_tensors_is_refused(tiny_dir, model, change, message):
    tensors = load_file(tiny_dir / "model.safetensors")
    name = "encoder.layer.1.intermediate.dense.weight"
    if change == "extra":
        tensors["encoder.layer.3.intermediate.dense.weight"] = tensors[name]
    elif change == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:-1]
    source = Source(tensors, lambda n: tensors[n], "here")
    with pytest.raises((KeyError, ValueError), match=message):
        list(from_torch(source, model.config, ENCODER_ROWS))


def copy(source, target):
    import shutil

    return shutil.copytree(source, target)


def edit_json(path, **changes):
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


BAD = {
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "broken config": (lambda d: (d / "config.json").write_text("{"), "config.json is not valid"),
    "another model": (lambda d: edit_json(d / "config.json", model_type="bert"), "model_type"),
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
        "pools by",
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


def test_names_that_are_no_model():
    with pytest.raises(FileNotFoundError, match="not a directory, not a bundled model"):
        pretrained.load("/nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="not a directory"):
        pretrained.load("m3-unknown")
    with pytest.raises(ValueError, match="is a file"):
        pretrained.load(__file__)


def test_hub_names_go_to_the_hub_with_the_files_that_bge_m3_has(monkeypatch, tiny_dir):
    import huggingface_hub

    asked = {}

    def download(name, allow_patterns, ignore_patterns, cache_dir):
        asked.update(name=name, patterns=allow_patterns)
        return str(tiny_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert pretrained.load("BAAI/bge-m3").config.colbert_dim == 32
    assert asked["name"] == "BAAI/bge-m3"
    from fnmatch import fnmatch

    for file in ("pytorch_model.bin", "colbert_linear.pt", "sparse_linear.pt", "tokenizer.json",
                 "1_Pooling/config.json", "sentencepiece.bpe.model"):  # fmt: skip
        assert any(fnmatch(file, pattern) for pattern in asked["patterns"]), file

    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match="could not be fetched .*no route"):
        pretrained.load("BAAI/bge-m3")


def test_a_model_without_heads_gets_fresh_ones_and_says_so(tmp_path, caplog):
    write_tiny_model(tmp_path / "plain", heads=False)
    with caplog.at_level("WARNING"):
        model = pretrained.load(tmp_path / "plain")
    assert "train them before use" in caplog.text and model.notes
    np.testing.assert_array_equal(model.params["heads"]["colbert"]["kernel"], np.eye(32))
    again = pretrained.load(tmp_path / "plain")
    assert_same_bits(sharding.flatten(model.params), sharding.flatten(again.params))


def test_heads_that_were_never_trained_stay_known_as_such(tmp_path, capsys):
    """Whatever is written from an encoder without heads does not pass for a whole model."""
    write_tiny_model(tmp_path / "plain", heads=False)
    assert main(["convert", "from-hf", str(tmp_path / "plain"), str(tmp_path / "ours")]) == 0
    assert main(["convert", "extend-positions", str(tmp_path / "plain"), str(tmp_path / "long"),
                 "--to", "258"]) == 0  # fmt: skip
    assert not list((tmp_path / "long").glob("*.pt"))
    for name in ("ours", "long"):
        assert "never trained" in pretrained.load(tmp_path / name).notes[0]
        made = str(tmp_path / f"{name}2")
        assert main(["convert", "init-heads", str(tmp_path / name), made]) == 0
        assert not pretrained.load(made).notes


def test_what_is_no_number_differs():
    good = Outputs([np.ones(2)], [{5: 1.0}], [np.ones((1, 2))])
    bad = Outputs([np.array([1.0, np.nan])], [{5: float("nan")}], [np.full((1, 2), np.nan)])
    assert differences(good, good) == {"dense": 0.0, "sparse": 0.0, "colbert": 0.0}
    assert set(differences(good, bad).values()) == {np.inf}


def test_fitted_token_weights_follow_rarity(tmp_path):
    write_tiny_model(tmp_path / "plain", heads=False)
    model = pretrained.load(tmp_path / "plain")
    texts = ["the cat sat", "the dog sat", "the fox sat", "the owl sat"] * 4
    params = fit_sparse_head(model.params, model.config, model.tokenizer, texts)
    out = M3Embedder(dataclasses.replace(model, params=params)).encode(texts[0], return_sparse=True)
    spelt = {
        model.tokenizer.token(int(token)): weight
        for token, weight in out["lexical_weights"].items()
    }
    common = max((spelt.get(piece, 0.0) for piece in ("▁the", "▁sat")), default=0.0)
    rare = [w for piece, w in spelt.items() if piece not in ("▁the", "▁sat")]
    assert rare and common < 0.05 < max(rare) < 0.5


def test_colbert_width_comes_from_the_head(tmp_path):
    write_tiny_model(tmp_path / "narrow", colbert_dim=8)
    model = M3Embedder.from_pretrained(tmp_path / "narrow")
    out = model.encode(TEXTS[0], return_colbert_vecs=True)
    assert out["colbert_vecs"].shape[1] == 8
    pretrained.save_hugging_face(tmp_path / "out", model.encoder.model)
    assert_same_bits(state(tmp_path / "narrow"), state(tmp_path / "out"))


def test_longer_positions_leave_old_lengths_alone(model, tmp_path):
    params, config = extend_positions(model.params, model.config, 402)
    longer = M3Embedder(dataclasses.replace(model, params=params, config=config))
    old = M3Embedder(model)
    a, b = (
        m.encode(TEXTS, max_length=128, return_sparse=True, return_colbert_vecs=True)
        for m in (old, longer)
    )
    np.testing.assert_allclose(a["dense_vecs"], b["dense_vecs"], atol=1e-6)
    table = params["encoder"]["embeddings"]["position"]
    np.testing.assert_array_equal(table[:130], model.params["encoder"]["embeddings"]["position"])
    np.testing.assert_array_equal(table[130], table[2])
    np.testing.assert_array_equal(table[401], table[2 + 399 % 128])
    pretrained.save_hugging_face(tmp_path / "long", longer.encoder.model)
    settings = json.loads((tmp_path / "long" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 400
    assert longer.encode("word " * 500, max_length=400)["dense_vecs"].shape == (32,)
    with pytest.raises(ValueError, match="130 rows already"):
        extend_positions(model.params, model.config, 130)


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


def test_bundled_names_resolve_inside_the_package(model, tmp_path, monkeypatch):
    pretrained.save_int8(tmp_path / "assets" / "m3-toy", model)
    monkeypatch.setattr(pretrained.resources, "files", lambda _: tmp_path)
    assert pretrained.bundled_names() == ["m3-toy"]
    assert pretrained.load("m3-toy").config == model.config


def test_nothing_half_written_is_left(model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(pretrained.checkpoint, "write_metadata", fail)
    with pytest.raises(OSError, match="disk full"):
        pretrained.save(tmp_path / "ours", model)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_in_it_is_not_overwritten(model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for save in (pretrained.save, pretrained.save_hugging_face, pretrained.save_int8):
        with pytest.raises(FileExistsError, match="already exists"):
            save(tmp_path / "mine", model)
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_damaged_checkpoints_of_ours_are_refused(model, tmp_path):
    pretrained.save(tmp_path / "ours", model)
    metadata = tmp_path / "ours" / checkpoint.METADATA
    good = metadata.read_text()
    metadata.write_text(good.replace('"version": 1', '"version": 9'))
    with pytest.raises(ValueError, match="version 9"):
        pretrained.load(tmp_path / "ours")
    metadata.write_text(good.replace('"layers": 3', '"layers": 2'))
    with pytest.raises(ValueError, match=r"is \(3, 32.*expected \(2, 32"):
        pretrained.load(tmp_path / "ours")
    metadata.write_text(good)
    import shutil

    shutil.rmtree(tmp_path / "ours" / checkpoint.ARRAYS)
    with pytest.raises(FileNotFoundError, match="not a complete checkpoint"):
        pretrained.load(tmp_path / "ours")


def test_fingerprint_names_weights_not_files(model, tmp_path):
    pretrained.save(tmp_path / "ours", model)
    again = pretrained.load(tmp_path / "ours")
    mark = pretrained.fingerprint(model.params, model.config)
    assert mark == pretrained.fingerprint(again.params, again.config)
    other = sharding.map_params(lambda p, x: x + float(p == "heads/sparse/bias"), model.params)
    assert mark != pretrained.fingerprint(other, model.config)
