"""Batches of odd texts, and loss and gradients of a model on them."""

import jax
import numpy as np
from support.tiny import TEXTS

from m3jax.config import LossConfig
from m3jax.text.batches import rows_of_tokens
from m3jax.train.objectives import (
    TrainBatch,
    objective,
    passage_keys,
)
from m3jax.types import Targets

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


def value_and_grad(model, batch, config, **options):
    def loss(params):
        return objective(params, batch, model.config, config, 0, **options)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)
