"""Hidden states to the three representations [M3 sec. 3.2]."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m3jax.config import HEADS, M3Config
from m3jax.model.parameters import BY_OUTPUT, linear
from m3jax.types import Encoding, TextBatch

# In PyTorch each head is in a separate file, whose stem is the first part of the name here.
HEAD_PARAMETERS = (
    *linear("heads/colbert", "d c", BY_OUTPUT, "heads", "colbert_linear"),
    *linear("heads/sparse", "d 1", ("fsdp", None), "heads", "sparse_linear"),
)


class Heads(nn.Module):
    """The pooling and the two linear maps; `heads` names the representations to compute.

    dense    e = normalise(H[0])                  s_dense = <e_q, e_p>
    sparse   w_t = ReLU(W_lex H[i] + b)           special tokens and padding weigh 0
    colbert  E = normalise(W_mul H + b)           [CLS] has no vector
    """

    config: M3Config
    heads: tuple[str, ...] = HEADS

    @nn.compact
    def __call__(self, hidden: Float[Array, "n s d"], batch: TextBatch) -> Encoding:
        sparse_head = nn.Dense(1, dtype=hidden.dtype, name="sparse")
        colbert_head = nn.Dense(self.config.colbert_dim, dtype=hidden.dtype, name="colbert")
        if self.is_initializing():  # both heads have parameters, whatever is computed
            sparse_head(hidden)
            colbert_head(hidden)
        mask = token_mask(batch)
        dense = sparse = colbert = None
        if "dense" in self.heads:
            dense = pool(hidden, batch, self.config.pooling)
            dense = normalize(dense) if self.config.normalize else dense
        if "sparse" in self.heads:
            weights = jax.nn.relu(sparse_head(hidden)[..., 0].astype(jnp.float32))
            sparse = jnp.where(lexical_mask(batch, self.config.special_ids), weights, 0.0)
        if "colbert" in self.heads:
            colbert = colbert_head(hidden).astype(jnp.float32)
            colbert = normalize(colbert) if self.config.normalize else colbert
            colbert = jnp.where(mask[..., None], colbert, 0.0)
        return Encoding(dense, sparse, colbert, mask)


def pool(hidden: Float[Array, "n s d"], batch: TextBatch, pooling: str) -> Float[Array, "n m d"]:
    """The mean over a text's [CLS] tokens (`cls`; MCLS has several) or over all tokens (`mean`).

    For padded and packed rows. Float32 at the highest precision: matrix units that round their
    inputs would round the embedding. A text without tokens gets zeros.
    """
    m = batch.lengths.shape[1]
    texts = jnp.arange(1, m + 1, dtype=jnp.int32)
    member = jnp.asarray(batch.segment_ids)[:, None, :] == texts[None, :, None]
    if pooling == "cls":
        member = member & jnp.asarray(batch.is_cls)[:, None, :]
    weights = member.astype(jnp.float32)
    total = jnp.einsum(
        "nms,nsd->nmd", weights, hidden.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    return total / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1.0)


def normalize(vectors: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """x / max(|x|, 1e-12) along the last axis, with a finite gradient at zero."""
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


def token_mask(batch: TextBatch) -> Bool[Array, "n s"]:
    """True for the tokens that have a vector: all but padding and [CLS]."""
    return (jnp.asarray(batch.segment_ids) > 0) & ~jnp.asarray(batch.is_cls)


def lexical_mask(batch: TextBatch, special_ids: tuple[int, ...]) -> Bool[Array, "n s"]:
    """True for the tokens that may have a weight: all but padding and special tokens."""
    token_ids = jnp.asarray(batch.token_ids)
    special = jnp.zeros_like(token_ids, dtype=bool)
    for special_id in special_ids:
        special = special | (token_ids == special_id)
    return (jnp.asarray(batch.segment_ids) > 0) & ~special
