"""What the SDK's training loop costs over the same training written in bare torch.

    python benchmarks/training_overhead.py [--family vae|gan] [--steps 300]

All trainings are under way in one process and take turns of five steps, because the speed of a shared machine
drifts by more within a minute than is to be measured. The first step of a turn does not count. Validation, checkpoints
and the export are no part of a step; nor is what a family does in its first steps only, which are not timed. What comes
in every so many steps only, as a GAN's penalty, counts by its share.

A third training of the GAN, by the SDK in float32, tells what bfloat16 is worth: by far the most on a processor with
AMX, which alone is held to a bound.
"""

import argparse
import math
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import aigc_sdk as sdk
from aigc_gan.augment import diffaugment
from aigc_gan.config import GANConfig
from aigc_gan.family import GAN
from aigc_gan.losses import LOSSES, r1_penalty
from aigc_gan.networks import DcganDiscriminator, DcganGenerator
from aigc_sdk.training import Family, FamilyConfig
from aigc_sdk.training.sampling import one_hot
from aigc_vae.config import VAEConfig
from aigc_vae.family import FLOW_COPIES, VAE
from aigc_vae.losses import Bernoulli, flow_matching, kl_divergence, sample_latent
from aigc_vae.networks import Decoder, Encoder, FlowPrior
from datasets import fetch
from timing import Report

DATASET = "mnist-5k"
BOUND = 1.05
PAIRS = 3
TURN = 5

# How many times as fast a step in bfloat16 is on a processor with AMX.
AMX_BOUND = 1.3

# What all trainings of a family do.
COMMON = {
    "precision": "bfloat16",
    "epochs": None,
    "checkpoint_minutes": 600,
    "validation_fraction": 0,
    "test_fraction": 0,
}
VAE_CONFIG = VAEConfig(**COMMON, clip_norm=100.0, batch_size=128)
GAN_WIDTH, GAN_R1 = 24, 1.0  # what the network and the data take if they are left out
GAN_CONFIG = GANConfig(**COMMON, batch_size=32, width=GAN_WIDTH, r1=GAN_R1)

# As the family has them: more than this share of real images taken for real makes the share of varied ones grow, from
# none to all in so many images.
SURE = 0.8
RAMP_IMAGES = 100_000

# Varied images at the beginning, so that all trainings vary some from the first step to the last.
SHARE = 0.5


class Enough(BaseException):
    """Ends a training whose steps have been timed; no Exception, which the SDK would make an error of the family."""


class Turns:
    """Lets trainings take turns, each in a thread of its name, and times their steps.

    Args:
        names: of the trainings; the first begins.
        warmups: how many steps each makes that are not timed.
        steps: how many it makes after them.

    Attributes:
        times: by name, the number of each timed step and the seconds that it took.
    """

    def __init__(self, names: tuple[str, ...], warmups: int, steps: int) -> None:
        self.times: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
        self._warmups, self._steps = warmups, warmups + steps
        self._begun = {name: threading.Semaphore(int(name == names[0])) for name in names}
        self._next = dict(zip(names, (*names[1:], names[0]), strict=True))
        self._made = dict.fromkeys(names, 0)
        self._start = 0.0

    def next_step(self) -> None:
        """Begin a step: note how long the one before took, and wait for a turn."""
        name, now = threading.current_thread().name, time.perf_counter()
        made = self._made[name]
        if made % TURN != 1 and made > self._warmups:
            self.times[name].append((made - 1, now - self._start))
        if made % TURN == 0:
            if made:
                self._begun[self._next[name]].release()
            if made >= self._steps:
                raise Enough
            self._begun[name].acquire()
        self._made[name] = made + 1
        self._start = time.perf_counter()


def in_thread(name: str, train: Callable[[], None]) -> threading.Thread:
    """Start a training in a thread, which ends when its steps have been made."""

    def run() -> None:
        try:
            train()
        except Enough:
            return

    thread = threading.Thread(target=run, name=name)
    thread.start()
    return thread


@dataclass(frozen=True)
class Subject:
    """A family whose training is timed.

    Attributes:
        family: the class.
        config: its options.
        bare: trains the same in bare torch: takes turns, and how many steps the schedule has.
        warmups: steps that are not timed, a multiple of a turn.
        period: steps after which the same work comes again.
        begin: what the SDK's training needs before its first step.
        compares_precisions: whether it is trained in float32 too.
    """

    family: type[Family]
    config: FamilyConfig
    bare: Callable[[Turns, int], None]
    warmups: int = 0
    period: int = 1
    begin: Callable[[Family], object] = id
    compares_precisions: bool = False


