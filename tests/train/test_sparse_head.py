"""The sparse head's warm-up learns, and touches nothing else."""

import dataclasses

import numpy as np
import pytest
from support.tiny import write_tiny_model

from m3jax import M3Embedder, pretrained, sharding
from m3jax.convert.heads import fit_sparse_head
from m3jax.train.sparse_head import warm_up_sparse_head


def test_the_sparse_head_warms_up_to_rank_and_nothing_else_moves(tmp_path):
    write_tiny_model(tmp_path / "plain", heads=False)
    model = pretrained.load(tmp_path / "plain")
    names = ["cat", "dog", "fox", "owl", "ant", "bee", "cow", "emu"]
    pairs = [
        (f"the the {name}", f"{other} the sat {name} on the mat")
        for name, other in zip(names, names[1:] + names[:1], strict=True)
    ]

    def margin(params) -> float:
        embedder = M3Embedder(dataclasses.replace(model, params=params))
        queries, passages = (
            embedder.encode(list(texts), return_sparse=True)["lexical_weights"]
            for texts in zip(*pairs, strict=True)
        )
        score = embedder.compute_lexical_matching_score
        table = np.array([[score(q, p) for p in passages] for q in queries])
        wrong = table[~np.eye(len(table), dtype=bool)].reshape(len(table), -1)
        return float(np.mean(np.diag(table) - wrong.max(1)))

    before = fit_sparse_head(model.params, model.config, model.tokenizer, [p for _, p in pairs])
    after = warm_up_sparse_head(before, model.config, model.tokenizer, [pairs], epochs=40)
    assert margin(after) > margin(before) + 0.01
    old, new = (sharding.flatten(params) for params in (before, after))
    moved = {name for name in old if not np.array_equal(old[name], new[name])}
    assert moved == {"heads/sparse/kernel", "heads/sparse/bias"}
    with pytest.raises(ValueError, match="two pairs or more"):
        warm_up_sparse_head(before, model.config, model.tokenizer, [pairs[:1]])
