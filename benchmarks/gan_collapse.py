"""Whether a training that collapses is warned of within one epoch, and a sound one is not.

    python benchmarks/gan_collapse.py [--data mnist-5k noto-emoji-32]

Trains three times on each data set without an option: as it is; with a discriminator that is frozen from the fifth
epoch on; with a generator that from the fifth epoch on is fed the same noise for every image. All are stopped after
that epoch's validation, long before the learning rate falls.
"""

import argparse
import logging
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

import aigc_gan.family
import aigc_sdk as sdk
from aigc_gan.family import GAN
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.training import Batch, Carry, Losses, Run
from datasets import fetch
from timing import Report

PLANTED_EPOCH = 5


class Enough(BaseException):
    """Ends a training; no Exception, which the SDK would make an error of the family."""


class Sound(GAN):
    """A GAN that is stopped after the epoch in which the others collapse."""

    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the losses, until it is time to stop."""
        if step >= PLANTED_EPOCH * (self.data.n // self.config.batch_size):
            raise Enough
        return super().training_step(batch, phase, step, carry)

    def has_begun(self, step: int) -> bool:
        """Tell whether the collapse has begun."""
        return step >= (PLANTED_EPOCH - 1) * (self.data.n // self.config.batch_size)


class Frozen(Sound):
    """A GAN whose discriminator stops learning."""

    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the losses; those of the discriminator move nothing any more."""
        losses, carry = super().training_step(batch, phase, step, carry)
        stopped = phase == "discriminator" and self.has_begun(step)
        return (Losses(losses.total * 0) if stopped else losses), carry


class Constant(Sound):
    """A GAN whose generator begins to make one image of each label."""

    def build(self, data: DataSpec) -> None:
        """Make the networks, and a way to take the noise away."""
        super().build(data)
        self.register_buffer("noise", torch.ones(()))
        self.generator.register_forward_pre_hook(self.weaken)

    def weaken(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the inputs without their noise, once that is planted."""
        return inputs[0] * self.noise, *inputs[1:]

    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the losses."""
        self.noise.fill_(not self.has_begun(step))
        return super().training_step(batch, phase, step, carry)


class Warnings(logging.Handler):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.messages.append(record.getMessage())


def warnings_of(family: type[GAN], data: str) -> list[str]:
    """Return what a training warns of."""
    aigc_gan.family.GAN = family  # type: ignore[misc]  # the registry looks the family up by this name
    handler = Warnings()
    logger = logging.getLogger("aigc_sdk")
    logger.addHandler(handler)
    try:
        with TemporaryDirectory() as folder:
            with suppress(Enough):
                sdk.train("gan", fetch(data), out=Path(folder, "run"))
            lines = Run.open(Path(folder, "run")).metrics
            figures = [line["validation"] for line in lines if "validation" in line]
    finally:
        logger.removeHandler(handler)
        aigc_gan.family.GAN = GAN  # type: ignore[misc]
    print(f"{family.__name__}, {data}:", ", ".join(f"{name} {value:.3f}" for name, value in figures[-1].items()))
    for message in handler.messages:
        print(f"  warned: {message}")
    return handler.messages


def main() -> int:
    """Train, count the warnings, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["mnist-5k", "noto-emoji-32"])
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch")
    for data in arguments.data:
        report.at_most(f"{data}: warnings of a sound training", len(warnings_of(Sound, data)), 0)
        for family, words in ((Frozen, ("for real", "Frechet distance has grown")), (Constant, ("much alike",))):
            told = sum(any(word in message for word in words) for message in warnings_of(family, data))
            report.at_least(f"{data}: warnings of it, {family.__name__.lower()}", told, 1)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
