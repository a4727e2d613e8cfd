"""A longer position table, so that a model accepts longer texts.

XLM-R has 514 rows, BGE-M3 8,194; how the new rows were initialised is not published. Here they
repeat the learned ones periodically: row r is row r - (old length). Each new position then starts
as a learned vector, and adjacent rows stay adjacent. Training changes them.
"""

import dataclasses
from typing import Any

import numpy as np

from m3jax.config import M3Config
from m3jax.model.families import family_of
from m3jax.sharding import flatten, unflatten


def extend_positions(
    params: dict[str, Any], config: M3Config, rows: int
) -> tuple[dict[str, Any], M3Config]:
    """The model with a position table of `rows` rows; outputs up to the old length are unchanged.

    Raises ValueError if `rows` does not exceed the present number.
    """
    encoder = config.encoder
    if rows <= encoder.max_positions:
        raise ValueError(
            f"the position table has {encoder.max_positions} rows already; --to must exceed that"
        )
    first = encoder.pad_id + 1
    flat = flatten(params)
    path = family_of(encoder).table("r")
    old = np.asarray(flat[path])
    source = first + np.arange(rows - first) % encoder.max_length
    table = np.concatenate([old[:first], old[source]])
    new_params = unflatten(flat | {path: table})
    new_encoder = dataclasses.replace(encoder, max_positions=rows)
    return new_params, dataclasses.replace(config, encoder=new_encoder)
