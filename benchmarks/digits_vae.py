"""How good digits-vae is: label control by an independent judge, and the evidence lower bound on MNIST's test set.

    python benchmarks/digits_vae.py [--run FOLDER] [--model MODEL] [--images 1000] [--samples 200]

The label figure is measured on the model file. The bounds need the encoder, which the file does not have; it comes
from the run that made the file (benchmarks/runs/digits-vae holds its averaged weights).
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

import aigc_sdk as sdk
from aigc_sdk.training import Family, Run
from aigc_vae.losses import log_weight, sample_latent
from aigc_vae.networks import one_hot
from datasets import fetch
from judge import accuracy_on_test, judge
from timing import machine

RUN = Path(__file__).parent / "runs" / "digits-vae"
PER_LABEL = 1000
LEAST_LABEL_SHARE = 0.95
LEAST_JUDGE = 0.99
MOST_NATS = 96.0
_BATCH = 50


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits-vae")
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--images", type=int, default=1000, help="test images for the importance-weighted bound")
    parser.add_argument("--samples", type=int, default=200, help="K of that bound")
    arguments = parser.parse_args()
    print(machine(["torch", "onnxruntime"]))
    made = arguments.run / "made.json"
    if made.exists():
        print("trained:", ", ".join(f"{key} {value}" for key, value in json.loads(made.read_text()).items()))
    held = [label_control(arguments.model), bounds(Run.open(arguments.run), arguments.images, arguments.samples)]
    return 0 if all(held) else 1


def label_control(model: str) -> bool:
    """Print for each label which share of 1,000 samples at temperature 1 the judge takes for it."""
    accuracy = accuracy_on_test()
    print(f"judge: {accuracy:.4f} right on MNIST's test set (at least {LEAST_JUDGE})")
    predict = judge()
    shares = []
    for label in range(10):
        images = sdk.generate(model, PER_LABEL, seed=label, label=str(label), temperature=1.0).to_numpy()
        shares.append(float((predict(images) == label).mean()))
    print("label control:", " ".join(f"{label}:{share:.3f}" for label, share in enumerate(shares)))
    print(f"label control: mean {np.mean(shares):.4f}, least {min(shares):.4f} (each at least {LEAST_LABEL_SHARE})")
    return accuracy >= LEAST_JUDGE and min(shares) >= LEAST_LABEL_SHARE


def bounds(run: Run, images: int, samples: int) -> bool:
    """Print the negative evidence lower bound and the importance-weighted one, in nats for each image."""
    torch.manual_seed(0)
    family = run.family()
    archive = np.load(fetch("mnist-test"), allow_pickle=False)
    # Every pixel is drawn once, as black or white, with its grey as the probability.
    pixels = torch.bernoulli(torch.from_numpy(archive["images"]).permute(0, 3, 1, 2).float() / 255)
    labels = torch.from_numpy(archive["labels"])

    with torch.inference_mode():
        # The pixels are black and white already, so that drawing them again changes nothing.
        terms = [
            family.terms({"images": pixels[i : i + 500], "labels": labels[i : i + 500]})
            for i in range(0, len(pixels), 500)
        ]
    elbo = -torch.cat([distortion + rate for distortion, rate in terms]).mean().item()
    kl = torch.cat([rate for _, rate in terms]).mean().item()
    any_label = -elbo + math.log(10)
    print(f"negative ELBO, beta 1, {len(pixels)} test images: {-elbo:.2f} nats given the label (KL {kl:.2f});")
    print(f"  {any_label:.2f} nats without it (plus log 10, a bound on -log p(x)) (at most {MOST_NATS})")
    weighted = importance_weighted(family, pixels[:images], labels[:images], samples)
    print(
        f"importance-weighted bound, K = {samples}, first {len(pixels[:images])} test images: {weighted:.2f} nats given"
        f" the label, {weighted + math.log(10):.2f} without it (published for a plain VAE without labels: 89.8)"
    )
    return any_label <= MOST_NATS


def importance_weighted(family: Family, pixels: torch.Tensor, labels: torch.Tensor, samples: int) -> float:
    """Return the bound of Burda et al. 2015 (eq. 8) on -log p(x | y), in nats, a mean over the images."""
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            x = pixels[start : start + _BATCH]
            y = one_hot(labels[start : start + _BATCH], 10, x)
            mu, logvar = family.encoder(x, y)
            weights = []
            for _ in range(samples):
                z = sample_latent(mu, logvar)
                weights.append(log_weight(family.decoder(z, y), x, z, mu, logvar))
            total -= float((torch.logsumexp(torch.stack(weights), 0) - math.log(samples)).sum())
    return total / len(pixels)


if __name__ == "__main__":
    sys.exit(main())
