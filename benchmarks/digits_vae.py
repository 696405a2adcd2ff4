"""How good digits-vae is: label control by an independent judge, and the evidence lower bound on MNIST's test set.

    python benchmarks/digits_vae.py [--run FOLDER] [--model MODEL] [--images 10000] [--samples 200]

The label figure is measured on the model file. The bounds need the encoder, which the file does not have; it comes
from the run that made the file (benchmarks/runs/digits-vae holds its averaged weights).
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.distributions import Normal
from torch.func import jacrev, vmap

import aigc_sdk as sdk
from aigc_sdk.training import Run
from aigc_sdk.training.sampling import one_hot
from aigc_vae.family import VAE
from aigc_vae.losses import log_weight, sample_latent
from aigc_vae.networks import FlowPrior
from datasets import fetch
from judge import accuracy_on_test, judge
from timing import machine

RUN = Path(__file__).parent / "runs" / "digits-vae"
PER_LABEL = 1000
# The importance-weighted bound is of these many of the test images; it takes K times as long.
WEIGHTED_IMAGES = 1000
LEAST_LABEL_SHARE = 0.95
LEAST_JUDGE = 0.99
MOST_NATS = 96.0
_BATCH = 250
_FLOW_STEPS = 40


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits-vae")
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--images", type=int, default=10_000, help="test images for the negative ELBO")
    parser.add_argument("--samples", type=int, default=200, help="K of the importance-weighted bound")
    arguments = parser.parse_args()
    print(machine(["torch", "onnxruntime"]))
    made = arguments.run / "made.json"
    if made.exists():
        print("trained:", ", ".join(f"{key} {value}" for key, value in json.loads(made.read_text()).items()))
    held = [
        label_control(arguments.model, LEAST_LABEL_SHARE),
        bounds(Run.open(arguments.run), arguments.images, arguments.samples),
    ]
    return 0 if all(held) else 1


def label_control(model: str, least: float) -> bool:
    """Print for each label which share of 1,000 samples the judge takes for it; every one has to be at least that."""
    accuracy = accuracy_on_test()
    print(f"judge: {accuracy:.4f} right on MNIST's test set (at least {LEAST_JUDGE})")
    predict = judge()
    shares = []
    for label in range(10):
        images = sdk.generate(model, PER_LABEL, seed=label, label=str(label)).to_numpy()
        shares.append(float((predict(images) == label).mean()))
    print("label control:", " ".join(f"{label}:{share:.3f}" for label, share in enumerate(shares)))
    print(f"label control: mean {np.mean(shares):.4f}, least {min(shares):.4f} (each at least {least})")
    return accuracy >= LEAST_JUDGE and min(shares) >= least


def bounds(run: Run, images: int, samples: int) -> bool:
    """Print bounds on -log p(x) of MNIST's test images, in nats for each image; the lowest is held to the figure."""
    torch.manual_seed(0)
    family = run.family()
    archive = np.load(fetch("mnist-test"), allow_pickle=False)
    grey = torch.from_numpy(archive["images"])[:images].permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(archive["labels"])[:images]
    # Every pixel is drawn once, as black or white, with its grey as the probability.
    x = torch.bernoulli(grey)
    # The bounds hold for whatever distribution z is drawn from: the encoder may see what it was trained on.
    seen = x if family.config.binarize else grey

    with torch.inference_mode():
        given_label = {"negative ELBO, prior N(0, 1)": elbo(family, seen, x, labels, normal_log_density)}
        if isinstance(family.prior, FlowPrior):
            density = partial(flow_log_density, family.prior)
            given_label["negative ELBO, learned prior"] = elbo(family, seen, x, labels, density)
        few = slice(min(images, WEIGHTED_IMAGES))
        weighted = importance_weighted(family, seen[few], x[few], labels[few], samples)
    name = f"importance-weighted, prior N(0, 1), K = {samples}, first {len(x[few])} images"
    given_label[name] = weighted
    print(f"bounds on -log p(x), {len(x)} test images, black and white, in nats given the label, and without it")
    print("  (which adds log 10: the label is one of ten)")
    for name, nats in given_label.items():
        print(f"  {name}: {nats:.2f}, {nats + math.log(10):.2f}")
    lowest = min(nats for name, nats in given_label.items() if "ELBO" in name) + math.log(10)
    print(f"negative ELBO without the label: {lowest:.2f} nats (at most {MOST_NATS})")
    return lowest <= MOST_NATS


