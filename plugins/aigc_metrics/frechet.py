"""The Frechet distance between Gaussians fitted to features (Heusel et al. 2017, eq. 6).

With Inception's features it is called FID; with any other extractor it is not, and its values do not compare.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.evaluation.gaussians import Moments, frechet_distance, moments
from aigc_sdk.evaluator import Evaluator, Measured, Samples

Array = NDArray[Any]


class Frechet(Evaluator):
    """Distance between the distributions of generated and of real features; 0 when they are the same."""

    direction = "lower"
    explanation = (
        "How far the generated items as a whole are from the real ones: 0 would be the same distribution. It rises"
        " with noise, blur and missing kinds of items. Read it against the baseline, real training items."
    )
    min_items = 10

    def measure(self, samples: Samples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        fake, real = samples.fake.astype(np.float64), samples.real.astype(np.float64)
        value = frechet_distance(moments(fake), moments(real))
        spread = 1.96 * bootstrap_deviation(fake, real, seed)
        baseline = None if samples.baseline is None else frechet_distance(moments(samples.baseline), moments(real))
        verdict = f"{value / baseline:.3g} times the distance of training items." if baseline else ""
        if min(len(fake), len(real)) <= fake.shape[1]:
            verdict += f" With no more items than the {fake.shape[1]} features it is far too high; use more items."
        return Measured(value, (max(0.0, value - spread), value + spread), baseline, verdict=verdict.strip())


def bootstrap_deviation(fake: Array, real: Array, seed: int) -> float:
    """Return the standard deviation of the distance over resamples of both sets.

    The interval is the value with 1.96 of them to both sides and no percentile, because resampled sets are farther
    apart than the sets themselves. Wide features, whose distances take seconds, get 20 resamples, others 100.
    """
    rng = np.random.default_rng(seed)

    def resampled(x: Array) -> Moments:
        return moments(x, rng.multinomial(len(x), np.full(len(x), 1 / len(x))))

    resamples = 100 if fake.shape[1] <= 256 else 20
    return float(np.std([frechet_distance(resampled(fake), resampled(real)) for _ in range(resamples)], ddof=1))
