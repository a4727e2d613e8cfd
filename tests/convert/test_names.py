"""Tensors of another name, number or shape are refused."""

import pytest
from safetensors.numpy import load_file

from m3jax.convert.names import TorchCheckpoint, from_torch
from m3jax.model.xlm_roberta import XLM_ROBERTA


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
    source = TorchCheckpoint(tensors, lambda n: tensors[n], "here")
    with pytest.raises((KeyError, ValueError), match=message):
        list(from_torch(source, model.config, XLM_ROBERTA.parameters))
