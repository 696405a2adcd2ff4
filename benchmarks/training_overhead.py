"""What the training loop adds: `sdk.train` against a bare torch loop with the same networks and the same mathematics.

    python benchmarks/training_overhead.py [--steps 600]

Each training has a process of its own. The SDK's `items_per_s` says how long its steps took; the time is taken from
the end of its first line of metrics, after about ten seconds, so that neither side's first steps count.
"""

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import aigc_sdk as sdk
from aigc_vae.config import VAEConfig
from aigc_vae.losses import kl_divergence, reconstruction, sample_latent
from aigc_vae.networks import Decoder, Encoder, one_hot
from datasets import fetch
from timing import Report, interleave, medians

PAIRS = 3
SLOWER = 1.05
DATASET = "mnist-5k"

# What both do. The steps are a training's only limit, and nothing but steps is timed: no validation, no checkpoint.
CONFIG = VAEConfig(
    clip_norm=100.0,
    precision="bfloat16",
    epochs=None,
    checkpoint_minutes=600,
    validation_fraction=0,
    test_fraction=0,
)

# The seconds from the first step's beginning to the end of some steps, by their number.
Ends = dict[int, float]


def train_with_sdk(steps: int, batch_size: int) -> Ends:
    """Train with the SDK and return when the steps ended that have a line in its metrics."""
    config = CONFIG.model_dump(exclude_unset=True) | {"steps": steps, "batch_size": batch_size}
    with TemporaryDirectory() as folder:
        run = sdk.train("vae", str(fetch(DATASET)), out=Path(folder, "run"), **config)
        ends, last = {0: 0.0}, 0
        for line in run.metrics:
            ends[line["step"]] = ends[last] + (line["step"] - last) * batch_size / line["items_per_s"]
            last = line["step"]
    return ends


def train_bare(steps: int, batch_size: int) -> Ends:
    """Train with torch alone and return when each step ended."""
    with np.load(fetch(DATASET)) as data:
        x = (torch.from_numpy(data["images"]).permute(0, 3, 1, 2).float() / 255).contiguous()
        labels, classes = torch.from_numpy(data["labels"]), len(data["label_names"])
    height, width, channels = x.shape[2], x.shape[3], x.shape[1]
    torch.manual_seed(0)
    sizes = ((height, width, channels), classes, CONFIG.latent, CONFIG.width, CONFIG.blocks)
    encoder, decoder = Encoder(*sizes), Decoder(*sizes)
    networks = nn.ModuleList([encoder, decoder])
    optimizer = Adam(networks.parameters(), lr=CONFIG.learning_rate, betas=(0.9, 0.99), fused=True)
    follow = get_ema_multi_avg_fn(CONFIG.ema_decay)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    average = AveragedModel(networks, multi_avg_fn=follow)
    epoch_steps = len(x) // batch_size

    start, ends = time.perf_counter(), {0: 0.0}
    for step in range(steps):
        if step % epoch_steps == 0:
            batches = torch.randperm(len(x))[: epoch_steps * batch_size].view(epoch_steps, batch_size)
        rows = batches[step % epoch_steps]
        images, y = x[rows], one_hot(labels[rows], classes, x)
        rate = min(1.0, (step + 1) / (CONFIG.warmup_steps + 1)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = CONFIG.learning_rate * rate
        with torch.autocast("cpu", torch.bfloat16):
            mu, logvar = encoder(images, y)
            logits = decoder(sample_latent(mu, logvar), y)
            beta = CONFIG.beta * min(1.0, step / CONFIG.beta_warmup_steps)
            loss = (reconstruction(logits, images) + beta * kl_divergence(mu, logvar)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        clip_grad_norm_(networks.parameters(), CONFIG.clip_norm or math.inf)
        optimizer.step()
        average.update_parameters(networks)
        ends[step + 1] = time.perf_counter() - start
    return ends


def in_child(function: Callable[[int, int], Ends], *arguments: int) -> Callable[[], Any]:
    """Return a function that runs one training in a new process: neither finds what the other has warmed up."""

    def run() -> Any:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(function, arguments)

    return run


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(description="Time the training loop.")
    parser.add_argument("--steps", type=int, default=600, help="of each training; should take half a minute or more")
    parser.add_argument("--batch-size", type=int, default=128, help="items in a batch")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="interleaved pairs of trainings")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch", "lightning-fabric")
    sizes = (arguments.steps, arguments.batch_size)
    actions = {"sdk": in_child(train_with_sdk, *sizes), "bare": in_child(train_bare, *sizes)}
    results = interleave(actions, arguments.pairs, warmups=0)

    speeds: dict[str, list[float]] = {name: [] for name in results}
    ratios = []
    for ours, theirs in zip(results["sdk"], results["bare"], strict=True):
        # Both over the same steps: from the SDK's first line to its last, or all if there is but one.
        first, last = ([*ours][1] if len(ours) > 2 else 0), [*ours][-1]
        items = (last - first) * arguments.batch_size
        speeds["sdk"].append(items / (ours[last] - ours[first]))
        speeds["bare"].append(items / (theirs[last] - theirs[first]))
        ratios.append(speeds["bare"][-1] / speeds["sdk"][-1])
        report.figure(f"pair {len(ratios)}, steps {first} to {last}, bare torch", speeds["bare"][-1], "/s")
        report.figure(f"pair {len(ratios)}, steps {first} to {last}, SDK", speeds["sdk"][-1], "/s")
    report.figure("items a second, bare torch, median", medians(speeds)["bare"], "/s")
    report.figure("items a second, SDK, median", medians(speeds)["sdk"], "/s")
    report.at_most("the SDK's time for a step, median of the pairs", medians({"ratio": ratios})["ratio"], SLOWER, "x")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
