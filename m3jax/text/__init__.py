"""Text to token ids, and token ids to rows of a fixed shape.

Reading order: `tokenizer`, `buckets` (padded lengths), `packing` (several texts in a row),
`batches` (padded and packed batches).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.text.batches import Slot, plan_padded, rows_of_tokens
    from m3jax.text.buckets import bucket_ladder, bucket_of
    from m3jax.text.packing import pack_texts
    from m3jax.text.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "Slot",
    "Tokenizer",
    "bucket_ladder",
    "bucket_of",
    "load_tokenizer",
    "pack_texts",
    "plan_padded",
    "rows_of_tokens",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "tokenizer": ("Tokenizer", "load_tokenizer"),
        "buckets": ("bucket_ladder", "bucket_of"),
        "packing": ("pack_texts",),
        "batches": ("Slot", "plan_padded", "rows_of_tokens"),
    },
)
