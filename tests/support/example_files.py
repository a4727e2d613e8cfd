"""Training examples drawn at random, and files of them."""

import gzip
import json

import zstandard
from hypothesis import strategies as st

from m3jax.data.examples import (
    Example,
)

SCORES = st.floats(allow_nan=False, allow_infinity=False)


def lines(*records) -> bytes:
    return b"".join(
        (r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records
    )


def write(path, data: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".gz"):
        data = gzip.compress(data)
    if path.name.endswith(".zst"):
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


@st.composite
def examples(draw, text):
    """Any example that can be read; `text` may hold lone surrogates."""
    filled = text.filter(lambda t: t.strip())
    positives = tuple(draw(st.lists(filled, min_size=1, max_size=3)))
    negatives = tuple(draw(st.lists(text, max_size=3)))

    def scores(texts):
        some = st.lists(SCORES, min_size=len(texts), max_size=len(texts)).map(tuple)
        return draw(st.none() | some)

    return Example(
        draw(filled),
        positives,
        negatives,
        scores(positives),
        scores(negatives),
        *(draw(text) for _ in range(3)),
        source=draw(filled),
        in_batch=draw(st.booleans()),
    )


GOOD = {"query": "q", "pos": ["p"], "neg": ["n"]}
