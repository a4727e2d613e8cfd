"""Product quantisation of an embedding table: one byte for several numbers of a row.

    v  rows    p  subvectors of a row    c  their width

A row is split into subvectors. Each is replaced by the nearest of 256 centroids, which k-means
computes for its position over all rows [Jegou et al. 2011, "Product quantization for nearest
neighbor search"]. With subvectors of 4 numbers a table is 16 times smaller than in float32 and 4
times smaller than in int8.
"""

import warnings

import numpy as np
import scipy.cluster.vq
from jaxtyping import Float, UInt8

CENTROIDS = 256
SAMPLE = 50_000  # rows for k-means
ITERATIONS = 12

Books = Float[np.ndarray, "p 256 c"]


def fit(
    table: Float[np.ndarray, "v d"], parts: int, seed: int = 0
) -> tuple[UInt8[np.ndarray, "v p"], Books]:
    """(codes, codebooks) of a table; `decode` returns its approximation.

    The codes of a table that `decode` returned are exact. Raises ValueError if `parts` does not
    divide the width.
    """
    rows, width = table.shape
    if parts < 1 or width % parts:
        raise ValueError(f"{parts} bytes a row do not divide the embedding's width {width}")
    subvectors = np.ascontiguousarray(table, np.float32).reshape(rows, parts, width // parts)
    codes = np.empty((rows, parts), np.uint8)
    books = np.empty((parts, CENTROIDS, width // parts), np.float16)
    for part in range(parts):
        books[part] = _centroids(subvectors[:, part], np.random.default_rng((seed, part)))
        codes[:, part] = scipy.cluster.vq.vq(
            subvectors[:, part], books[part].astype(np.float32), check_finite=False
        )[0]
    return codes, books


def decode(codes: UInt8[np.ndarray, "v p"], books: Books) -> Float[np.ndarray, "v d"]:
    """The approximate table in float32."""
    return books.astype(np.float32)[np.arange(len(books)), codes].reshape(len(codes), -1)


def parts_of(table: Float[np.ndarray, "v d"]) -> int | None:
    """The number of subvectors of a table that `decode` returned; None for others, by a sample."""
    sample = table[:: max(len(table) // 4096, 1)]
    width = table.shape[1]
    for parts in (p for p in range(1, width) if width % p == 0 and len(sample) > 2 * CENTROIDS):
        subvectors = np.split(sample, parts, axis=1)
        if all(len(np.unique(vectors, axis=0)) <= CENTROIDS for vectors in subvectors):
            return parts
    return None


def _centroids(points: Float[np.ndarray, "v c"], rng: np.random.Generator) -> np.ndarray:
    """256 centroids of the points; the distinct points if they are at most 256."""
    sample = points[rng.permutation(len(points))[:SAMPLE]]
    distinct = np.unique(sample, axis=0)
    if len(distinct) <= CENTROIDS:
        distinct = np.unique(points, axis=0)
    if len(distinct) <= CENTROIDS:
        return np.concatenate([distinct, np.repeat(distinct[-1:], CENTROIDS - len(distinct), 0)])
    initial = distinct[rng.permutation(len(distinct))[:CENTROIDS]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a centroid without points is not moved
        centroids, _ = scipy.cluster.vq.kmeans2(
            sample, initial, iter=ITERATIONS, minit="matrix", missing="warn"
        )
    return centroids
