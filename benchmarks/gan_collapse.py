"""Whether a training that is made to collapse is warned of within one epoch, and a sound one is not.

    python benchmarks/gan_collapse.py [--data mnist]

Three trainings of one epoch each: as it is; with a discriminator that is frozen; with a generator that is fed the same
noise for every image.
"""

import argparse
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import aigc_gan.family
import aigc_sdk as sdk
from aigc_gan.family import GAN
from aigc_sdk.data import DataSpec
from datasets import fetch
from timing import Report


class Frozen(GAN):
    """A GAN whose discriminator does not learn."""

    def optimizers(self) -> dict[str, Optimizer]:
        """Return the optimizers, that of the discriminator with a rate of 0."""
        optimizers = super().optimizers()
        for group in optimizers["discriminator"].param_groups:
            group["lr"] = 0.0
        return optimizers


class Constant(GAN):
    """A GAN whose generator makes one image of each label."""

    def build(self, data: DataSpec) -> None:
        """Make the networks; whatever noise comes, the generator gets zeros."""
        super().build(data)
        self.generator.register_forward_pre_hook(_without_noise)


def _without_noise(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return torch.zeros_like(inputs[0]), *inputs[1:]


class Warnings(logging.Handler):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.messages.append(record.getMessage())


def warnings_of(family: type[GAN], data: str) -> list[str]:
    """Return what a training of one epoch warns of."""
    aigc_gan.family.GAN = family  # type: ignore[misc]  # the registry looks the family up by this name
    handler = Warnings()
    logger = logging.getLogger("aigc_sdk")
    logger.addHandler(handler)
    try:
        with TemporaryDirectory() as folder:
            run = sdk.train("gan", fetch(data), out=Path(folder, "run"), epochs=1, steps=None)
            figures = [line["validation"] for line in run.metrics if "validation" in line]
    finally:
        logger.removeHandler(handler)
        aigc_gan.family.GAN = GAN  # type: ignore[misc]
    print(", ".join(f"{name} {value:.3f}" for name, value in figures[-1].items()))
    print(*(f"  warned: {message}" for message in handler.messages), sep="\n")
    return handler.messages


def main() -> int:
    """Train, count the warnings, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch")
    sound, frozen, constant = (len(warnings_of(each, arguments.data)) for each in (GAN, Frozen, Constant))
    report.at_most("warnings of a sound training", sound, 0)
    report.at_least("warnings of a frozen discriminator", frozen, 1)
    report.at_least("warnings of a constant generator", constant, 1)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
