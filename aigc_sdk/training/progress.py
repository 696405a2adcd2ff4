"""How far a training is, what it took, and how its losses are on average."""

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from aigc_sdk.training.family import FamilyConfig

# Seconds to the first line about the progress, and from there from line to line.
_FIRST_SECONDS, _TOLD_SECONDS = 5.0, 10.0

# What took less is not worth a word.
_SHOWN_SECONDS = 0.5

_log = logging.getLogger("aigc_sdk")


def now() -> float:
    """Return the seconds of the clock that trainings go by."""
    return time.monotonic()


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
        begun_minutes: what had gone by before the first step, into reading and choosing options.
        ending_s: about how many seconds what comes after the last step takes: a validation, a checkpoint, samples.
        started: when it began, or was resumed; see `now`.
    """

    options: FamilyConfig
    steps_per_epoch: int
    step: int = 0
    epoch: int = 1
    position: int = 0
    spent_minutes: float = 0.0
    begun_minutes: float = 0.0
    ending_s: float = 0.0
    started: float = field(default_factory=now)

    @property
    def minutes(self) -> float:
        """The minutes up to now, those before it was resumed counted."""
        return self.spent_minutes + (now() - self.started) / 60

    @property
    def trained_minutes(self) -> float:
        """Those of them since the first step."""
        return self.minutes - self.begun_minutes

    @property
    def progress(self) -> float:
        """From 0 before the first step, however long reading took, to 1: the limit that is nearest counts."""
        options = self.options
        usable = (options.minutes or 0.0) - self.begun_minutes - self.ending_s / 60
        limits = [
            self.step / (options.epochs * self.steps_per_epoch) if options.epochs else 0.0,
            self.step / options.steps if options.steps else 0.0,
            (self.trained_minutes / usable if usable > 0 else 1.0) if options.minutes else 0.0,
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

    def begin(self, started: float) -> None:
        """Note that the first step comes now, of a training that began then; see `now`."""
        self.started = started
        self.begun_minutes = self.minutes

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        names = ("step", "epoch", "position", "minutes", "begun_minutes", "ending_s")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.step, self.epoch, self.position = state["step"], state["epoch"], state["position"]
        self.spent_minutes, self.started = state["minutes"], now()
        # Checkpoints of older versions have neither.
        self.begun_minutes, self.ending_s = state.get("begun_minutes", 0.0), state.get("ending_s", 0.0)


class Spent:
    """The seconds of one call by what they went into, such as "reading" or "validation".

    Attributes:
        seconds: by what; that of the steps is what is left of them all.
        started: when it began, see `now`.
    """

    def __init__(self, started: float) -> None:
        self.seconds: Counter[str] = Counter()
        self.started = started

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time inside of this."""
        begun = now()
        try:
            yield
        finally:
            self.seconds[what] += now() - begun  # type: ignore[assignment]  # sums of floats

    def __str__(self) -> str:
        others = {what: seconds for what, seconds in self.seconds.items() if seconds >= _SHOWN_SECONDS}
        total = now() - self.started
        parts = {"steps": total - sum(self.seconds.values()), **others}
        words = ", ".join(f"{what} {readable_time(seconds)}" for what, seconds in parts.items())
        return f"{readable_time(total)}: {words}"


def readable_time(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> readable_time(8.2), readable_time(200), readable_time(7260)
        ('8 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
        self._started = now()
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()

    @property
    def seconds(self) -> float:
        """The time since the last line."""
        return now() - self._started

    def leave_out(self, seconds: float) -> None:
        """Do not count time in which no step was made."""
        self._started += seconds

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
        self._started = now() - state["seconds"]


class Teller:
    """Logs how far a training is: within 10 seconds of its first step, and then every 10.

    Args:
        clock: how far it is.
        meter: the losses since the last line of metrics.
        spent: what else took time.
        unit: what the items are called, for example "images".
        step_items: items of a step.
    """

    def __init__(self, clock: Clock, meter: Meter, spent: Spent, unit: str, step_items: int) -> None:
        self._clock, self._meter, self._spent = clock, meter, spent
        self._unit, self._step_items = unit, step_items
        self._begun = self._told = self._now()
        self._told_every = _FIRST_SECONDS

    def tell(self, *, always: bool = False) -> None:
        """Log a line if it is time for one, or always."""
        at = self._now()
        if always or at.time - self._told.time >= self._told_every:
            self._told_every = _TOLD_SECONDS
            _log.info("%s", self._line(at))
            self._told = at

    def _now(self) -> "_Moment":
        others = sum(self._spent.seconds.values())
        return _Moment(now(), self._clock.step, self._clock.progress, others)

    def _line(self, at: "_Moment") -> str:
        steps, seconds = at.step - self._told.step, at.time - self._told.time - (at.others - self._told.others)
        is_known = self._clock.options.minutes is None
        total = f"{'' if is_known else 'about '}{round(at.step / max(at.progress, 1e-9)):,}"
        words = [f"step {at.step:,} of {total} ({100 * at.progress:.0f} %), epoch {self._clock.epoch}"]
        if means := self._meter.means():
            words.append(readable(means))
        if steps:
            words.append(f"{steps * self._step_items / max(seconds, 1e-9):,.0f} {self._unit}/s")
        if at.progress < 1 and at.progress > self._begun.progress:
            each = (at.time - self._begun.time) / (at.progress - self._begun.progress)
            words.append(f"about {readable_time((1 - at.progress) * each)} left")
        return ", ".join(words)


class _Moment(NamedTuple):
    time: float
    step: int
    progress: float
    others: float  # seconds spent on anything but steps


def readable(figures: Mapping[str, float]) -> str:
    """Return figures as text."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
