"""The peer of vae_budget.py: Pythae's VAE, in an environment of its own.

    PYTHON benchmarks/vae_pythae.py IMAGES.npz OUT.npz --cpu-s 90 [--network resnet] [--loss mse] [--mixture] [--seed 0]

PYTHON has torch and pythae. Trains until the CPU seconds are spent and writes 5,000 images into OUT.npz as "normal",
drawn from N(0, 1). With --mixture the last of the seconds are kept for fitting Pythae's Gaussian mixture to the
latents, and its images are there too, as "mixture". What was counted goes into OUT.json.
"""

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

# The size and the rate of Pythae's examples; the rest are its defaults.
LATENT, BATCH, RATE, COMPONENTS = 16, 64, 1e-3, 10
SAMPLES, AT_ONCE = 5000, 250
FITTED = 10_000  # images that the mixture is fitted to: to encode all takes longer than the shorter budget


def main() -> int:
    """Train, sample, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cpu-s", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", choices=("mlp", "conv", "resnet"), default="resnet")
    parser.add_argument("--loss", choices=("mse", "bce"), default="mse")
    parser.add_argument("--mixture", action="store_true")
    arguments = parser.parse_args()
    import torch
    from pythae.samplers import NormalSampler

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    x = torch.from_numpy(np.load(arguments.images)["images"]).permute(0, 3, 1, 2).float() / 255
    model = make_model(arguments.network, arguments.loss)
    fit_s = fitted(model, x)[1] if arguments.mixture else 0.0  # about, from one that does not count
    steps, train_s = train(model, x, arguments.cpu_s - fit_s)
    made = {"normal": draw(NormalSampler(model))}
    figures = {"steps": steps, "train_s": train_s, "network": arguments.network, "loss": arguments.loss}
    figures |= {"batch": BATCH, "learning_rate": RATE}
    if arguments.mixture:
        sampler, figures["fit_s"] = fitted(model, x)
        made["mixture"] = draw(sampler)
    figures["versions"] = {name: version(name) for name in ("pythae", "torch", "scikit-learn")}
    np.savez(arguments.out, **made)
    arguments.out.with_suffix(".json").write_text(json.dumps(figures))
    return 0


def make_model(network: str, loss: str) -> Any:
    """Return Pythae's VAE with its default network, the mlp, or one of those that it has for MNIST."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks import mnist

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss=loss)
    if network == "mlp":
        return VAE(config)
    name = {"conv": "Conv", "resnet": "ResNet"}[network]
    encoder, decoder = getattr(mnist, f"Encoder_{name}_VAE_MNIST"), getattr(mnist, f"Decoder_{name}_AE_MNIST")
    return VAE(config, encoder=encoder(config), decoder=decoder(config))


def train(model: Any, x: Any, cpu_s: float) -> tuple[int, float]:
    """Make Adam's steps until the CPU seconds are spent; return how many, and the seconds."""
    import torch

    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    started, steps = time.process_time(), 0
    while True:
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = model({"data": x[rows]}).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            spent = time.process_time() - started
            if spent >= cpu_s:
                return steps, spent


def fitted(model: Any, x: Any) -> tuple[Any, float]:
    """Return the mixture sampler, fitted, and the CPU seconds that it took."""
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig

    model.eval()
    started = time.process_time()
    sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=COMPONENTS))
    sampler.fit(x[:FITTED])
    return sampler, time.process_time() - started


def draw(sampler: Any) -> Any:
    """Return images of a sampler, uint8 (n, 28, 28, 1)."""
    sampler.model.eval()
    values = sampler.sample(num_samples=SAMPLES, batch_size=AT_ONCE, return_gen=True).numpy()
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


if __name__ == "__main__":
    sys.exit(main())
