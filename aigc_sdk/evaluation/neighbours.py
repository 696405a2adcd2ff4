"""Exact nearest neighbours by brute force, chunk by chunk, so that memory stays bounded."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Distances held at once: 64 MB of float64.
_CHUNK = 2**23


def squared_distances(queries: Array, pool: Array) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the rows of the queries and their squared Euclidean distances to all of the pool, (rows, n_pool).

    Args:
        queries: (n, K).
        pool: (n_pool, K).
    """
    # Around their mean, because |q|^2 - 2 q p + |p|^2 loses digits far from the origin.
    centre = pool.mean(0, dtype=np.float64)
    q, p = queries - centre, pool - centre
    p_squared = np.einsum("ij,ij->i", p, p)
    step = max(1, _CHUNK // len(p))
    for start in range(0, len(q), step):
        rows = slice(start, start + step)
        distances = q[rows] @ p.T
        distances *= -2
        distances += p_squared
        distances += np.einsum("ij,ij->i", q[rows], q[rows])[:, None]
        yield rows, np.maximum(distances, 0, out=distances)


def nearest(queries: Array, pool: Array, k: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the distances to the k nearest of the pool, ascending, and their indices, both (n, k).

    Of equally near ones the first of the pool comes first.

    Example:
        >>> pool = np.array([[0.0], [1.0], [5.0]])
        >>> nearest(np.array([[4.0]]), pool, 2)[0].tolist()
        [[1.0, 3.0]]
    """
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), np.int64)
    for rows, squared in squared_distances(queries, pool):
        found = np.sort(np.argpartition(squared, k - 1)[:, :k] if k > 1 else squared.argmin(1)[:, None])
        values = np.take_along_axis(squared, found, 1)
        order = np.argsort(values, 1, kind="stable")
        distances[rows] = np.sqrt(np.take_along_axis(values, order, 1))
        indices[rows] = np.take_along_axis(found, order, 1)
    return distances, indices
