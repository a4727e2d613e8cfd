"""Distillation of mean pooling into [CLS], to start dense training from a mean-pooled embedder."""

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

MAX_TEXTS = 24  # per packed row
PACK_BLOCK = 4096  # texts packed at a time
CENTER_BATCHES = 4  # first batches that the center of the mean vectors is estimated from


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLSFromMeanOptions:
    """Hyper-parameters of `distill_mean_pooling`."""

    freeze_layers: int = 0  # lowest layers to freeze, besides the embeddings
    learning_rate: float = 3e-4
    width: int = 256  # tokens of a packed row; longer texts are truncated
    rows: int = 16  # packed rows per step
    seed: int = 0


def distill_mean_pooling(
    params: Params,
    config: M3Config,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    options: CLSFromMeanOptions = CLSFromMeanOptions(),
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Params:
    """Trains the [CLS] vector of `params` to match the mean of all tokens; unlabeled, one epoch.

    loss = 1 - <e, normalize(m - mean m)>, with e the normalized [CLS] vector and m the normalized
    mean over the tokens of the initial model. The vectors of mean-pooled embedders are concentrated
    around one direction; subtracting their mean keeps their ranking nearly the same and enlarges
    their differences. The embeddings are frozen. Calls `progress(step, steps, loss)` after every
    step. Raises ValueError if the texts do not fill one step.
    """
    width, rows = options.width, options.rows
    token_ids = tokenizer.encode(texts, min(width, config.encoder.max_length))
    plan = _plan(token_ids, options)
    if not plan:
        raise ValueError(
            f"{len(texts)} texts do not fill one step of {rows} rows of {width} tokens"
        )
    settings = OptimizerConfig(
        learning_rate=options.learning_rate,
        schedule="cosine",
        freeze_embeddings=True,
        freeze_layers=options.freeze_layers,
    )
    params = jax.tree.map(jnp.asarray, params)
    trained, frozen = split_params(params, settings, None)
    optimizer = make_optimizer(settings, make_schedule(settings, len(plan)))
    mean_of = jax.jit(functools.partial(_vectors, config=config, pooling="mean"))
    update = _make_update(config, optimizer, options.freeze_layers)
    batches = list(_batches(token_ids, plan, width, config.encoder.pad_id))
    first = batches[:CENTER_BATCHES]
    center = _center([mean_of(params, batch) for batch in first], first)
    state = optimizer.init(trained)
    for step, batch in enumerate(batches, start=1):
        target = normalize(mean_of(params, batch) - center)
        trained, state, loss = update(trained, frozen, state, batch, target)
        progress(step, len(batches), float(loss))
    return join_params(trained, frozen)


def _vectors(
    params: Params, batch: TextBatch, config: M3Config, pooling: str, frozen_layers: int = 0
) -> Float[Array, "n m d"]:
    """One unit vector per text."""
    compute = dataclasses.replace(PLAIN, frozen_layers=frozen_layers)
    return normalize(pool(hidden_states(params, batch, config, compute), batch, pooling))


def _make_update(
    config: M3Config, optimizer: optax.GradientTransformation, frozen_layers: int
) -> Callable[..., tuple[Params, optax.OptState, jax.Array]]:
    """The compiled step: (trained, frozen, state, batch, target) to (trained, state, loss)."""

    @jax.jit
    def update(trained, frozen, state, batch, target):
        def loss_of(trained):
            cls = _vectors(join_params(trained, frozen), batch, config, "cls", frozen_layers)
            is_real = (jnp.asarray(batch.lengths) > 0).astype(jnp.float32)
            return jnp.sum(is_real * (1.0 - jnp.sum(cls * target, axis=-1))) / jnp.sum(is_real)

        loss, gradient = jax.value_and_grad(loss_of)(trained)
        changes, state = optimizer.update(gradient, state, trained)
        return optax.apply_updates(trained, changes), state, loss

    return update


def _plan(token_ids: Sequence[np.ndarray], options: CLSFromMeanOptions) -> list[list[list[int]]]:
    """The packed rows of each full step; each step has texts of all lengths.

    Texts are packed in blocks, because the time to pack grows with the square of their number.
    """
    rows = options.rows
    random = np.random.default_rng(options.seed)
    texts, packed = random.permutation(len(token_ids)).tolist(), []
    for start in range(0, len(texts), PACK_BLOCK):
        block = texts[start : start + PACK_BLOCK]
        lengths = [len(token_ids[text]) for text in block]
        block_rows = pack_texts(lengths, options.width, MAX_TEXTS)
        packed += [[block[number] for number in row] for row in block_rows]
    order = random.permutation(len(packed))
    return [
        [packed[row] for row in order[start : start + rows]]
        for start in range(0, len(packed) - rows + 1, rows)
    ]


def _batches(
    token_ids: Sequence[np.ndarray], plan: list[list[list[int]]], width: int, pad_id: int
) -> Iterator[TextBatch]:
    for rows in plan:
        yield rows_of_tokens(token_ids, rows, width, pad_id=pad_id, segments=MAX_TEXTS)[0]


def _center(vectors: Sequence[jax.Array], batches: Sequence[TextBatch]) -> Float[Array, "1 1 d"]:
    """The mean of the vectors of all texts."""
    selected = [
        np.asarray(each)[np.asarray(batch.lengths) > 0]
        for each, batch in zip(vectors, batches, strict=True)
    ]
    return jnp.asarray(np.concatenate(selected).mean(axis=0))[None, None]
