"""Batches of odd texts, and loss and gradients of a model on them."""

import jax
import numpy as np
from support.tiny import TEXTS

from m3jax.config import LossConfig
from m3jax.text.batches import rows_of_tokens
from m3jax.train.objectives import (
    ObjectiveOptions,
    TrainBatch,
    objective,
)
from m3jax.types import Targets

CONTRASTIVE = LossConfig(heads=("dense",), self_distill=False)
HEAD_ONLY = LossConfig(heads=("sparse", "colbert"), fix_encoder=True)
FINETUNE = LossConfig(self_distill_start=0, mask_duplicates=False, padding_competes=True)


def make_batch(model, queries=4, group=2, teacher=False, in_batch=True) -> TrainBatch:
    """Texts with repeated words, special tokens spelt out and many lengths."""
    texts = [text for text in TEXTS if text]
    asked = [texts[i % len(texts)] for i in range(queries)]
    passages = [f"{texts[(3 * i + 1) % len(texts)]} {i}" for i in range(queries * group)]
    rng = np.random.default_rng(0)
    given = -np.sort(-rng.normal(size=(queries, group)).astype(np.float32)) if teacher else None

    def lay_out(texts, width):
        ids = model.tokenizer.encode(texts, width)
        return rows_of_tokens(ids, [[i] for i in range(len(ids))], width, pad_id=1)[0]

    return TrainBatch(
        lay_out(asked, 32),
        lay_out(passages, 64),
        Targets(np.full(queries, in_batch), passage_keys(passages), given),
    )


def passage_keys(texts: list[str]) -> np.ndarray:
    """Equal numbers for equal texts, for `Targets.passage_keys`."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int32)


def value_and_grad(model, batch, config, **more):
    options = ObjectiveOptions(model.config, config, **more)

    def loss(params):
        return objective(params, batch, options, 0)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)