def time_steps(subject: Subject, turns: Turns) -> None:
    """Make the family wait for its turn at the beginning of each step, when the loop asks for the phases."""
    phases = subject.family.phases

    def timed(self: Family, step: int) -> tuple[str, ...]:
        if step == 0:
            subject.begin(self)
        turns.next_step()
        return phases(self, step)

    subject.family.phases = timed  # type: ignore[method-assign]  # the registry gives the loop this very class


def train_with_sdk(subject: Subject, steps: int, precision: str) -> None:
    """Train with the SDK."""
    config = subject.config.model_dump(exclude_unset=True) | {"steps": steps, "precision": precision}
    with TemporaryDirectory() as folder:
        sdk.train(subject.family.__name__.lower(), str(fetch(DATASET)), out=Path(folder, "run"), **config)


def read_tensors() -> tuple[Tensor, Tensor, int]:
    """Return the images, float32 (n, channels, height, width), 0 to 1, the labels, and how many classes there are."""
    with np.load(fetch(DATASET)) as data:
        images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).float() / 255
        labels, classes = torch.from_numpy(data["labels"]), len(data["label_names"])
    return torch.empty(images.shape).copy_(images), labels, classes


def rate(config: FamilyConfig, step: int, steps: int) -> float:
    """Return the factor on the learning rate."""
    return min(1.0, (step + 1) / (config.warmup_steps + 1)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def averaged(networks: nn.Module, config: FamilyConfig) -> AveragedModel:
    """Return a moving average of the weights."""
    follow = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return AveragedModel(networks, multi_avg_fn=follow)


def train_bare_vae(turns: Turns, steps: int) -> None:
    """Train the VAE with torch alone."""
    config = VAE_CONFIG
    x, labels, classes = read_tensors()
    height, width, channels = x.shape[2], x.shape[3], x.shape[1]
    sizes = ((height, width, channels), classes, config.latent, config.width, config.blocks)
    encoder, decoder = Encoder(*sizes), Decoder(*sizes)
    prior = FlowPrior(config.latent, classes, config.prior_width, config.prior_layers, config.prior_steps)
    networks = nn.ModuleList([encoder, decoder, prior])
    likelihood = Bernoulli()
    optimizer = Adam(networks.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    average = averaged(networks, config)
    epoch_steps = len(x) // config.batch_size

    for step in range(steps):
        turns.next_step()
        if step % epoch_steps == 0:
            order = torch.randperm(len(x))
        rows = order[step % epoch_steps * config.batch_size :][: config.batch_size]
        batch, y = x[rows], one_hot(labels[rows], classes, x[rows])
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate(config, step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            mu, logvar, label_logits = encoder(batch)
            z = sample_latent(mu, logvar)
            distortion = likelihood(decoder(z, y), batch).flatten(1).sum(1).mean()
            beta = config.beta * min(1.0, step / config.beta_warmup_steps)
            loss = distortion + beta * kl_divergence(mu, logvar).mean()
            loss = loss + cross_entropy(label_logits.float(), labels[rows])
            prior.observe(z.detach())
            loss = loss + flow_matching(prior, z.detach(), y, FLOW_COPIES).mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(networks.parameters(), config.clip_norm or math.inf)
        optimizer.step()
        average.update_parameters(networks)


def train_bare_gan(turns: Turns, steps: int) -> None:
    """Train the GAN with torch alone."""
    config, policy = GAN_CONFIG, ("color", "translation", "cutout")
    x, labels, classes = read_tensors()
    height, width, channels = x.shape[2], x.shape[3], x.shape[1]
    generator = DcganGenerator((height, width, channels), classes, config.latent, GAN_WIDTH)
    discriminator = DcganDiscriminator((height, width, channels), classes, GAN_WIDTH, normalised=False)
    networks = nn.ModuleList([generator, discriminator])
    losses = LOSSES[config.loss]
    optimizers = [
        Adam(each.parameters(), lr=config.learning_rate, betas=(0.0, 0.99), fused=True)
        for each in (discriminator, generator)
    ]
    average = averaged(networks, config)
    epoch_steps = len(x) // config.batch_size
    share = torch.tensor(SHARE)

    def judge(images: Tensor) -> Tensor:
        logits: Tensor = discriminator(diffaugment(images, policy, share), y)
        return logits

    for step in range(steps):
        turns.next_step()
        if step % epoch_steps == 0:
            order = torch.randperm(len(x))
        rows = order[step % epoch_steps * config.batch_size :][: config.batch_size]
        real, y = x[rows], one_hot(labels[rows], classes, x[rows])
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate(config, step, steps)

        # The discriminator's side.
        discriminator.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                fake = generator(torch.randn(len(real), config.latent), y)
            on_real, on_fake = judge(real), judge(fake)
            loss = losses.discriminator(on_real, on_fake)
        logged = [loss, on_real.mean(), on_fake.mean(), share.clone()]
        share.add_(((on_real > 0).float().mean() - SURE).sign() * len(real) / RAMP_IMAGES).clamp_(0, 1)
        if step % config.r1_interval == 0:
            penalty = GAN_R1 / 2 * config.r1_interval * r1_penalty(judge, real)
            loss = loss + penalty
        optimizers[0].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimizers[0].step()

        # The generator's.
        discriminator.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            loss = losses.generator(judge(generator(torch.randn(len(real), config.latent), y)))
        optimizers[1].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimizers[1].step()
        logged.append(loss)
        average.update_parameters(networks)


def vary_some(family: Family) -> None:
    """Begin with the share of varied images that the bare training begins with."""
    if isinstance(family, GAN):
        family.share.fill_(SHARE)


SUBJECTS = {
    "vae": Subject(VAE, VAE_CONFIG, train_bare_vae),
    "gan": Subject(
        GAN,
        GAN_CONFIG,
        train_bare_gan,
        warmups=70,  # the family looks at 2,048 images first, and keeps what its validation compares with
        period=GAN_CONFIG.r1_interval,
        begin=vary_some,
        compares_precisions=True,
    ),
}


def typical(times: list[tuple[int, float]], period: int) -> float:
    """Return the mean time of a step over a period, each of its steps by the median."""
    by_place = defaultdict(list)
    for step, seconds in times:
        by_place[step % period].append(seconds)
    return statistics.mean(map(statistics.median, by_place.values()))


def ratios(report: Report, turns: Turns, period: int, name: str, base: str) -> list[float]:
    """Print the time for a step of two trainings in each part of the whole time; return the quotients."""
    found = []
    size = len(turns.times[name]) // PAIRS
    for pair in range(PAIRS):
        part = slice(pair * size, (pair + 1) * size)
        steps = {each: typical(turns.times[each][part], period) for each in (base, name)}
        for each, seconds in steps.items():
            report.figure(f"pair {pair + 1}, a step, {each}", 1000 * seconds, "ms")
        found.append(steps[name] / steps[base])
    return found


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(description="Time the training loop.")
    parser.add_argument("--family", choices=SUBJECTS, default="vae")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    arguments = parser.parse_args()
    subject = SUBJECTS[arguments.family]
    steps = math.ceil(arguments.steps / (PAIRS * TURN)) * PAIRS * TURN
    scheduled = 2 * (subject.warmups + steps)
    report = Report("aigc-sdk", "torch", "lightning-fabric")
    trainings: dict[str, Callable[[], None]] = {
        "bare torch": lambda: subject.bare(turns, scheduled),
        "SDK": lambda: train_with_sdk(subject, scheduled, "bfloat16"),
    }
    if subject.compares_precisions:
        trainings["SDK, float32"] = lambda: train_with_sdk(subject, scheduled, "float32")
    turns = Turns(tuple(trainings), subject.warmups, steps)
    time_steps(subject, turns)
    for thread in [in_thread(name, train) for name, train in trainings.items()]:
        thread.join()
    cost = statistics.median(ratios(report, turns, subject.period, "SDK", "bare torch"))
    report.at_most("the SDK's time for a step, median of the pairs", cost, BOUND, "x")
    if subject.compares_precisions:
        gain = statistics.median(ratios(report, turns, subject.period, "SDK, float32", "SDK"))
        what = "as fast in bfloat16 as in float32, median of the pairs"
        if torch.cpu.get_capabilities().get("amx_bf16"):
            report.at_least(what, gain, AMX_BOUND, "x")
        else:
            report.figure(what, gain, "x")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
