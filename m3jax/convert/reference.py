"""The model in PyTorch, by the paper's formulas: the reference for converted weights.

The hidden states come from the encoder of transformers, one text at a time and so without padding.
Needs the `torch` extra.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3jax.convert.files import HEAD_FILES, has_heads, read_config, require_torch
from m3jax.model.families import family_of


class Outputs(NamedTuple):
    """The representations of texts."""

    dense: list[np.ndarray]  # [d] each
    sparse: list[dict[int, float]]  # token id -> weight > 0
    colbert: list[np.ndarray]  # [tokens - 1, c] each


def torch_outputs(directory: Path, texts: Sequence[str], max_length: int) -> Outputs:
    """Dense, sparse and multi-vector representations by PyTorch in float32 [M3 sec. 3.2]."""
    torch = require_torch("computing reference outputs")
    import transformers

    if not has_heads(directory):
        raise ValueError(f"{directory} has no heads: there is nothing to compare")
    config = read_config(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    encoder_class = getattr(transformers, family_of(config.encoder).torch_class)
    model = encoder_class.from_pretrained(directory, add_pooling_layer=False).eval().float()
    heads = {
        stem: {k: v.float() for k, v in torch.load(directory / file, weights_only=True).items()}
        for stem, file in HEAD_FILES.items()
    }
    special = {
        tokenizer.cls_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
    }
    out = Outputs([], [], [])
    with torch.no_grad():
        for text in texts:
            tokens = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state[0]
            ids = tokens["input_ids"][0].tolist()
            values = _heads(hidden, ids, heads, special, config.pooling)
            for outputs, value in zip(out, values, strict=True):
                outputs.append(value)
    return out


def _heads(hidden: Any, ids: list[int], heads: dict, special: set, pooling: str) -> tuple:
    linear = require_torch("computing reference outputs").nn.functional.linear
    normalize = require_torch("computing reference outputs").nn.functional.normalize
    dense = normalize(hidden[0] if pooling == "cls" else hidden.mean(0), dim=-1)
    weights = linear(hidden, **heads["sparse_linear"])[:, 0].relu().tolist()
    sparse: dict[int, float] = {}
    for token, weight in zip(ids, weights, strict=True):
        if token not in special and not weight <= sparse.get(token, 0.0):  # nan too
            sparse[token] = weight
    colbert = normalize(linear(hidden[1:], **heads["colbert_linear"]), dim=-1)
    return dense.numpy(), sparse, colbert.numpy()


def differences(first: Outputs, second: Outputs) -> dict[str, float]:
    """The largest absolute difference of each representation.

    A token with a weight in one model only counts with weight 0 in the other. Raises ValueError if
    shapes differ.
    """
    largest = dict.fromkeys(Outputs._fields, 0.0)
    for head in ("dense", "colbert"):
        for number, (a, b) in enumerate(
            zip(getattr(first, head), getattr(second, head), strict=True)
        ):
            if a.shape != b.shape:
                raise ValueError(f"text {number}: {head} has shape {a.shape} against {b.shape}")
            largest[head] = max(largest[head], _finite(float(np.abs(a - b).max(initial=0.0))))
    for a, b in zip(first.sparse, second.sparse, strict=True):
        for token in a.keys() | b.keys():
            gap = abs(a.get(token, 0.0) - b.get(token, 0.0))
            largest["sparse"] = max(largest["sparse"], _finite(gap))
    return largest


def _finite(gap: float) -> float:
    """`gap`, or infinity for NaN, which `max` would ignore."""
    return gap if math.isfinite(gap) else math.inf
