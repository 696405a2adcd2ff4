"""Trainer: what a training has in memory, the step that changes it, and its way into a checkpoint and back."""

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aigc_sdk.errors import InvalidData, TrainingFailed
from aigc_sdk.modality import find_modality
from aigc_sdk.training.batches import batches, epoch_rows, lane_steps, lanes
from aigc_sdk.training.family import Batch, Carry, Family, FamilyConfig
from aigc_sdk.training.journal import not_finite
from aigc_sdk.training.progress import Clock, Meter, Spent, now

_log = logging.getLogger("aigc_sdk")

# Items in a batch where neither the options nor a budget say so.
_BATCH_SIZE = 64

# What a family is trained on; of a stream its codes are read, see `Dataset`.
Data = Any
Split = Mapping[str, NDArray[np.int64]]


@dataclass
class Best:
    """The best validation so far: its first figure, its epoch, and the averaged weights then."""

    value: float
    epoch: int
    weights: dict[str, torch.Tensor]


@dataclass
class Trainer:
    """A training under way; made by `prepare`.

    Attributes:
        folder: the run folder, for messages.
        family: the weights being trained, on the device; `module` is the same with Fabric around it.
        optimizers: by phase; `wrapped` are the same with Fabric around them, `peaks` the rates of their groups.
        average: follows the weights.
        data: to train and validate on.
        split: its parts.
        seed: of the order of the data.
        batch_size: items in a batch, at most all of the training part.
        clock: how far it is.
        meter: the losses since the last line of metrics.
        carry: what the family handed on from the last batch.
        best: the best validation, when that is exported.
        spent: what the time of this call went into.
        endings: the seconds that each thing that comes after the last step took the last time.
    """

    folder: Path
    family: Family
    options: FamilyConfig
    fabric: Fabric
    module: Any
    optimizers: dict[str, Optimizer]
    wrapped: dict[str, Any]
    peaks: list[float]
    average: AveragedModel
    data: Data
    split: Split
    seed: int
    batch_size: int
    clock: Clock
    meter: Meter = field(default_factory=Meter)
    carry: Carry = None
    best: Best | None = None
    spent: Spent = field(default_factory=lambda: Spent(now()))
    endings: dict[str, float] = field(default_factory=dict)

    @property
    def averaged(self) -> Family:
        """The family with the averaged weights."""
        return cast(Family, self.average.module)

    @property
    def device(self) -> torch.device:
        """Where the training runs."""
        return self.fabric.device

    @property
    def rate(self) -> float:
        """The peak learning rate at this step."""
        return self.options.learning_rate * self.clock.learning_rate()

    @property
    def stops_early(self) -> bool:
        """Whether the last `early_stop_epochs` validations, this epoch's included, were no better than one before."""
        patience = self.options.early_stop_epochs
        return patience is not None and self.clock.epoch - (self.best.epoch if self.best else 0) >= patience

    @property
    def unit(self) -> tuple[str, int]:
        """What the log counts, and how many of it a step has."""
        if self.data.is_stream:
            return "characters", self.batch_size * self.family.span
        return find_modality(self.family.modality).training.unit, self.batch_size

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Count the time inside as none of steps; with a limit in minutes there will be as much of it at the end."""
        begun = now()
        with self.spent.on(what):
            yield
        took = now() - begun
        self.meter.leave_out(took)
        self._expect(what, took)

    def expect_validation(self, step_s: float) -> None:
        """Expect of a validation, until there was one, that an item takes a third of what it takes in a step."""
        rows = self.split["validation"]
        items = len(rows)
        if self.data.is_stream and items:
            items = int(self.data.starts[rows[-1] + 1] - self.data.starts[rows[0]])
        self._expect("validation", items / self.unit[1] * step_s / 3)

    def _expect(self, what: str, seconds: float) -> None:
        self.endings[what] = seconds
        self.clock.ending_s = sum(self.endings.values())

    def epoch(self) -> Iterator[Batch]:
        """Return the batches that are left of this epoch; every one is full, and what is over comes in other epochs."""
        if self.data.is_stream:
            return lanes(
                self.data,
                self.split["train"],
                self.batch_size,
                self.family.span,
                self.device,
                seed=self.seed,
                epoch=self.clock.epoch,
                first=self.clock.position,
            )
        rows, n = self.split["train"], self.clock.steps_per_epoch * self.batch_size
        labels = self.data.labels if self.options.balance_classes else None
        classes = None if labels is None else labels[rows]
        order = epoch_rows(rows, self.seed, self.clock.epoch, n, classes)
        order = order[self.clock.position * self.batch_size :]
        modality = self.family.modality
        return batches(self.data, order, self.batch_size, self.device, modality, self.options, varied=True)

    def step(self, batch: Batch) -> None:
        """Run every phase on this batch, then let the average follow the weights."""
        clock, family = self.clock, self.family
        rate = clock.learning_rate()
        groups = (group for optimizer in self.optimizers.values() for group in optimizer.param_groups)
        for group, peak in zip(groups, self.peaks, strict=True):
            group["lr"] = peak * rate
        phases = family.phases(clock.step)
        for phase in phases:
            with self.fabric.autocast():
                losses, self.carry = family.training_step(batch, phase, clock.step, self.carry)
            # Reading a number off an accelerator would wait for it; there the journal finds out, some steps later.
            if self.device.type == "cpu" and not math.isfinite(loss := losses.total.item()):
                raise TrainingFailed(not_finite(clock.step + 1, {"loss": loss}, self.folder))
            self.wrapped[phase].zero_grad()
            self.fabric.backward(losses.total)
            if self.options.clip_norm is not None:
                self.fabric.clip_gradients(self.module, self.wrapped[phase], max_norm=self.options.clip_norm)
            self.wrapped[phase].step()
            self.meter.add({"loss" if len(phases) == 1 else phase: losses.total, **losses.parts})
        self.average.update_parameters(family)
        clock.count_step()
        self.meter.items += self.batch_size

    def validate(self) -> dict[str, float]:
        """Return the figures of the averaged weights: as a whole, and the means over the validation part."""
        family, rows = self.averaged, self.split["validation"]
        was_training = family.training
        family.eval()
        totals: Counter[str] = Counter()
        training, seen = find_modality(family.modality).training, 0
        with torch.no_grad():
            for batch in batches(self.data, rows, self.batch_size, self.device, family.modality, self.options):
                weight = training.weight(batch)
                seen += weight
                for name, value in family.validate(batch).items():
                    totals[name] += value * weight  # type: ignore[assignment]  # sums of floats
            means = {name: total / seen for name, total in totals.items()}
            figures = family.assess(self.clock.step, means)
        family.train(was_training)
        return figures | means

    def keep_if_best(self, figures: Mapping[str, float]) -> None:
        """Keep the averaged weights if the best are to be exported and these are the best so far."""
        if not self.options.keeps_best:
            return
        if not figures:
            raise TrainingFailed(
                "early_stop_epochs and keep_best need a figure to compare, and the validation gives none."
            )
        value = next(iter(figures.values()))
        if value < (self.best.value if self.best else math.inf):
            weights = {name: tensor.detach().clone() for name, tensor in self.averaged.state_dict().items()}
            self.best = Best(value, self.clock.epoch, weights)

    def finish(self) -> Family:
        """Return the family as it is exported: averaged, of the best validation if that was kept, on the CPU."""
        if self.best is not None:
            self.averaged.load_state_dict(self.best.weights)
            self.best = None
        return self.averaged.cpu().eval()

    def state(self) -> dict[str, Any]:
        """Return all that decides how the training goes on."""
        return {
            "trained": self.family.state_dict(),
            "ema": self.averaged.state_dict(),
            "averaged_steps": int(self.average.n_averaged),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "carry": self.carry,
            "random": _random_state(self.device),
            "clock": self.clock.state(),
            "meter": self.meter.state(),
            "best": vars(self.best) if self.best else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state.

        Raises:
            TrainingFailed: it does not fit the family.
        """
        try:
            self.family.load_state_dict(state["trained"])
            self.averaged.load_state_dict(state["ema"])
            self.average.n_averaged.fill_(state["averaged_steps"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            self.carry = self.fabric.to_device(state["carry"])
            self.clock.restore(state["clock"])
            self.meter.restore(self.fabric.to_device(state["meter"]))
            self.best = Best(**state["best"]) if state["best"] else None
            _set_random_state(state["random"], self.device)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise TrainingFailed(f"The checkpoint in {self.folder} does not fit this run: {error}.") from error


def prepare(folder: Path, family: Family, data: Data, split: Split, seed: int) -> Trainer:
    """Return the training of a built family before its first step."""
    options: FamilyConfig = family.config
    # One device, and mixed precision where the processor is made for it; Fabric does both.
    with quiet("lightning_fabric"):
        fabric = Fabric(accelerator="auto", devices=1, precision=precision(options.precision))
    optimizers = family.optimizers()
    module, *wrapped = fabric.setup(family, *optimizers.values())
    module.train()
    size, steps = steps_of_pass(family, data, split["train"])
    return Trainer(
        folder=folder,
        family=family,
        options=options,
        fabric=fabric,
        module=module,
        optimizers=optimizers,
        wrapped=dict(zip(optimizers, wrapped, strict=True)),
        peaks=[group["lr"] for optimizer in optimizers.values() for group in optimizer.param_groups],
        average=AveragedModel(family, multi_avg_fn=_averaging(options.ema_decay)),
        data=data,
        split=split,
        seed=seed,
        batch_size=size,
        clock=Clock(options, steps_per_epoch=steps),
    )


def steps_of_pass(family: Family, data: Data, train: NDArray[np.int64]) -> tuple[int, int]:
    """Return how many items a batch has, and how many batches a pass over the training part."""
    wanted = family.config.batch_size or _BATCH_SIZE
    if not data.is_stream:
        size = min(wanted, len(train))
        return size, len(train) // size
    for size in range(wanted, 0, -1):  # fewer places of a short text
        if steps := lane_steps(data, train, size, family.span):
            return size, steps
    raise InvalidData(
        f"{data.name} is too short: a step reads {family.span} characters, and there are not twice as many."
    )


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Hold back what packages log of their own steps."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def precision(wanted: str) -> Literal["bf16-mixed", "32-true"]:
    """Return Fabric's name of a precision; "auto" is bfloat16 where the processor computes in it.

    Where bfloat16 is asked for and the processor's kernels fail in it, a warning says that it is float32.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            fast = torch.cuda.is_bf16_supported()
        else:
            able = torch.cpu.get_capabilities()
            fast = bool(able.get("amx_bf16") or able.get("avx512_bf16")) and _computes_in_bfloat16()
        wanted = "bfloat16" if fast else "float32"
    elif wanted == "bfloat16" and not torch.cuda.is_available() and not _computes_in_bfloat16():
        _log.warning("precision=bfloat16: this processor has no kernels for it; the training computes in float32.")
        wanted = "float32"
    return "bf16-mixed" if wanted == "bfloat16" else "32-true"


@functools.cache
def _computes_in_bfloat16() -> bool:
    """Tell by a small network whether the CPU's kernels compute in bfloat16; oneDNN lacks some on older processors."""
    with torch.random.fork_rng():
        layer, x = torch.nn.LSTM(8, 8), torch.zeros(2, 1, 8)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(x)[0].sum().backward()
    except RuntimeError:
        return False
    return True


def _averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the moving average for AveragedModel; it starts short, so that a short training is averaged too."""

    def average(averaged: Any, current: Any, count: Any) -> None:
        warmed = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(warmed)(averaged, current, count)  # type: ignore[no-untyped-call]  # torch has no types here

    return average


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def _set_random_state(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type])
