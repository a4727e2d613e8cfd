"""Models by name or directory: resolving, saving, fingerprints."""

import pytest

from m3jax import pretrained, sharding


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

    for file in (
        "pytorch_model.bin",
        "colbert_linear.pt",
        "sparse_linear.pt",
        "tokenizer.json",
        "1_Pooling/config.json",
        "sentencepiece.bpe.model",
    ):
        assert any(fnmatch(file, pattern) for pattern in asked["patterns"]), file

    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match="could not be downloaded .*no route"):
        pretrained.load("BAAI/bge-m3")


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


def test_fingerprint_names_weights_not_files(model, tmp_path):
    pretrained.save(tmp_path / "ours", model)
    again = pretrained.load(tmp_path / "ours")
    mark = pretrained.fingerprint(model.params, model.config)
    assert mark == pretrained.fingerprint(again.params, again.config)
    other = sharding.map_params(lambda p, x: x + float(p == "heads/sparse/bias"), model.params)
    assert mark != pretrained.fingerprint(other, model.config)
