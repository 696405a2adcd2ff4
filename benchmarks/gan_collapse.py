"""Whether a training that collapses is warned of within one epoch, and a sound one is not.

    python benchmarks/gan_collapse.py [--data mnist-5k noto-emoji-32]

Trains three times on each data set without an option: as it is; with a discriminator that is frozen from the fifth
epoch on; with a generator that from the fifth epoch on is fed the same noise for every image. All end with that epoch.
"""

import argparse
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

import aigc_gan.family
import aigc_sdk as sdk
from aigc_gan.family import GAN
from aigc_sdk.data import DataSpec
from aigc_sdk.training import Batch, Carry, Losses
from datasets import fetch
from timing import Report

PLANTED_EPOCH = 5


def is_planted(data: DataSpec, batch_size: int, step: int) -> bool:
    """Tell whether the collapse has begun."""
    return step >= (PLANTED_EPOCH - 1) * (data.n // batch_size)


class Frozen(GAN):
    """A GAN whose discriminator stops learning."""

    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the losses; those of the discriminator move nothing any more."""
        losses, carry = super().training_step(batch, phase, step, carry)
        if phase == "discriminator" and is_planted(self.data, self.config.batch_size, step):
            losses = Losses(losses.total * 0)
        return losses, carry


class Constant(GAN):
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
        self.noise.fill_(not is_planted(self.data, self.config.batch_size, step))
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
            run = sdk.train("gan", fetch(data), out=Path(folder, "run"), epochs=PLANTED_EPOCH, steps=None)
            figures = [line["validation"] for line in run.metrics if "validation" in line]
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
        report.at_most(f"{data}: warnings of a sound training", len(warnings_of(GAN, data)), 0)
        for family, words in ((Frozen, "images for real"), (Constant, "much alike")):
            told = sum(words in message for message in warnings_of(family, data))
            report.at_least(f"{data}: warnings of it, {family.__name__.lower()}", told, 1)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
