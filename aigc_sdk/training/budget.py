"""Budget: what a training may take decides about options that were left out, such as the size of a step."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aigc_sdk.training.family import Batch, Family, FamilyConfig, Size
from aigc_sdk.training.progress import now
from aigc_sdk.training.trainer import Data, Split, Trainer, prepare, steps_of_pass

# The speed is measured for this share of the minutes, and so many seconds at most, for each size that is tried.
_TIMED_SHARE, _TIMED_SECONDS = 0.015, 3.0

_log = logging.getLogger("aigc_sdk")


@dataclass(frozen=True)
class Held:
    """How many steps a training with these options has, and how long one takes, where that was measured."""

    options: FamilyConfig
    steps: int
    step_s: float | None = None


def settle(family: type[Family], options: FamilyConfig, data: Data, split: Split, *, seed: int, started: float) -> Held:
    """Return the options with all that was left out chosen for the data and for what the training may take.

    Where it has minutes, the speed is measured, on weights that are thrown away; torch's random numbers are not used
    up.

    Args:
        family: to train.
        options: as they were given.
        data: to train on.
        split: its parts.
        seed: of the training.
        started: when the minutes began, in seconds of `progress.now`.
    """
    spec = data.spec(split["train"])
    sizes = family.sizes(options, spec)
    with torch.random.fork_rng():
        held = _held(family, options, sizes, data, split, seed, started)
    given = {name: value for name, value in options if value is not None}
    has_limit = any((options.epochs, options.steps, options.minutes))
    chosen = held.options.model_dump() | ({} if has_limit else {"steps": held.steps})
    chosen |= {**family.fitted(held.options, spec, held.steps), **given}
    settled = family.Config.model_validate(chosen)
    _tell(options, settled, held, sizes[0])
    return Held(settled, held.steps, held.step_s)


def _held(
    family: type[Family],
    options: FamilyConfig,
    sizes: tuple[Size, ...],
    data: Data,
    split: Split,
    seed: int,
    started: float,
) -> Held:
    """Return the largest size of which the budget holds enough steps; the first one where it holds too few of each."""
    found: Held | None = None
    for size in sizes:
        # A larger step takes at least as long.
        if found and found.steps < size.least_steps:
            break
        left_out = {name: value for name, value in size.options.items() if getattr(options, name) is None}
        if found and all(getattr(found.options, name) == value for name, value in left_out.items()):
            continue
        candidate = _steps_of(family, options.model_copy(update=left_out), data, split, seed, started)
        if found and candidate.steps < size.least_steps:
            break
        found = candidate
    assert found is not None, "a family has at least one size"
    return found


def _steps_of(
    family_class: type[Family], options: FamilyConfig, data: Data, split: Split, seed: int, started: float
) -> Held:
    """Return how many steps a training with these options has."""
    spec = data.spec(split["train"])
    family = family_class(options)
    family.build(spec)
    _, each = steps_of_pass(family, data, split["train"])
    limits = [options.epochs * each if options.epochs else None, options.steps]
    step_s = None
    if options.minutes:
        left_s = 60 * options.minutes - (now() - started)
        trainer = prepare(Path(), family, data, split, seed)
        step_s = seconds_of_step(trainer, min(_TIMED_SECONDS, _TIMED_SHARE * left_s))
        limits.append(int(left_s / step_s))
    known = [limit for limit in limits if limit is not None]
    steps = min(known) if known else family_class.usual_steps(options, spec, each)
    return Held(options, max(1, steps), step_s)


def seconds_of_step(trainer: Trainer, most_s: float, *, most_steps: int | None = None, warm_ups: int = 1) -> float:
    """Return the mean seconds of a step with its batch; a median would miss what only some steps do.

    Args:
        trainer: whose weights change.
        most_s: stop after so many seconds, but not before the second step.
        most_steps: and after so many steps behind the warm-ups.
        warm_ups: steps, in which torch gets ready, that do not count where there are others.
    """
    times: list[float] = []
    begun = now()
    for batch in _pass_after_pass(trainer):
        trainer.step(batch)
        times.append(now() - begun - sum(times))
        if len(times) > 1 and (sum(times) >= most_s or len(times[warm_ups:]) == most_steps):
            break
    return float(np.mean(times[warm_ups:] or times[1:]))


def _pass_after_pass(trainer: Trainer) -> Iterator[Batch]:
    while True:
        yield from trainer.epoch()
        trainer.clock.count_epoch()


def _tell(options: FamilyConfig, settled: FamilyConfig, held: Held, smallest: Size) -> None:
    """Log what was chosen, and warn where the training is too short to teach much."""
    chosen = {name: value for name, value in settled if value != getattr(options, name)}
    if chosen:
        speed = "" if held.step_s is None else f", {1000 * held.step_s:.1f} ms each"
        words = ", ".join(f"{name}={value}" for name, value in chosen.items())
        _log.info("chosen for about %s steps%s: %s", f"{held.steps:,}", speed, words)
    if held.steps < smallest.least_steps:
        _log.warning(
            "The training ends too early: about %s steps are few, at least %s are worth while. Give more epochs, steps"
            " or minutes.",
            f"{held.steps:,}",
            f"{smallest.least_steps:,}",
        )
