"""Merging: the mean of fine-tuned models; equal parameters unchanged; other models refused."""

import dataclasses

import numpy as np
import pytest
from support.tiny import write_tiny_model

from m3jax import pretrained
from m3jax.cli.main import main
from m3jax.config import HeadWeights
from m3jax.convert.merge import merge_params
from m3jax.sharding import flatten


def moved(params: dict, by: float) -> dict:
    """Heads moved, the encoder as it was."""
    heads = {
        head: {name: np.asarray(leaf) + by for name, leaf in leaves.items()}
        for head, leaves in params["heads"].items()
    }
    return params | {"heads": heads}


def test_the_mean_moves_what_differs_and_keeps_what_is_equal(tiny_dir):
    params = pretrained.load(tiny_dir).params
    merged = merge_params(
        [lambda by=by: moved(params, by) for by in (0.0, 1.0, 0.5)], [2.0, 1.0, 1.0]
    )
    for name, leaf in flatten(merged).items():
        before = np.asarray(flatten(params)[name])
        if name.startswith("heads"):
            np.testing.assert_allclose(leaf, before + 0.375, rtol=1e-5)
        else:
            np.testing.assert_array_equal(leaf, before)


def test_the_command_merges_in_the_format_of_the_first(tiny_dir, tmp_path, capsys):
    model = pretrained.load(tiny_dir)
    ours = dataclasses.replace(model, params=moved(model.params, 2.0))
    pretrained.save(tmp_path / "ours", ours)
    command = ["convert", "merge", str(tiny_dir), str(tmp_path / "ours"), str(tmp_path / "merged")]
    assert main([*command, "--weights", "3,1"]) == 0
    assert "the mean of 2 models" in capsys.readouterr().out
    assert (tmp_path / "merged" / "config.json").is_file()
    merged = flatten(pretrained.load(tmp_path / "merged").params)
    for name, leaf in flatten(moved(model.params, 0.5)).items():
        np.testing.assert_allclose(merged[name], leaf, rtol=1e-5, atol=1e-6)


def test_the_command_reports_which_fusion_weights_are_kept(tiny_dir, tmp_path, capsys):
    tuned = HeadWeights(dense=0.25, sparse=0.25, colbert=0.5)
    ours = dataclasses.replace(pretrained.load(tiny_dir), fusion={"all": tuned})
    pretrained.save(tmp_path / "ours", ours)
    sources = [str(tmp_path / "ours"), str(tiny_dir)]
    assert main(["convert", "merge", *sources, str(tmp_path / "a")]) == 0
    assert f"those of {sources[0]} (all 0.25,0.25,0.5)" in capsys.readouterr().out
    assert pretrained.read_fusion(tmp_path / "a") == {"all": tuned}
    assert main(["convert", "merge", *reversed(sources), str(tmp_path / "b")]) == 0
    assert f"none, as {tiny_dir} has none" in capsys.readouterr().out


def test_what_cannot_be_merged_is_refused(tiny_dir, tmp_path, capsys):
    write_tiny_model(tmp_path / "longer", max_positions=514)
    write_tiny_model(tmp_path / "plain", heads=False)

    def refused(*sources: object, weights: str = "") -> str:
        more = ["--weights", weights] if weights else []
        assert main(["convert", "merge", *map(str, sources), str(tmp_path / "out"), *more]) == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert f"{tmp_path / 'longer'} and" in refused(tiny_dir, tmp_path / "longer")
    assert "plain has no heads" in refused(tiny_dir, tmp_path / "plain")
    assert "1 models and 1 weights" in refused(tiny_dir)
    assert "2 models and 3 weights" in refused(tiny_dir, tiny_dir, weights="1,1,1")
    assert "numbers separated by commas, got '1;1'" in refused(tiny_dir, tiny_dir, weights="1;1")
    with pytest.raises(ValueError, match="positive sum"):
        merge_params([dict, dict], [1.0, -1.0])
    with pytest.raises(ValueError, match=r"parameter a: \(2,\) and \(3,\)"):
        merge_params([lambda: {"a": np.ones(2)}, lambda: {"a": np.ones(3)}], [1.0, 1.0])
