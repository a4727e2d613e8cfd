"""The M3 model: encoder families, attention back ends, heads, and RetroMAE's decoder.

Reading order: `m3` (the model as functions), `xlm_roberta` (encoder and table of parameters),
`attention`, `heads`, `parameters` and `families` (the tables by path), `retromae`.
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.model.attention import BACKENDS, attend, choose_backend
    from m3jax.model.families import FAMILIES, family_named, family_of, param_sharding
    from m3jax.model.heads import lexical_mask, normalize, pool, token_mask
    from m3jax.model.m3 import M3, Params, abstract_params, encode_batch, hidden_states, init_params
    from m3jax.model.parameters import Family, Parameter
    from m3jax.model.retromae import abstract_retromae, init_retromae

__all__ = [
    "BACKENDS",
    "FAMILIES",
    "Family",
    "M3",
    "Parameter",
    "Params",
    "abstract_params",
    "abstract_retromae",
    "attend",
    "choose_backend",
    "encode_batch",
    "family_named",
    "family_of",
    "hidden_states",
    "init_params",
    "init_retromae",
    "lexical_mask",
    "normalize",
    "param_sharding",
    "pool",
    "token_mask",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "m3": (
            "M3",
            "Params",
            "abstract_params",
            "encode_batch",
            "hidden_states",
            "init_params",
        ),
        "attention": (
            "BACKENDS",
            "attend",
            "choose_backend",
        ),
        "heads": (
            "lexical_mask",
            "normalize",
            "pool",
            "token_mask",
        ),
        "parameters": (
            "Family",
            "Parameter",
        ),
        "families": (
            "FAMILIES",
            "family_named",
            "family_of",
            "param_sharding",
        ),
        "retromae": (
            "abstract_retromae",
            "init_retromae",
        ),
    },
)
