"""s_dense of every query and passage [M3 sec. 3.2], arXiv 2402.03216v4.

b  queries    p  passages    d  width
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dense_scores(
    queries: Float[Array, "b d"], passages: Float[Array, "p d"]
) -> Float[Array, "b p"]:
    """s_dense = <e_q, e_p>, in float32."""
    return jnp.einsum(
        "bd,pd->bp",
        queries.astype(jnp.float32),
        passages.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
