"""Product quantisation of an embedding table: a byte for each few numbers of a row.

A row is cut in parts; each part is replaced by the nearest of 256 vectors that k-means finds for
that part over all rows [Jegou et al. 2011, "Product quantization for nearest neighbor search"].
Four numbers a byte make a table 16 times smaller than float32, 4 times smaller than int8: all of a
large vocabulary fits where a part of it would in int8.

v  rows    p  parts    c  numbers a part
"""

import warnings

import numpy as np
import scipy.cluster.vq
from jaxtyping import Float, UInt8

CENTRES = 256
SAMPLE = 50_000  # rows that k-means looks at
ROUNDS = 12

Books = Float[np.ndarray, "p 256 c"]


def fit(
    table: Float[np.ndarray, "v d"], parts: int, seed: int = 0
) -> tuple[UInt8[np.ndarray, "v p"], Books]:
    """(codes, books) of a table; `decode` gives back its approximation.

    A table that `decode` made is found again as it was. Raises ValueError where `parts` does not
    divide the width.
    """
    rows, width = table.shape
    if parts < 1 or width % parts:
        raise ValueError(f"{parts} bytes a row do not divide the embedding's width {width}")
    pieces = np.ascontiguousarray(table, np.float32).reshape(rows, parts, width // parts)
    codes = np.empty((rows, parts), np.uint8)
    books = np.empty((parts, CENTRES, width // parts), np.float16)
    for part in range(parts):
        books[part] = _centres(pieces[:, part], np.random.default_rng((seed, part)))
        codes[:, part] = scipy.cluster.vq.vq(
            pieces[:, part], books[part].astype(np.float32), check_finite=False
        )[0]
    return codes, books


def decode(codes: UInt8[np.ndarray, "v p"], books: Books) -> Float[np.ndarray, "v d"]:
    """The table that codes stand for, float32."""
    return books.astype(np.float32)[np.arange(len(books)), codes].reshape(len(codes), -1)


def parts_of(table: Float[np.ndarray, "v d"]) -> int | None:
    """In how many parts a table was cut that `decode` made; None for any other, by a sample."""
    some = table[:: max(len(table) // 4096, 1)]
    width = table.shape[1]
    for parts in (p for p in range(1, width) if width % p == 0 and len(some) > 2 * CENTRES):
        pieces = np.split(some, parts, axis=1)
        if all(len(np.unique(piece, axis=0)) <= CENTRES for piece in pieces):
            return parts
    return None


def _centres(points: Float[np.ndarray, "v c"], rng: np.random.Generator) -> np.ndarray:
    """256 vectors near the points; the points themselves where they are so few."""
    some = points[rng.permutation(len(points))[:SAMPLE]]
    different = np.unique(some, axis=0)
    if len(different) <= CENTRES:
        different = np.unique(points, axis=0)
    if len(different) <= CENTRES:
        return np.concatenate([different, np.repeat(different[-1:], CENTRES - len(different), 0)])
    first = different[rng.permutation(len(different))[:CENTRES]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a centre without points stays where it was
        return scipy.cluster.vq.kmeans2(some, first, iter=ROUNDS, minit="matrix", missing="warn")[0]
