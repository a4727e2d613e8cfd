"""Damaged checkpoints are refused."""

import pytest

from m3jax import checkpoint, pretrained


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
