"""What the SDK's training loop costs over the same training written in bare torch.

    python benchmarks/training_overhead.py [--steps 300]

Both trainings are under way in one process and take turns of five steps, because the speed of a shared machine
drifts by more within a minute than is to be measured. The first step of a turn does not count. Validation, checkpoints
and the export are no part of a step.
"""

import argparse
import math
import statistics
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import aigc_sdk as sdk
from aigc_vae.config import VAEConfig
from aigc_vae.family import FLOW_COPIES, VAE
from aigc_vae.losses import Bernoulli, flow_matching, kl_divergence, sample_latent
from aigc_vae.networks import Decoder, Encoder, FlowPrior, one_hot
from datasets import fetch
from timing import Report

DATASET = "mnist-5k"
BOUND = 1.05
PAIRS = 3
TURN = 5

# What both do.
CONFIG = VAEConfig(
    clip_norm=100.0,
    precision="bfloat16",
    epochs=None,
    batch_size=128,
    checkpoint_minutes=600,
    validation_fraction=0,
    test_fraction=0,
)


class Enough(BaseException):
    """Ends a training whose steps have been timed; no Exception, which the SDK would make an error of the family."""


class Turns:
    """Lets two trainings take turns, and times their steps.

    Args:
        names: of the trainings; the first begins.
        steps: how many steps each makes.
    """

    def __init__(self, names: tuple[str, str], steps: int) -> None:
        self.times: dict[str, list[float]] = {name: [] for name in names}
        self._steps = steps
        self._begun = {name: threading.Semaphore(int(name == names[0])) for name in names}
        self._other = dict(zip(names, reversed(names), strict=True))
        self._made = dict.fromkeys(names, 0)
        self._start = 0.0

    def next_step(self, name: str) -> None:
        """Begin a step: note how long the one before took, and wait for a turn."""
        now, made = time.perf_counter(), self._made[name]
        if made % TURN not in (0, 1):
            self.times[name].append(now - self._start)
        if made % TURN == 0:
            if made:
                self.times[name].append(now - self._start)
                self._begun[self._other[name]].release()
            if made >= self._steps:
                raise Enough
            self._begun[name].acquire()
        self._made[name] = made + 1
        self._start = time.perf_counter()


def train_with_sdk(turns: Turns, steps: int) -> None:
    """Train with the SDK; the loop asks the family for the phases at the beginning of each step."""

    class TimedVAE(VAE):
        def phases(self, step: int) -> tuple[str, ...]:
            turns.next_step("sdk")
            return super().phases(step)

    import aigc_vae.family

    aigc_vae.family.VAE = TimedVAE  # type: ignore[misc]  # the registry looks the family up by this name
    config = CONFIG.model_dump(exclude_unset=True) | {"steps": 2 * steps}
    with TemporaryDirectory() as folder:
        sdk.train("vae", str(fetch(DATASET)), out=Path(folder, "run"), **config)


def train_bare(turns: Turns, steps: int) -> None:
    """Train with torch alone."""
    with np.load(fetch(DATASET)) as data:
        images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).float() / 255
        labels, classes = torch.from_numpy(data["labels"]), len(data["label_names"])
    x = torch.empty(images.shape).copy_(images)
    height, width, channels = x.shape[2], x.shape[3], x.shape[1]
    sizes = ((height, width, channels), classes, CONFIG.latent, CONFIG.width, CONFIG.blocks)
    encoder, decoder = Encoder(*sizes), Decoder(*sizes)
    prior = FlowPrior(CONFIG.latent, classes, CONFIG.prior_width, CONFIG.prior_layers, CONFIG.prior_steps)
    networks = nn.ModuleList([encoder, decoder, prior])
    likelihood = Bernoulli()
    optimizer = Adam(networks.parameters(), lr=CONFIG.learning_rate, betas=(0.9, 0.99), fused=True)
    follow = get_ema_multi_avg_fn(CONFIG.ema_decay)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    average = AveragedModel(networks, multi_avg_fn=follow)
    epoch_steps = len(x) // CONFIG.batch_size

    for step in range(2 * steps):
        turns.next_step("bare")
        if step % epoch_steps == 0:
            order = torch.randperm(len(x))
        rows = order[step % epoch_steps * CONFIG.batch_size :][: CONFIG.batch_size]
        batch, y = x[rows], one_hot(labels[rows], classes, x[rows])
        rate = min(1.0, (step + 1) / (CONFIG.warmup_steps + 1)) * (0.5 + 0.5 * math.cos(math.pi * step / (2 * steps)))
        for group in optimizer.param_groups:
            group["lr"] = CONFIG.learning_rate * rate
        with torch.autocast("cpu", torch.bfloat16):
            mu, logvar, label_logits = encoder(batch)
            z = sample_latent(mu, logvar)
            distortion = likelihood(decoder(z, y), batch).flatten(1).sum(1).mean()
            beta = CONFIG.beta * min(1.0, step / CONFIG.beta_warmup_steps)
            loss = distortion + beta * kl_divergence(mu, logvar).mean()
            loss = loss + cross_entropy(label_logits.float(), labels[rows])
            prior.observe(z.detach())
            loss = loss + flow_matching(prior, z.detach(), y, FLOW_COPIES).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        clip_grad_norm_(networks.parameters(), CONFIG.clip_norm or math.inf)
        optimizer.step()
        average.update_parameters(networks)


def in_thread(train: object, *arguments: object) -> threading.Thread:
    """Start a training in a thread, which ends when its steps have been made."""

    def run() -> None:
        try:
            train(*arguments)  # type: ignore[operator]  # one of the two above
        except Enough:
            return

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(description="Time the training loop.")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    arguments = parser.parse_args()
    steps = math.ceil(arguments.steps / (PAIRS * TURN)) * PAIRS * TURN
    report = Report("aigc-sdk", "torch", "lightning-fabric")
    turns = Turns(("bare", "sdk"), steps)
    for thread in (in_thread(train_bare, turns, steps), in_thread(train_with_sdk, turns, steps)):
        thread.join()
    ratios = []
    size = len(turns.times["sdk"]) // PAIRS
    for pair in range(PAIRS):
        part = slice(pair * size, (pair + 1) * size)
        bare, ours = (statistics.median(turns.times[name][part]) for name in ("bare", "sdk"))
        ratios.append(ours / bare)
        report.figure(f"pair {pair + 1}, a step, bare torch", 1000 * bare, "ms")
        report.figure(f"pair {pair + 1}, a step, SDK", 1000 * ours, "ms")
    report.at_most("the SDK's time for a step, median of the pairs", statistics.median(ratios), BOUND, "x")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
