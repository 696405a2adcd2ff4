"""Print how good `digits-features` is: accuracy, what the features keep of a picture, distances, speed.

    python benchmarks/digits_features.py

All of it is measured with the committed ONNX files on MNIST's 10,000 official test digits, which they were not
trained on.
"""

import sys
import time
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

import aigc_sdk as sdk
from datasets import fetch
from timing import Report

Features = NDArray[np.float32]


LEAST_RIGHT = 0.99
MOST_MEGABYTES = 0.5


def main() -> int:
    """Measure and print; return 1 when a bound is missed."""
    with np.load(fetch("mnist")) as train, np.load(fetch("mnist-test")) as test:
        train_images, train_labels = train["images"], train["labels"]
        images, labels = test["images"], test["labels"]
    report = Report("onnxruntime", "numpy")
    for file in ("digits-features.onnx", "digits-features.classify.onnx"):
        report.at_most(file, len(files("aigc_zoo").joinpath("models", file).read_bytes()) / 1e6, MOST_MEGABYTES, "MB")

    right = sdk.measure("digits-features:classify", images).argmax(1) == labels
    report.at_most("logits that are wrong, share of the test digits", 1 - right.mean(), 1 - LEAST_RIGHT)
    start = time.perf_counter()
    features = sdk.measure("digits-features", images)
    print(f"features of 10,000 images: {time.perf_counter() - start:.1f} s")
    train_features = sdk.measure("digits-features", train_images)

    pixels, train_pixels = (part.reshape(len(part), -1) / np.float32(255) for part in (images, train_images))
    print(f"share of the pixels' variance that a linear map of the features explains: "
          f"{explained(train_features, train_pixels, features, pixels):.3f}")  # fmt: skip
    own_mean = np.stack([train_features[train_labels == digit].mean(0) for digit in range(10)])
    within = np.square(features - own_mean[labels]).sum() / np.square(features - features.mean(0)).sum()
    print(f"share of the features' variance within the digits: {within:.3f}")

    random = np.random.default_rng(0)
    noisy = np.clip(images + random.normal(0, 25, images.shape), 0, 255).astype(np.uint8)
    reference = train_features[random.permutation(len(train_features))[: len(images)]]
    print(f"Frechet distance to 10,000 training digits: test digits {frechet(features, reference):.3f},", end=" ")
    print(f"with noise of 25 levels {frechet(sdk.measure('digits-features', noisy), reference):.3f},", end=" ")
    print(f"without the nines {frechet(features[labels != 9], reference):.3f},", end=" ")
    print(f"the 5,000 boldest {frechet(features[np.argsort(pixels.sum(1))[5000:]], reference):.3f}")
    return report.exit_code


def explained(train: Features, train_pixels: Features, test: Features, test_pixels: Features) -> float:
    """Return R^2 on the test digits of the least-squares map from features to pixels, fitted on the training ones."""
    train, test = (np.c_[part, np.ones(len(part), np.float32)] for part in (train, test))
    weights = np.linalg.lstsq(train, train_pixels, rcond=None)[0]
    error = np.square(test @ weights - test_pixels).sum()
    return float(1 - error / np.square(test_pixels - train_pixels.mean(0)).sum())


def frechet(a: Features, b: Features) -> float:
    """Return the squared Frechet distance of two normal distributions fitted to the features (Heusel et al. 2017)."""
    cov_a, cov_b = (np.cov(part.astype(np.float64), rowvar=False) for part in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


if __name__ == "__main__":
    sys.exit(main())
