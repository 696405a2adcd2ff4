"""What the learned prior of a VAE is worth: Frechet distance, precision and recall with it and without it.

    python benchmarks/vae_prior.py [--run FOLDER] [--minutes M] [--images 5000]

Of a run with a learned prior (benchmarks/runs/digits-vae without --run) the same networks are sampled twice: from
what the flow learned, and from N(0, 1) as in a plain VAE. That is hard on the plain VAE, which would have been
trained with a beta that makes N(0, 1) fit; so with --minutes two more are trained for so long each, the recipe of
digits-vae, and the one of version 1.0.0, a plain VAE with beta = 2.4. Real digits against other real
ones, MNIST's training set against its test set, are the yardstick.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_sdk.recipe import Recipe
from aigc_sdk.seeds import item_seeds
from aigc_sdk.training import Run
from aigc_vae.family import VAE
from aigc_vae.networks import FlowPrior, NormalPrior
from datasets import fetch
from timing import machine

ROOT = Path(__file__).parent.parent
RUN = ROOT / "benchmarks" / "runs" / "digits-vae"
RECIPE = ROOT / "plugins" / "aigc_zoo" / "recipes" / "digits-vae.toml"
METRICS = ("frechet", "precision", "recall")
BETA_OF_NORMAL = 2.4
MOST_OF_NORMAL = 0.7
LEAST_RECALL = 0.5
_BATCH = 500


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--minutes", type=float, help="train the pair for so many minutes each")
    parser.add_argument("--images", type=int, default=5000, help="images on either side")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    print(machine(["torch", "onnxruntime"]))

    real = score(train_images(arguments.images), arguments.images)
    show("real, training set", real, real)
    held = [compare(Run.open(arguments.run).family(), None, real, arguments.images)]
    if arguments.minutes:
        learned, plain = (trained(arguments.minutes, **options) for options in ({}, PLAIN))
        held.append(compare(learned, plain, real, arguments.images))
    return 0 if all(held) else 1


# What digits-vae 1.0.0 was trained with, a plain VAE.
PLAIN: dict[str, Any] = {"prior": "normal", "beta": BETA_OF_NORMAL, "binarize": True, "width": 32}


def compare(learned: VAE, plain: VAE | None, real: dict[str, float], n: int) -> bool:
    """Print the figures of a VAE with a learned prior and of one without, by default the same with N(0, 1)."""
    with_prior = score(draw(learned, n), n)
    show("learned prior", with_prior, real)
    if plain is None:
        assert isinstance(learned.prior, FlowPrior)
        learned.prior = NormalPrior()
    without = score(draw(plain or learned, n), n)
    show("N(0, 1)" if plain is None else f"plain VAE, beta {BETA_OF_NORMAL}", without, real)
    ratio, recall = with_prior["frechet"] / without["frechet"], with_prior["recall"] / real["recall"]
    print(f"  Frechet distance x {ratio:.3f} (at most {MOST_OF_NORMAL}), recall x {recall:.3f} of real against real")
    return ratio <= MOST_OF_NORMAL and recall >= LEAST_RECALL


def score(images: NDArray[np.uint8], n: int) -> dict[str, float]:
    """Return each figure of images against the test set, on the features of digits-features."""
    report = sdk.evaluate(images, fetch("mnist-test"), train=fetch("mnist"), metrics=METRICS, n=n)
    return {score.metric: score.value for score in report.scores}


def show(name: str, figures: dict[str, float], real: dict[str, float]) -> None:
    """Print one line; the Frechet distance also as a multiple of that of real digits."""
    multiple = figures["frechet"] / real["frechet"]
    rest = ", ".join(f"{metric} {figures[metric]:.3f}" for metric in METRICS[1:])
    print(f"{name}: Frechet distance {figures['frechet']:.4f} ({multiple:.1f} x real), {rest}")


def draw(family: VAE, n: int) -> NDArray[np.uint8]:
    """Return n images at temperature 1, uint8 (n, 28, 28, 1), with labels as frequent as in the training data."""
    sampler = family.sampler("generate").eval()
    seeds = torch.from_numpy(item_seeds(0, n)).split(_BATCH)
    with torch.inference_mode():
        controls = [{"label": torch.full_like(some, -1), "temperature": torch.ones(len(some))} for some in seeds]
        return torch.cat([sampler(some, fed) for some, fed in zip(seeds, controls, strict=True)]).numpy()


def train_images(n: int) -> NDArray[np.uint8]:
    """Return n of MNIST's training images."""
    with np.load(fetch("mnist")) as archive:
        images = archive["images"]
    return np.asarray(images[np.random.default_rng(0).permutation(len(images))[:n]])


def trained(minutes: float, **options: Any) -> VAE:
    """Return a VAE trained by the recipe of digits-vae for so many minutes, with other options where given."""
    config = {**Recipe.read(RECIPE).train.config, "epochs": None, "minutes": minutes, **options}
    with tempfile.TemporaryDirectory() as folder:
        run = sdk.train("vae", fetch("mnist"), out=Path(folder) / "run", seed=1, **config)
        family = run.family()
    assert isinstance(family, VAE)
    return family


if __name__ == "__main__":
    sys.exit(main())
