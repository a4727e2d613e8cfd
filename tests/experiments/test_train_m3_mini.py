"""The recipe of the small model runs from the backbone to the bundle, on a handful of examples."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from m3jax import M3Embedder

SCRIPT = Path(__file__).parents[2] / "experiments" / "train_m3_mini.py"


@pytest.mark.slow
def test_every_step_leaves_what_the_next_one_takes(backbone_dir, data_dir, tmp_path):
    command = [
        sys.executable,
        str(SCRIPT),
        "--backbone",
        str(backbone_dir),
        "--data",
        str(data_dir / "train"),
        "--workdir",
        str(tmp_path),
        "--smoke",
    ]
    subprocess.run(command, check=True)
    model = M3Embedder.from_pretrained(tmp_path / "m3-mini")
    assert model.config.encoder.max_length == 8192
    texts = ["Wo schlafen Füchse?", "狐はどこで眠りますか。", "Where do foxes sleep?"]
    out = model.encode(texts, return_sparse=True, return_colbert_vecs=True)
    np.testing.assert_allclose(np.linalg.norm(out["dense_vecs"], axis=1), 1.0, atol=1e-5)
    assert all(out["lexical_weights"]) and all(len(vecs) > 1 for vecs in out["colbert_vecs"])
    # Run again, it finds every step done.
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "--" not in again.stdout
