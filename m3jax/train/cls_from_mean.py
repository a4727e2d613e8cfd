"""[CLS] learns what the mean of all tokens knows: a mean-pooled embedder becomes a dense head."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from m3jax.config import M3Config, OptimizerConfig
from m3jax.model.heads import normalize, pool
from m3jax.model.m3 import PLAIN, Params, hidden_states
from m3jax.text.batches import rows_of_tokens
from m3jax.text.packing import pack_texts
from m3jax.text.tokenizer import Tokenizer
from m3jax.train.optimizer import join_params, make_optimizer, make_schedule, split_params
from m3jax.types import TextBatch

SEGMENTS = 24  # texts of a row, at most
PACKED = 4096  # texts packed together
CENTRE_BATCHES = 4  # that the mean of the means is taken from


def cls_from_mean(
    params: Params,
    config: M3Config,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    freeze_layers: int = 0,
    learning_rate: float = 3e-4,
    width: int = 256,
    rows: int = 16,
    seed: int = 0,
    tell: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Params:
    """`params` whose [CLS] vector points where the mean of all tokens did; no labels, one epoch.

    loss = 1 - <e, normalise(m - mean m)>, e the normalised [CLS] that trains, m the normalised mean
    over the tokens of `params` as they came. The vectors of mean-pooled embedders lie in a narrow
    cone; without its axis their order is about the same and their differences are larger. Texts are
    cut at `width` tokens, `rows` rows of them are a step; embeddings and `freeze_layers` stay.
    `tell` hears (step, steps, loss). Raises ValueError for fewer texts than one step takes.
    """
    token_ids = tokenizer.encode(texts, min(width, config.encoder.max_length))
    plan = _plan(token_ids, width, rows, seed)
    if not plan:
        raise ValueError(f"{len(texts)} texts do not fill one step of {rows} rows of {width}")
    settings = OptimizerConfig(
        learning_rate=learning_rate,
        schedule="cosine",
        freeze_embeddings=True,
        freeze_layers=freeze_layers,
    )
    params = jax.tree.map(jnp.asarray, params)
    trained, frozen = split_params(params, settings, None)
    optimizer = make_optimizer(settings, make_schedule(settings, len(plan)))
    mean_of = jax.jit(functools.partial(_vectors, config=config, pooling="mean"))
    update = _make_update(config, optimizer, freeze_layers)
    batches = list(_batches(token_ids, plan, width, config.encoder.pad_id))
    first = batches[:CENTRE_BATCHES]
    centre = _centre([mean_of(params, batch) for batch in first], first)
    # Optax counts steps in integers and raises floats to them.
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(trained)
        for step, batch in enumerate(batches, start=1):
            target = normalize(mean_of(params, batch) - centre)
            trained, state, loss = update(trained, frozen, state, batch, target)
            tell(step, len(batches), float(loss))
    return join_params(trained, frozen)


def _vectors(
    params: Params, batch: TextBatch, config: M3Config, pooling: str, frozen_layers: int = 0
) -> Float[Array, "n m d"]:
    """One unit vector a text."""
    compute = dataclasses.replace(PLAIN, frozen_layers=frozen_layers)
    return normalize(pool(hidden_states(params, batch, config, compute), batch, pooling))


def _make_update(
    config: M3Config, optimizer: optax.GradientTransformation, frozen_layers: int
) -> Callable[..., tuple[Params, optax.OptState, jax.Array]]:
    """(trained, frozen, state, batch, target) to (trained, state, loss), compiled."""

    @jax.jit
    def update(trained, frozen, state, batch, target):
        def loss_of(trained):
            own = _vectors(join_params(trained, frozen), batch, config, "cls", frozen_layers)
            real = (jnp.asarray(batch.lengths) > 0).astype(jnp.float32)
            return jnp.sum(real * (1.0 - jnp.sum(own * target, axis=-1))) / jnp.sum(real)

        loss, gradient = jax.value_and_grad(loss_of)(trained)
        changes, state = optimizer.update(gradient, state, trained)
        return optax.apply_updates(trained, changes), state, loss

    return update


def _plan(
    token_ids: Sequence[np.ndarray], width: int, rows: int, seed: int
) -> list[list[list[int]]]:
    """Full steps of packed rows, texts of all lengths in each; packed some at a time, as the time
    to pack grows with the square of their number."""
    random = np.random.default_rng(seed)
    texts, packed = random.permutation(len(token_ids)).tolist(), []
    for start in range(0, len(texts), PACKED):
        here = texts[start : start + PACKED]
        found = pack_texts([len(token_ids[text]) for text in here], width, SEGMENTS)
        packed += [[here[number] for number in row] for row in found]
    order = random.permutation(len(packed))
    return [
        [packed[row] for row in order[start : start + rows]]
        for start in range(0, len(packed) - rows + 1, rows)
    ]


def _batches(
    token_ids: Sequence[np.ndarray], plan: list[list[list[int]]], width: int, pad_id: int
) -> Iterator[TextBatch]:
    for rows in plan:
        yield rows_of_tokens(token_ids, rows, width, pad_id=pad_id, segments=SEGMENTS)[0]


def _centre(vectors: Sequence[jax.Array], batches: Sequence[TextBatch]) -> Float[Array, "1 1 d"]:
    """The mean of the vectors of all texts."""
    found = [
        np.asarray(part)[np.asarray(batch.lengths) > 0]
        for part, batch in zip(vectors, batches, strict=True)
    ]
    return jnp.asarray(np.concatenate(found).mean(axis=0))[None, None]
