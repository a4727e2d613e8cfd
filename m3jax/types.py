"""The two values that travel between rooms, and the letters of their shapes.

Dimension key, the same letters in einsum strings and in jaxtyping annotations:

    n  rows of a batch           m  texts in a row (1 when rows are padded, more when packed)
    b  queries in a batch        p  passages = queries x passages per query
    s  sequence (query side)     t  sequence (passage or key side)
    d  hidden                    h  heads            k  width of a head
    f  feed-forward              c  ColBERT width    v  vocabulary        l  layers

Both are named tuples: plain pytrees for JAX, and importable where JAX must not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import jax
    import numpy as np
    from jaxtyping import Bool, Float, Int

    Array = jax.Array | np.ndarray


class TextBatch(NamedTuple):
    """Rows of tokens, padded (one text a row) or packed (several), through one interface.

    `lengths` says by its shape which of the two it is: [n, 1] is padded.
    """

    token_ids: Int[Array, "n s"]
    positions: Int[Array, "n s"]  # rows of the position table; they restart with every text
    segment_ids: Int[Array, "n s"]  # 0 where padded, else 1, 2, ...: the text's number in its row
    anchors: Bool[Array, "n s"]  # the [CLS] tokens: the first of a text, and those MCLS inserts
    lengths: Int[Array, "n m"]  # tokens of each text of a row, 0 where there is none


class Encoding(NamedTuple):
    """The three representations of the texts of a `TextBatch`; None where not asked for.

    `sparse` and `colbert` belong to tokens; `mask` marks the tokens whose vector counts.
    """

    dense: Float[Array, "n m d"] | None
    sparse: Float[Array, "n s"] | None  # 0 on padding and special tokens
    colbert: Float[Array, "n s c"] | None  # 0 where `mask` is False
    mask: Bool[Array, "n s"]  # every real token but a text's [CLS]
