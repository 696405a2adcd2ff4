"""Copying: do generated items lie on training items rather than on held-out ones?

After Meehan, Chaudhuri & Dasgupta 2020, "A non-parametric test to detect data-copying in generative models", with
another null hypothesis: seen from a model that learned the distribution, and not the items, training and held-out
items are exchangeable. So which of the two the nearest neighbour of a generated item is, is a matter of their numbers
alone, and shuffling the labels "training" and "held-out" gives an exact test. It holds for a poor model as well, which
a comparison of distances with those of real items (their test) would call copying or not for how typical its items are.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.evaluation.neighbours import nearest
from aigc_sdk.evaluator import Evaluator, Measured, Samples

Array = NDArray[Any]

# A copy is far nearer to its original than to the next items: d_1 / d_5 is small (compare Yoon et al. 2023). The test
# looks at the generated items with the smallest such ratios first, so that a few copies among many are seen.
_NEIGHBOURS = 5
_LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0)
_SHUFFLES = 9999
_RESAMPLES = 1000


class Copying(Evaluator):
    """Share of generated items that lie on training items, and a permutation test of whether any do."""

    direction = "lower"
    explanation = (
        "Whether the items are copies: how many more of them have a training item as their nearest neighbour than if"
        " training and held-out items were the same to the model; 0 is none, 1 is all. p is how often chance alone"
        " would look as suspicious: below 0.001 the model copies, above 0.05 there is no sign of it."
    )
    min_items = 50
    needs_train = True

    def measure(self, samples: Samples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        assert samples.train is not None  # needs_train
        n_real, n_pool = len(samples.real), len(samples.real) + len(samples.train)
        # Held-out items first: of two identical ones it is the first that counts, so that this is no sign of copying.
        pool = np.concatenate([samples.real, samples.train])
        distances, indices = nearest(samples.fake, pool, min(_NEIGHBOURS, n_pool))
        ratios = distances[:, 0] / np.maximum(distances[:, -1], np.finfo(float).tiny)
        counts = _counts(indices[np.argsort(ratios, kind="stable"), 0], n_pool)
        p = permutation_p(counts, n_real, seed)
        is_held_out = indices[:, 0] < n_real
        expected = n_real / n_pool
        verdict = "It copies" if p < 0.001 else "Suspicious" if p <= 0.05 else "No sign of copying"
        return Measured(
            1 - float(is_held_out.mean()) / expected,
            _interval(is_held_out, expected, seed),
            details={"p": p, "held_out_share": float(is_held_out.mean()), "held_out_share_expected": expected},
            verdict=f"{verdict} (p = {p:.2g}).",
        )


def permutation_p(counts: Array, n_real: int, seed: int) -> float:
    """Return how often shuffled labels leave held-out items as few neighbours as they have, at any level.

    Args:
        counts: int64 (n_pool, levels), of how many generated items a pool item is the nearest; held-out items first.
        n_real: how many of the pool are held out.
        seed: of the shuffling.
    """
    rng = np.random.default_rng(seed)
    n_pool = len(counts)
    share = n_real / n_pool
    expected = counts.sum(0) * share
    # The variance of a sum over n_real items drawn without replacement.
    deviation = np.sqrt(n_real * (1 - share) * counts.var(0, ddof=1)) + np.finfo(float).tiny

    def suspicion(held_out: Array) -> float:
        return float(((expected - held_out.sum(0)) / deviation).max())

    observed = suspicion(counts[:n_real])
    chosen = counts[counts[:, -1] > 0]  # the others add nothing, wherever their labels go
    held_out = rng.hypergeometric(len(chosen), n_pool - len(chosen), n_real, _SHUFFLES)
    shuffled = [suspicion(chosen[rng.choice(len(chosen), size, replace=False)]) for size in held_out]
    return float((1 + np.count_nonzero(np.array(shuffled) >= observed - 1e-9)) / (1 + _SHUFFLES))


def _counts(neighbours: Array, n_pool: int) -> Array:
    """Count how often each pool item is a nearest neighbour, among the first 1 %, 3 %, ... of the generated items."""
    tops = [neighbours[: max(1, round(level * len(neighbours)))] for level in _LEVELS]
    return np.stack([np.bincount(top, minlength=n_pool) for top in tops], 1)


def _interval(is_held_out: Array, expected: float, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the excess over resamples of the generated items."""
    n = len(is_held_out)
    shares = np.random.default_rng(seed).binomial(n, is_held_out.mean(), _RESAMPLES) / n
    low, high = np.percentile(1 - shares / expected, [2.5, 97.5])
    return float(low), float(high)
