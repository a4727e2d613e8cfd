"""Training data: reading, checking, cleaning, converting and building data sets.

Reading order: `examples` (records to examples), `lengths` (token lengths), `build` (data sets on
disk), `check`, `split`; `registry` and `adapters` (public data sets), `extract` and `cleaning`
(pairs from raw text); `sample` (the corpus in the package).
"""

from typing import TYPE_CHECKING

from m3jax.lazy import exports

if TYPE_CHECKING:
    from m3jax.data.build import ExampleSet, open_examples
    from m3jax.data.check import DataReport
    from m3jax.data.cleaning import Limits, clean
    from m3jax.data.examples import Example, read_examples, read_texts
    from m3jax.data.registry import SOURCES, DataSource
    from m3jax.data.sample import sample_passages, sample_questions
    from m3jax.data.split import split_by_length

__all__ = [
    "SOURCES",
    "DataReport",
    "DataSource",
    "Example",
    "ExampleSet",
    "Limits",
    "clean",
    "open_examples",
    "read_examples",
    "read_texts",
    "sample_passages",
    "sample_questions",
    "split_by_length",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "examples": ("Example", "read_examples", "read_texts"),
        "build": ("ExampleSet", "open_examples"),
        "check": ("DataReport",),
        "split": ("split_by_length",),
        "registry": ("SOURCES", "DataSource"),
        "cleaning": ("Limits", "clean"),
        "sample": ("sample_passages", "sample_questions"),
    },
)
