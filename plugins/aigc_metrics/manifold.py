"""Precision and recall over k-nearest-neighbour manifolds (Kynkaanniemi et al. 2019, eq. 1 and 2, k = 3).

The manifold of a set is the union of the balls around its items that reach to the k-th nearest other item.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.evaluation.neighbours import smallest, squared_distances
from aigc_sdk.evaluator import Evaluator, Measured, Samples

Array = NDArray[Any]

K = 3
_RESAMPLES = 1000


class Precision(Evaluator):
    """Share of generated items inside the manifold of the real ones."""

    direction = "higher"
    explanation = (
        "How true the items are: the share of generated items that lie among the real ones. It falls with noise, blur"
        " and anything else that no real item looks like."
    )
    min_items = 20

    def measure(self, samples: Samples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        reach = radii(samples.real)
        inside = covered(samples.fake, samples.real, reach)
        baseline = None if samples.baseline is None else float(covered(samples.baseline, samples.real, reach).mean())
        return Measured(float(inside.mean()), _interval(inside, seed), baseline, verdict=_verdict(inside, baseline))


class Recall(Evaluator):
    """Share of real items inside the manifold of the generated ones."""

    direction = "higher"
    explanation = (
        "How varied the items are: the share of real items that lie among the generated ones. It falls when the model"
        " leaves out kinds of items or makes all of a kind alike."
    )
    min_items = 20

    def measure(self, samples: Samples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        inside = covered(samples.real, samples.fake, radii(samples.fake))
        train = samples.baseline
        baseline = None if train is None else float(covered(samples.real, train, radii(train)).mean())
        return Measured(float(inside.mean()), _interval(inside, seed), baseline, verdict=_verdict(inside, baseline))


def radii(items: Array) -> NDArray[np.float64]:
    """Return the squared distance of each item to its k-th nearest other one, (n,)."""
    k = min(K, len(items) - 1)
    squared = np.empty(len(items))
    for rows, distances in squared_distances(items, items):
        # Itself is at distance 0, whatever rounding says.
        distances[np.arange(len(distances)), np.arange(len(items))[rows]] = -1
        squared[rows] = smallest(distances, k + 1)[0][:, k]
    return squared


def covered(items: Array, manifold: Array, reach: Array) -> NDArray[np.bool_]:
    """Say for each item whether it is in the ball of squared radius `reach` around any point of the manifold."""
    inside = np.empty(len(items), bool)
    for rows, distances in squared_distances(items, manifold):
        inside[rows] = (distances <= reach).any(1)
    return inside


def _interval(inside: Array, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the share, with the manifold held fixed.

    Resampling the manifold too would put items on top of one another and shrink its balls.
    """
    n = len(inside)
    shares = np.random.default_rng(seed).binomial(n, inside.mean(), _RESAMPLES) / n
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


def _verdict(inside: Array, baseline: float | None) -> str:
    return f"{inside.mean() / baseline:.3g} times what training items reach." if baseline else ""
