"""s_lex of every query and passage [M3 sec. 3.2], arXiv 2402.03216v4, without a vocabulary axis.

    b  queries    s  their tokens    p  passages    t  their tokens    u  tokens of a query block

Repeated tokens of a text are reduced to one. The matrices then have a column for each token of a
block of queries: memory is passages x tokens of the block, independent of the vocabulary's size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

QUERY_BLOCK = 16  # queries that share one set of columns


def sparse_scores(
    query_ids: Int[Array, "b s"],
    query_weights: Float[Array, "b s"],
    passage_ids: Int[Array, "p t"],
    passage_weights: Float[Array, "p t"],
    query_block: int = QUERY_BLOCK,
) -> Float[Array, "b p"]:
    """s_lex = sum over shared distinct tokens of w_q(t) w_p(t), w(t) the largest weight of token t.

    Weights must be 0 or more, and 0 for tokens that do not count (padding, special tokens). Only
    the maximum of a repeated token receives a gradient, the first of several equal ones, as with
    PyTorch's max over an axis.
    """
    queries = _distinct_weights(query_ids, query_weights)
    passages = _distinct_weights(passage_ids, passage_weights)
    b, s = query_ids.shape
    block = min(query_block, b)
    blocks = -(-b // block)
    fill = ((0, blocks * block - b), (0, 0))
    query_blocks = (
        jnp.pad(query_ids, fill).reshape(blocks, block, s),
        jnp.pad(queries, fill).reshape(blocks, block, s),  # weight 0: the id does not matter
    )

    @jax.checkpoint
    def score_block(query_block: tuple[Array, Array]) -> Array:
        return _block_scores(*query_block, passage_ids, passages)

    return jax.lax.map(score_block, query_blocks).reshape(blocks * block, -1)[:b]


def distinct_mask(token_ids: Int[Array, "n t"], weights: Float[Array, "n t"]) -> Bool[Array, "n t"]:
    """True at one occurrence of each distinct token: the first with the largest weight."""
    columns = jnp.broadcast_to(jnp.arange(token_ids.shape[1], dtype=jnp.int32), token_ids.shape)
    # Sorted by id, then by descending weight; the sort is stable, so ties keep their order.
    ids, _, order = jax.lax.sort((token_ids, -weights, columns), dimension=1, num_keys=2)
    first = jnp.concatenate([jnp.ones_like(ids[:, :1], bool), ids[:, 1:] != ids[:, :-1]], axis=1)
    rows = jnp.arange(len(token_ids), dtype=jnp.int32)[:, None]
    return jnp.zeros_like(first).at[rows, order].set(first)


def _distinct_weights(token_ids, weights):
    """Weights in float32, 0 at all but one occurrence of each distinct token."""
    weights = weights.astype(jnp.float32)
    keep = distinct_mask(token_ids, jax.lax.stop_gradient(weights))
    return jnp.where(keep, weights, 0.0)


def _block_scores(query_ids, queries, passage_ids, passages):
    """The product of [block, u] and [p, u], u the distinct ids of the block's queries."""
    columns = jnp.unique(query_ids, size=query_ids.size, fill_value=jnp.iinfo(query_ids.dtype).max)
    products = (
        _columns_of(query_ids, queries, columns),
        _columns_of(passage_ids, passages, columns),
    )
    return jnp.einsum("bu,pu->bp", *products, precision=jax.lax.Precision.HIGHEST)


def _columns_of(token_ids, weights, columns):
    """[n, u]: the weight of each column's token in each text; a text adds to a column once."""
    index = jnp.searchsorted(columns, token_ids.reshape(-1)).reshape(token_ids.shape)
    index = jnp.minimum(index, len(columns) - 1)
    weights = jnp.where(columns[index] == token_ids, weights, 0.0)
    rows = jnp.arange(len(token_ids), dtype=jnp.int32)[:, None]
    return jnp.zeros((len(token_ids), len(columns)), jnp.float32).at[rows, index].add(weights)


def flops(
    token_ids: Int[Array, "n t"],
    weights: Float[Array, "n t"],
    texts: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """The FLOPS regulariser: sum over tokens of (mean weight over `texts`, by default n) squared.

    Paria et al. 2020, arXiv 2004.05665, as in SPLADE: it lowers the number of texts per token, and
    so the length of an inverted index's posting lists.
    """
    distinct = _distinct_weights(token_ids, weights).reshape(-1)
    ids = token_ids.reshape(-1)
    _, column = jnp.unique(ids, return_inverse=True, size=ids.size)
    mean = jnp.zeros(ids.size, jnp.float32).at[column.reshape(-1)].add(distinct)
    mean = mean / (len(token_ids) if texts is None else texts)
    return jnp.sum(mean**2)


def l1(
    token_ids: Int[Array, "n t"],
    weights: Float[Array, "n t"],
    texts: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """The mean over the `texts` (by default n) of the sum of their distinct tokens' weights."""
    return jnp.sum(_distinct_weights(token_ids, weights)) / (
        len(token_ids) if texts is None else texts
    )
