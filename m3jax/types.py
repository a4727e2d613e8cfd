"""The values that rooms exchange, and the letters of their shapes.

Dimension key, the same letters in einsum strings and in jaxtyping annotations:

    n  rows of a batch           m  texts in a row (1 when rows are padded, more when packed)
    b  queries in a batch        p  passages = queries x passages per query
    s  sequence (query side)     t  sequence (passage or key side)
    d  hidden                    h  heads            k  width of a head
    f  feed-forward              c  ColBERT width    v  vocabulary        l  layers

All are named tuples: pytrees for JAX. This module does not import JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import jax
    import numpy as np
    from jaxtyping import Bool, Float, Int

    Array = jax.Array
    Either = jax.Array | np.ndarray  # made on the host, then moved to the devices

# Bits of the `flags` of a training example, as stored in flags.npy.
IN_BATCH = 1  # the passages of other queries may serve as negatives
HAS_SCORES = 2  # every passage has a teacher score


class TextBatch(NamedTuple):
    """Rows of tokens, padded (one text per row) or packed (several texts per row).

    The shape of `lengths` tells them apart: [n, 1] is padded.
    """

    token_ids: Int[Either, "n s"]
    positions: Int[Either, "n s"]  # rows of the position table; they restart with each text
    segment_ids: Int[Either, "n s"]  # 0 for padding, else 1, 2, ...: the text's number in its row
    is_cls: Bool[Either, "n s"]  # the [CLS] tokens: the first of each text, and those of MCLS
    lengths: Int[Either, "n m"]  # tokens of each text of a row, 0 for no text


class Encoding(NamedTuple):
    """The three representations of the texts of a `TextBatch`; None for those not computed.

    `sparse` and `colbert` have one value per token; `mask` marks the tokens whose vector counts.
    """

    dense: Float[Array, "n m d"] | None
    sparse: Float[Array, "n s"] | None  # 0 on padding and special tokens
    colbert: Float[Array, "n s c"] | None  # 0 where `mask` is False
    mask: Bool[Array, "n s"]  # all tokens but padding and [CLS]


class Scores(NamedTuple):
    """The score of every query and passage by each head; None for a head that is not trained.

    *Logits* are scores divided by the temperature; everything in `losses` takes logits.
    """

    dense: Float[Array, "b p"] | None
    sparse: Float[Array, "b p"] | None
    colbert: Float[Array, "b p"] | None


class Targets(NamedTuple):
    """Which passages are positives and negatives of each query, and the teacher's scores.

    Passages are in groups of g, in the order of the queries: those of query i are
    i * g ... i * g + g - 1, the positive first.
    """

    in_batch: Bool[Either, " b"]  # may the passages of other queries serve as negatives?
    passage_keys: Int[Either, " p"]  # hash of each passage's text: equal texts have equal keys
    teacher_scores: Float[Either, "b g"] | None = None  # a re-ranker's, per passage of the group
    is_real: Bool[Either, " b"] | None = None  # False for padding queries; None: all are real


class PackedTexts(NamedTuple):
    """Queries and passages packed together into `rows`, and the index of each text and token.

    Row i of `queries` (or `passages`) of the `TrainBatch` is the text at `*_text_index[i]` of the
    [n, m] texts of `rows`, flattened; its tokens are at `*_token_index[i]` of the [n, s] tokens,
    flattened. A text is packed on the device that holds its row i, so that unpacking needs no
    communication.
    """

    rows: TextBatch
    query_text_index: Int[Either, " b"]  # row * m + segment, -1 for padding queries
    passage_text_index: Int[Either, " p"]
    query_token_index: Int[Either, "b s"]  # row * width + column, -1 for padding
    passage_token_index: Int[Either, "p t"]


class TrainBatch(NamedTuple):
    """Queries, their groups of passages in the same order, and their targets.

    With `packed`, the encoder reads its rows; `queries` and `passages` then give the layout of
    the unpacked representations.
    """

    queries: TextBatch
    passages: TextBatch
    targets: Targets
    packed: PackedTexts | None = None
