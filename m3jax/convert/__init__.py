"""Conversion of models: Hugging Face directories, int8, positions, vocabulary, heads, merging.

Reading order: `files` (Hugging Face directories), `names` (tensors by the family's table), `heads`,
`positions`, `vocabulary`, `merge`, `quantized` and `product` (the int8 format), `reference` (the
model in PyTorch).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.convert.files import open_encoder, open_heads, read_config, write_directory
    from m3jax.convert.heads import fit_sparse_head, fresh_heads
    from m3jax.convert.merge import merge_params
    from m3jax.convert.names import TorchCheckpoint, from_torch, to_torch
    from m3jax.convert.positions import extend_positions
    from m3jax.convert.reference import Outputs, differences, torch_outputs
    from m3jax.convert.vocabulary import (
        compare_tokenizers,
        count_pieces,
        pieces_to_keep,
        prune_vocabulary,
    )

__all__ = [
    "Outputs",
    "TorchCheckpoint",
    "compare_tokenizers",
    "count_pieces",
    "differences",
    "extend_positions",
    "fit_sparse_head",
    "fresh_heads",
    "from_torch",
    "merge_params",
    "open_encoder",
    "open_heads",
    "pieces_to_keep",
    "prune_vocabulary",
    "read_config",
    "to_torch",
    "torch_outputs",
    "write_directory",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "files": (
            "open_encoder",
            "open_heads",
            "read_config",
            "write_directory",
        ),
        "names": (
            "TorchCheckpoint",
            "from_torch",
            "to_torch",
        ),
        "heads": (
            "fit_sparse_head",
            "fresh_heads",
        ),
        "positions": ("extend_positions",),
        "vocabulary": (
            "compare_tokenizers",
            "count_pieces",
            "pieces_to_keep",
            "prune_vocabulary",
        ),
        "merge": ("merge_params",),
        "reference": (
            "Outputs",
            "differences",
            "torch_outputs",
        ),
    },
)
