"""Model directories: their tensors, copies and edits."""

import json

import numpy as np
import torch
from safetensors.numpy import load_file


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


def copy(source, target):
    import shutil

    return shutil.copytree(source, target)


def edit_json(path, **changes):
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
