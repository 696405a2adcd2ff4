"""Gaussians fitted to features, and how far apart two of them are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


def moments(features: Array, counts: Array | None = None) -> Moments:
    """Return the mean (K,) and the unbiased covariance (K, K), each row counted so many times."""
    x = features.astype(np.float64)
    weights = np.ones(len(x)) if counts is None else counts.astype(np.float64)
    total = weights.sum()
    mean = weights @ x / total
    x = x - mean
    return mean, (x * weights[:, None]).T @ x / (total - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), the Frechet distance (Heusel et al. 2017, eq. 6).

    The eigenvalues of A B are those of the symmetric S B S with S = A^(1/2). So the trace of the root needs no root of
    an asymmetric matrix, which is unstable when features depend on one another.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = a, b
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(values.clip(0))  # S up to a rotation, which eigenvalues do not see
    product = np.linalg.eigvalsh(root.T @ covariance_b @ root)
    trace_of_root = np.sqrt(product.clip(0)).sum()
    gap = mean_a - mean_b
    return max(0.0, float(gap @ gap + np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace_of_root))
