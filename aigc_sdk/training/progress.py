"""How far a training is, and how its losses are on average; both go into checkpoints."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from aigc_sdk.training.family import FamilyConfig


@dataclass
class Clock:
    """How far the training is, and how far it may go.

    Attributes:
        options: with the limits and the learning rate.
        steps_per_epoch: full batches in the training part.
        step: steps made.
        epoch: the pass over the data that is under way, from 1.
        position: steps made in it.
        spent_minutes: what the training had taken when it was last resumed.
    """

    options: FamilyConfig
    steps_per_epoch: int
    step: int = 0
    epoch: int = 1
    position: int = 0
    spent_minutes: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def minutes(self) -> float:
        """The minutes of training up to now, those before it was resumed counted."""
        return self.spent_minutes + (time.monotonic() - self._started) / 60

    @property
    def progress(self) -> float:
        """From 0 to 1: the limit that is nearest counts."""
        options = self.options
        limits = [
            self.step / (options.epochs * self.steps_per_epoch) if options.epochs else 0.0,
            self.step / options.steps if options.steps else 0.0,
            self.minutes / options.minutes if options.minutes else 0.0,
        ]
        return min(1.0, max(limits))

    @property
    def validates_within_pass(self) -> bool:
        """Whether a validation is due that the end of the pass does not bring anyway."""
        every = self.options.validation_steps
        return every is not None and self.position % every == 0 and self.position < self.steps_per_epoch

    def learning_rate(self) -> float:
        """Return the factor on the peak learning rate: a linear warm-up, then half a cosine to 0."""
        # A short training is warm after a tenth of it, whatever its warm-up.
        warmed = min(1.0, max((self.step + 1) / (self.options.warmup_steps + 1), 10 * self.progress))
        return warmed * (0.5 + 0.5 * math.cos(math.pi * self.progress))

    def count_step(self) -> None:
        """Note that a step was made."""
        self.step += 1
        self.position += 1

    def count_epoch(self) -> None:
        """Note that a pass over the data is over."""
        self.epoch += 1
        self.position = 0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"step": self.step, "epoch": self.epoch, "position": self.position, "minutes": self.minutes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.step, self.epoch, self.position = state["step"], state["epoch"], state["position"]
        self.spent_minutes, self._started = state["minutes"], time.monotonic()


class Meter:
    """Means of what the steps since the last line of metrics returned.

    Attributes:
        items: seen in those steps.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new line."""
        self.items = 0
        self._started = time.monotonic()
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()

    @property
    def seconds(self) -> float:
        """The time since the last line."""
        return time.monotonic() - self._started

    def leave_out(self, minutes: float) -> None:
        """Do not count time in which no step was made."""
        self._started += 60 * minutes

    def add(self, figures: Mapping[str, torch.Tensor]) -> None:
        """Add the figures of a phase; they stay where they are, so that an accelerator is not waited for."""
        for name, value in figures.items():
            self._sums[name] = self._sums[name] + value.detach() if name in self._sums else value.detach()
            self._counts[name] += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each figure over the phases that had it."""
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        counts = dict(self._counts)
        return {"items": self.items, "seconds": self.seconds, "sums": dict(self._sums), "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.items, self._sums, self._counts = state["items"], state["sums"], Counter(state["counts"])
        self._started = time.monotonic() - state["seconds"]
