"""What the GAN family makes of three data sets without an option: nine trainings, three seeds each.

    python benchmarks/gan_untuned.py [--data mnist-5k animal-mnist noto-emoji-32] [--seeds 0 1 2] [--runs FOLDER]

Trains what is not in FOLDER yet (in the cache without it), measures the model file of each run on images that it was
not trained on, keeps the figures, and what they were made with, in benchmarks/runs/gan-untuned, and judges them. With
--kept it trains and measures nothing and prints the figures that are kept.

The reference is MNIST's test set for mnist-5k, and for the others a fifth that is held out. Features are those of
digits-features for digits, and for the others those of a classifier like it (gan_features.py). Recall is that of k = 3
neighbours and as many images as are held out on either side, at most 5,000; "real" is that of training images in the
place of generated ones. Diversity is the mean distance between two images.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_sdk.files import cache_folder, write_bytes
from aigc_sdk.training import Run
from datasets import fetch
from gan_features import measure_for
from timing import Report, git_commit, machine

KEPT = Path(__file__).parent / "runs" / "gan-untuned"
HELD_OUT = 5  # one image of so many
MOST = 5000
METRICS = ("frechet", "precision", "recall")
LEAST_RECALL, LEAST_DIVERSITY, MINUTES = 0.4, 0.7, 12.0

DATA = ("mnist-5k", "animal-mnist", "noto-emoji-32")


@dataclass(frozen=True)
class Parts:
    """A data set: a file to train on, and images that it does not hold.

    Attributes:
        train: an `.npz` file.
        images: those in it, uint8 (n, height, width, channels); of them, the extractor was not trained on the first.
        held_out: uint8 (m, height, width, channels).
        extractor: the measure whose features are compared.
    """

    train: Path
    images: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    extractor: str


def parts_of(name: str) -> Parts:
    """Return the parts of a data set; where there is no test set, a fifth is held out, the same every time."""
    with np.load(fetch(name)) as archive:
        arrays = dict(archive)
    if name == "mnist-5k":
        with np.load(fetch("mnist-test")) as archive:
            return Parts(fetch(name), arrays["images"], archive["images"], "digits-features")
    order = np.random.default_rng(0).permutation(len(arrays["images"]))
    held, kept = np.split(order, [len(order) // HELD_OUT])
    train = cache_folder() / "datasets" / f"{name}-without-a-fifth.npz"
    rest = {key: values[np.sort(kept)] if key in ("images", "labels") else values for key, values in arrays.items()}
    if not train.exists():
        np.savez(train, **rest)
    # In the order of the permutation, so that the first ones are any; the extractor learns from the others.
    images, labels = arrays["images"][kept], arrays["labels"][kept]
    extractor = measure_for(name, images[len(held) :], labels[len(held) :])
    return Parts(train, images, arrays["images"][held], str(extractor))


def figures_of(images: NDArray[np.uint8], parts: Parts) -> dict[str, Any]:
    """Return Frechet distance, precision, recall and diversity of images, with those of training images beside."""
    n, extractor = min(MOST, len(parts.held_out), len(images)), parts.extractor
    unseen = np.random.default_rng(0).permutation(parts.images[: len(parts.held_out)])
    report = sdk.evaluate(images, parts.held_out, train=unseen, metrics=METRICS, n=n, extractor=extractor)
    figures: dict[str, Any] = {s.metric: {"value": s.value, "real": s.baseline} for s in report.scores}
    fake, real = (mean_distance(sdk.measure(extractor, some)) for some in (images[:n], unseen[:n]))
    return {"n": n, "extractor": Path(extractor).name, **figures, "diversity": {"value": fake, "real": real}}


def mean_distance(features: NDArray[np.float32]) -> float:
    """Return the mean distance of two items, from up to 64 partners of each."""
    shifts = range(1, min(len(features), 65))
    return float(np.mean([np.linalg.norm(features - np.roll(features, shift, 0), axis=1) for shift in shifts]))


def measured(name: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train if need be, measure the model file, and keep and return the figures."""
    parts, folder = parts_of(name), runs / f"{name}-{seed}"
    made_at = folder / "made.json"
    if not made_at.exists():
        at = git_commit()
        run = sdk.train("gan", parts.train, out=folder, seed=seed, resume=folder.exists())
        made = {"commit": at, "machine": machine(["torch"]), "cores": len(os.sched_getaffinity(0))}
        write_bytes(made_at, json.dumps(made).encode())
    run = Run.open(folder)
    images = sdk.generate(run.models["generate"], min(MOST, len(parts.held_out)), seed=0).to_numpy()
    values = {
        "data": name,
        "seed": seed,
        **json.loads(made_at.read_text()),
        "minutes": run.metrics[-1]["minutes"],
        "steps": run.metrics[-1]["step"],
        **figures_of(images, parts),
    }
    KEPT.mkdir(parents=True, exist_ok=True)
    write_bytes(KEPT / f"{name}-{seed}.json", (json.dumps(values, indent=1) + "\n").encode())
    write_bytes(KEPT / f"{name}-{seed}.jsonl", (folder / "metrics.jsonl").read_bytes())
    return values


def judge(report: Report, values: Mapping[str, Any]) -> None:
    """Print the figures of one run."""
    name = f"{values['data']}, seed {values['seed']}"
    report.at_most(f"{name}: minutes on {values['cores']} core(s)", values["minutes"], MINUTES, "min")
    report.figure(f"{name}: Frechet distance", values["frechet"]["value"])
    report.figure(f"{name}: that of training images", values["frechet"]["real"])
    for metric, bound in (("recall", LEAST_RECALL), ("diversity", LEAST_DIVERSITY)):
        value, real = values[metric]["value"], values[metric]["real"]
        report.at_least(f"{name}: {metric} {value:.3f}, real {real:.3f}", value / real, bound, "x")


def main() -> int:
    """Train, measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=cache_folder() / "runs" / "gan-untuned")
    parser.add_argument("--kept", action="store_true", help="print the figures that are kept")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    report = Report("aigc-sdk", "torch", "onnxruntime")
    for name in arguments.data:
        for seed in arguments.seeds:
            if arguments.kept:
                values = json.loads((KEPT / f"{name}-{seed}.json").read_text())
            else:
                values = measured(name, seed, arguments.runs)
            judge(report, values)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
