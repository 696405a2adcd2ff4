"""Whether the metrics are right, see planted faults, catch a memorising model, and how long they take.

    python benchmarks/evaluation.py

Everything is MNIST: of its training digits 20,000 are what an imagined model was trained on, 10,000 are held out, and
10,000 others are what an honest and perfect model would make. Faults are planted in those. `digits-vae` is then
measured against its own data, as `aigc evaluate digits-vae` does it.
"""

import os
import sys
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from sklearn.neighbors import NearestNeighbors

import aigc_sdk as sdk
from datasets import fetch
from timing import Report

Images = NDArray[np.uint8]
Array = NDArray[Any]

MOST_DIFFERENCE = 1e-4
CAUGHT_P = 0.0009  # below 0.001; p comes in steps of 0.0001
HONEST_P = 0.05
MOST_SECONDS = 60.0
LEAST_RECALL = 0.5  # of that of real items
N = 5000


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    report = Report("numpy", "onnxruntime", "scipy", "scikit-learn")
    with np.load(fetch("mnist"), allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    order = np.random.default_rng(0).permutation(len(images))
    train, real, honest = (images[part] for part in np.split(order[:40_000], [20_000, 30_000]))
    honest_labels = labels[order[30_000:40_000]]

    agreement(report, sdk.generate("digits-vae", N, seed=0).to_numpy(), real)
    faults(report, train, real, honest, honest_labels)
    copying(report, train, real, honest)
    own_model(report)
    timing(report)
    return report.exit_code


def agreement(report: Report, fake: Images, real: Images) -> None:
    """Compare with scipy's root of a matrix and scikit-learn's neighbours on the same features."""
    scores = sdk.evaluate(fake, real[:N], metrics=["frechet", "precision", "recall"])
    x, y = (sdk.measure("digits-features", images).astype(np.float64) for images in (fake, real[:N]))
    wanted = {"frechet": frechet(x, y), "precision": share_inside(x, y), "recall": share_inside(y, x)}
    for name, value in wanted.items():
        report.figure(f"{name} of digits-vae: ours", scores[name].value)
        report.figure(f"{name} of digits-vae: scipy and scikit-learn", value)
        millionths = 1e6 * abs(scores[name].value / value - 1)
        report.at_most(f"{name}: relative difference, in millionths", millionths, 1e6 * MOST_DIFFERENCE)


def frechet(x: Array, y: Array) -> float:
    """Return the distance with the root of the asymmetric product."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real))


def share_inside(items: Array, manifold: Array, k: int = 3) -> float:
    """Return the share of the items within the k-th neighbour's distance of any point of the manifold."""
    balls = NearestNeighbors(algorithm="brute").fit(manifold)
    reach = balls.kneighbors(manifold, k + 1)[0][:, k]
    inside = []
    for start in range(0, len(items), 500):
        distances, indices = balls.kneighbors(items[start : start + 500], len(manifold))
        inside.append((distances <= reach[indices]).any(1))
    return float(np.concatenate(inside).mean())


def faults(report: Report, train: Images, real: Images, honest: Images, labels: Array) -> None:
    """Plant faults one by one; each score that is to notice has to leave the interval of the honest one."""
    copies = honest.copy()
    copies[: len(copies) // 10] = train[: len(copies) // 10]
    planted = {
        "noise": (noisy(honest[:N], 25), {"frechet": "up", "precision": "down"}),
        "blur": (blurred(honest[:N]), {"frechet": "up", "precision": "down", "recall": "down"}),
        "no sevens": (honest[labels != 7][:N], {"frechet": "up", "recall": "down"}),
        "10 % copies": (copies, {"copying": "up"}),
    }
    for fault, (fake, wanted) in planted.items():
        # As many honest items, because scores of different numbers do not compare.
        good = sdk.evaluate(honest, real, train=train, metrics=wanted, n=len(fake))
        bad = sdk.evaluate(fake, real, train=train, metrics=wanted)
        for metric, way in wanted.items():
            a, b = good[metric], bad[metric]
            apart = b.interval[0] - a.interval[1] if way == "up" else a.interval[0] - b.interval[1]
            print(f"{fault}: {metric} {_shown(a)} -> {_shown(b)}, is to go {way}")
            report.at_most(f"{fault}: overlap of the intervals of {metric}", -apart, 0.0)


def copying(report: Report, train: Images, real: Images, honest: Images) -> None:
    """Measure p for models that return training items, more or less disguised, and for honest ones."""
    copies, honest = train[np.random.default_rng(1).integers(0, len(train), N)], honest[:N]
    memorising = {
        "training items": copies,
        "training items, shifted by 1 pixel": np.roll(copies, 1, axis=2),
        "training items, noise of 10 levels": noisy(copies, 10),
    }
    honest_ones = {"perfect": honest, "noisy": noisy(honest, 25), "blurred": blurred(honest)}
    for name, fake in memorising.items():
        report.at_most(f"p of {name}", _copying(fake, real, train).details["p"], CAUGHT_P)
    for name, fake in honest_ones.items():
        # Below 0 is above the bound: the report knows only at_most.
        report.at_most(f"0.05 - p of an honest model, {name}", HONEST_P - _copying(fake, real, train).details["p"], 0.0)
    disguised = {"blurred": blurred(copies), "noise of 25 levels": noisy(copies, 25)}
    for name, fake in disguised.items():
        report.figure(f"p of training items, {name} (no bound)", _copying(fake, real, train).details["p"])


def own_model(report: Report) -> None:
    """Print the scores of digits-vae against the test part of its data, and p for memorising its train part."""
    path = fetch("mnist")
    made = sdk.evaluate("digits-vae", path, n=N)
    for score in made.scores:
        print(f"digits-vae against its test part: {score.metric} {_shown(score)}. {score.verdict}")
    report.at_most("0.05 - p of digits-vae", HONEST_P - made["copying"].details["p"], 0.0)
    more = sdk.evaluate("digits-vae", fetch("mnist-test"), train=path, n=N, metrics=["frechet", "precision", "recall"])
    for score in more.scores:
        print(f"digits-vae against MNIST's test set: {score.metric} {_shown(score)}. {score.verdict}")
    recall = more["recall"]
    report.figure("Frechet distance of digits-vae, x train against test", more["frechet"].multiple or 0)
    # The fewest that it may be, on a report that knows only at_most.
    report.at_most("recall of real items / that of digits-vae", (recall.baseline or 0) / recall.value, 1 / LEAST_RECALL)


def timing(report: Report) -> None:
    """Time 10,000 items against 10,000: the first run makes the features of the data, the second has them."""
    images = sdk.generate("digits-vae", 10_000, seed=1).to_numpy()
    reference, train = fetch("mnist-test"), fetch("mnist")
    metrics = ["frechet", "precision", "recall"]
    with TemporaryDirectory() as empty:
        os.environ["AIGC_SDK_CACHE"] = empty
        for which in ("features of the data made", "features cached"):
            start = perf_counter()
            sdk.evaluate(images, reference, metrics=metrics, n=10_000)
            report.at_most(f"10,000 items, three metrics, {which}", perf_counter() - start, MOST_SECONDS, "s")
        for which in ("features of the data made", "features cached"):
            start = perf_counter()
            sdk.evaluate(images, reference, train=train, n=10_000)
            report.figure(f"and copying of 60,000, baselines, {which}", perf_counter() - start, "s")


def noisy(images: Images, levels: float) -> Images:
    """Add normal noise of so many grey levels."""
    noise = np.random.default_rng(2).normal(0, levels, images.shape)
    return np.rint(images + noise).clip(0, 255).astype(np.uint8)


def blurred(images: Images) -> Images:
    """Blur with the 3 x 3 binomial kernel."""
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    weights, size = (1, 2, 1), images.shape[1]
    total = sum(weights[i] * weights[j] * padded[:, i : i + size, j : j + size] for i in range(3) for j in range(3))
    return np.rint(total / 16).astype(np.uint8)


def _copying(fake: Images, real: Images, train: Images) -> sdk.Score:
    return sdk.evaluate(fake, real, train=train, metrics=["copying"])["copying"]


def _shown(score: sdk.Score) -> str:
    return f"{score.value:.4g} ({score.interval[0]:.4g} to {score.interval[1]:.4g})"


if __name__ == "__main__":
    sys.exit(main())