LogDensity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def elbo(family: VAE, seen: torch.Tensor, pixels: torch.Tensor, labels: torch.Tensor, log_density: LogDensity) -> float:
    """Return -log p(x | z, y) + log q(z | x) - log p(z | y) with beta 1, in nats, a mean over the images.

    Args:
        family: the trained VAE.
        seen: float32 (n, 1, 28, 28), 0 to 1, what the encoder gets.
        pixels: float32 (n, 1, 28, 28), 0 or 1.
        labels: int64 (n,).
        log_density: log p(z | y), (n,), of latents (n, latent) and one-hot labels (n, 10).
    """
    total = 0.0
    for start in range(0, len(pixels), _BATCH):
        x = pixels[start : start + _BATCH]
        y = one_hot(labels[start : start + _BATCH], 10, x)
        mu, logvar, _ = family.encoder(seen[start : start + _BATCH])
        z = sample_latent(mu, logvar)
        log_posterior = Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1)
        total += float((family.distortion(z, y, x) + log_posterior - log_density(z, y)).sum())
    return total / len(pixels)


def normal_log_density(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return log N(z; 0, 1), (n,)."""
    del y
    return Normal(0.0, 1.0).log_prob(z).sum(1)


def flow_log_density(prior: FlowPrior, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return log p(z | y), (n,), of the learned prior: the way back to the noise, and how it stretches on the way.

    The log density changes along the field by minus its divergence (Chen et al. 2018, eq. 8), which is exact here:
    the trace of the whole Jacobian. Like the samples of the model, it is of the field itself, without step errors:
    twice the steps change it by less than 0.01 nats.
    """

    def velocity(x: torch.Tensor, label: torch.Tensor, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = prior.velocity(x[None], time, label[None])[0]
        return out, out

    jacobian = vmap(jacrev(velocity, has_aux=True), in_dims=(0, 0, None))
    x, divergence = prior.standardise(z), torch.zeros(len(z))
    for step in range(_FLOW_STEPS, 0, -1):
        start, middle = (prior.time(torch.full((1, 1), (step - part) / _FLOW_STEPS)) for part in (0.0, 0.5))
        half = x - 0.5 / _FLOW_STEPS * prior.velocity(x, start, y)
        matrix, change = jacobian(half, y, middle)
        x = x - change / _FLOW_STEPS
        divergence = divergence + matrix.diagonal(dim1=1, dim2=2).sum(1) / _FLOW_STEPS
    return normal_log_density(x, y) - divergence - prior.deviation.log().sum()


def importance_weighted(
    family: VAE, seen: torch.Tensor, pixels: torch.Tensor, labels: torch.Tensor, samples: int
) -> float:
    """Return the bound of Burda et al. 2015 (eq. 8) on -log p(x | y) with the prior N(0, 1), in nats, a mean."""
    total = 0.0
    for start in range(0, len(pixels), _BATCH):
        x = pixels[start : start + _BATCH]
        y = one_hot(labels[start : start + _BATCH], 10, x)
        mu, logvar, _ = family.encoder(seen[start : start + _BATCH])
        weights = []
        for _ in range(samples):
            z = sample_latent(mu, logvar)
            weights.append(log_weight(family.distortion(z, y, x), z, mu, logvar))
        total -= float((torch.logsumexp(torch.stack(weights), 0) - math.log(samples)).sum())
    return total / len(pixels)


if __name__ == "__main__":
    sys.exit(main())
