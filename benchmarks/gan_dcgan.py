"""The GAN family without an option against a plain DCGAN, trained for the same minutes on the same data.

    python benchmarks/gan_dcgan.py [--seeds 0 1 2] [--minutes M] [--kept]

The DCGAN is that of PyTorch's tutorial ("DCGAN Tutorial", N. Inkawhich) with its sizes, rates, initial weights and
loss, and one level less, for 28 x 28 pixels (4, 7, 14, 28) instead of 64 x 64. It is trained for as long as the run of
the GAN family with the same seed that benchmarks/gan_untuned.py has kept the figures of, and measured in the same way.
Its figures are kept in benchmarks/runs/gan-untuned too; --kept prints those.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aigc_sdk.files import write_bytes
from gan_untuned import KEPT, MOST, figures_of, parts_of
from timing import Report, git_commit, machine

DATA = "mnist-5k"
BOUND = 0.7

LATENT, WIDTH, BATCH = 100, 64, 128
RATE, BETAS = 2e-4, (0.5, 0.999)


class Generator(nn.Module):
    """Transposed convolutions from one place to 4 x 4, 7 x 7, 14 x 14 and 28 x 28."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(LATENT, 4 * WIDTH, 4, bias=False),
            nn.BatchNorm2d(4 * WIDTH),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(4 * WIDTH, 2 * WIDTH, 3, 2, 1, bias=False),
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(WIDTH, channels, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return images, -1 to 1, of noise (n, latent, 1, 1)."""
        images: Tensor = self.layers(z)
        return images


class Discriminator(nn.Module):
    """The same way back, to one probability."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * WIDTH),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * WIDTH, 4 * WIDTH, 3, 2, 1, bias=False),
            nn.BatchNorm2d(4 * WIDTH),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(4 * WIDTH, 1, 4, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities, (n,)."""
        found: Tensor = self.layers(x)
        return found.view(-1)


def initialise(module: nn.Module) -> None:
    """Draw the weights as the tutorial does."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def train(images: NDArray[np.uint8], minutes: float, seed: int) -> tuple[Generator, int]:
    """Return the generator after so many minutes, and how many steps it made."""
    torch.manual_seed(seed)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    generator, discriminator = Generator(x.shape[1]).apply(initialise), Discriminator(x.shape[1]).apply(initialise)
    loss = nn.BCELoss()
    of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=RATE, betas=BETAS)
    of_generator = torch.optim.Adam(generator.parameters(), lr=RATE, betas=BETAS)
    end, steps = time.monotonic() + 60 * minutes, 0
    while True:
        for rows in torch.randperm(len(x)).split(BATCH):
            if time.monotonic() >= end:
                return generator.eval(), steps
            real, ones, zeros = x[rows], torch.ones(len(rows)), torch.zeros(len(rows))
            discriminator.zero_grad()
            loss(discriminator(real), ones).backward()
            fake = generator(torch.randn(len(rows), LATENT, 1, 1))
            loss(discriminator(fake.detach()), zeros).backward()
            of_discriminator.step()
            generator.zero_grad()
            loss(discriminator(fake), ones).backward()
            of_generator.step()
            steps += 1


def measured(seed: int, minutes: float) -> dict[str, Any]:
    """Train, measure, keep and return the figures."""
    parts = parts_of(DATA)
    generator, steps = train(parts.images, minutes, seed)
    with torch.inference_mode():
        noise = torch.randn(MOST, LATENT, 1, 1, generator=torch.Generator().manual_seed(seed)).split(500)
        made = torch.cat([generator(some) for some in noise])
    images = ((made + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    values = {
        "seed": seed,
        "commit": git_commit(),
        "machine": machine(["torch"]),
        "minutes": minutes,
        "steps": steps,
        **figures_of(images, parts),
    }
    write_bytes(KEPT / f"dcgan-{seed}.json", (json.dumps(values, indent=1) + "\n").encode())
    return values


def main() -> int:
    """Train, measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="instead of those of the GAN family's run")
    parser.add_argument("--kept", action="store_true", help="print the figures that are kept")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch", "onnxruntime")
    distances: dict[str, list[float]] = {"dcgan": [], "gan": []}
    for seed in arguments.seeds:
        ours = json.loads((KEPT / f"{DATA}-{seed}.json").read_text())
        if arguments.kept:
            theirs = json.loads((KEPT / f"dcgan-{seed}.json").read_text())
        else:
            theirs = measured(seed, arguments.minutes or ours["minutes"])
        for name, values in (("dcgan", theirs), ("gan", ours)):
            distances[name].append(values["frechet"]["value"])
            words = f"{name}, seed {seed}, {values['steps']} steps in {values['minutes']:.1f} minutes: Frechet distance"
            report.figure(words, values["frechet"]["value"])
            report.figure(f"{name}, seed {seed}: recall", values["recall"]["value"])
    medians = {name: statistics.median(values) for name, values in distances.items()}
    report.ratio("median Frechet distance, GAN family to DCGAN", medians, "gan", "dcgan", BOUND)
    if len(arguments.seeds) > 1:
        spread = {name: max(values) - min(values) for name, values in distances.items()}
        report.ratio("spread of it, GAN family to DCGAN", spread, "gan", "dcgan", 1.0)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
