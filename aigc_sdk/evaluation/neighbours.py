"""Exact nearest neighbours by brute force, chunk by chunk, so that memory stays bounded."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Distances = NDArray[np.float64]

# Distances held at once: 64 MB of float64.
_CHUNK = 2**23


def squared_distances(queries: Array, pool: Array) -> Iterator[tuple[slice, Distances]]:
    """Yield the rows of the queries and their squared Euclidean distances to all of the pool, (rows, n_pool).

    Rounding may leave a distance of 0 slightly below it.

    Args:
        queries: (n, K).
        pool: (n_pool, K).
    """
    # Around their mean, because |q|^2 - 2 q p + |p|^2 loses digits far from the origin.
    centre = pool.mean(0, dtype=np.float64)
    q, p = queries - centre, pool - centre
    # All three terms in one matrix product: passes over the large result would take longer than it.
    left = np.column_stack([-2 * q, np.ones(len(q)), np.einsum("ij,ij->i", q, q)])
    right = np.column_stack([p, np.einsum("ij,ij->i", p, p), np.ones(len(p))]).T
    step = max(1, _CHUNK // len(p))
    for start in range(0, len(q), step):
        rows = slice(start, start + step)
        yield rows, left[rows] @ right


def nearest(queries: Array, pool: Array, k: int = 1) -> tuple[Distances, NDArray[np.int64]]:
    """Return the distances to the k nearest of the pool, ascending, and their indices, both (n, k).

    Example:
        >>> pool = np.array([[0.0], [1.0], [5.0]])
        >>> nearest(np.array([[4.0]]), pool, 2)[0].tolist()
        [[1.0, 3.0]]
    """
    found = [smallest(squared, k) for _, squared in squared_distances(queries, pool)]
    values, indices = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.sqrt(values.clip(0)), indices


def smallest(values: Distances, k: int) -> tuple[Distances, NDArray[np.int64]]:
    """Return the k smallest of each row, ascending, and their columns; of equal ones mostly the first come first.

    The k smallest are in the k blocks of columns with the smallest minima, so that only those are sorted: a tenth of
    the time of sorting all.
    """
    n = values.shape[1]
    width = max(1, n // max(k, math.isqrt(n)))
    starts = np.arange(0, n, width)
    minima = np.minimum.reduceat(values, starts, axis=1)
    blocks = np.sort(np.argpartition(minima, k - 1)[:, :k])
    columns = (starts[blocks][:, :, None] + np.arange(width)).reshape(len(values), -1)
    candidates = np.take_along_axis(values, np.minimum(columns, n - 1), 1)
    candidates[columns >= n] = np.inf  # the last block may be narrower
    order = np.sort(np.argpartition(candidates, k - 1)[:, :k])
    chosen = np.take_along_axis(candidates, order, 1)
    order = np.take_along_axis(order, np.argsort(chosen, 1, kind="stable"), 1)
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(columns, order, 1)
