"""The training loop: data in, verified model files out. Read it from top to bottom."""

import copy
import itertools
import json
import logging
import math
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aigc_sdk.card import DataSummary
from aigc_sdk.data import Dataset, ImageOptions, load_data
from aigc_sdk.errors import StorageError, TrainingFailed
from aigc_sdk.files import atomic_write, make_folder, storage_error, write_bytes
from aigc_sdk.generation import make_contents
from aigc_sdk.registry import default_registry
from aigc_sdk.request import build_request
from aigc_sdk.seeds import check_seed
from aigc_sdk.specs import sdk_version
from aigc_sdk.training.family import Batch, Family, FamilyConfig, parse_config
from aigc_sdk.training.run import METRICS, RECORD, Run, RunRecord, export_task, file_name, now, save_checkpoint

# Sample grids show these many items, always from the same seed.
_GRID_ITEMS = 64
_GRID_SEED = 0

_LOG_SECONDS = 10.0

_log = logging.getLogger("aigc_sdk")

# The indices of the train, validation and test parts.
Split = Mapping[str, NDArray[np.int64]]


def train(family: str, data: Any, *, out: Path, seed: int, config: Mapping[str, Any]) -> Run:
    """Train a family on data; see `aigc_sdk.train`."""
    family_class: type[Family] = default_registry().find("family", family).resolve()
    options = parse_config(family, family_class.Config, config)
    check_seed(seed)
    dataset = load_data(data, ImageOptions.of_config(options.model_dump()), workers=options.workers)
    split = dataset.split(options.validation_fraction, options.test_fraction)

    # Everything random inside comes from this one seed, and the caller's generators stay as they were.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = family_class(options)
        model.build(dataset.spec(split["train"]))
        run = _start_run(family, options, dataset, split, out, seed)
        for task in model.tasks:
            run.exportable(task, model)  # a card that cannot be made fails now, not after the training
        trained = _fit(run, model, options, dataset, split, seed)
    _export_all(run, trained)
    return run


def _export_all(run: Run, family: Family) -> None:
    """Write the model file of every task, each verified."""
    for i, task in enumerate(family.tasks):
        export_task(run.exportable(task, family), run.folder / file_name(task, first=i == 0))


def _start_run(family: str, options: FamilyConfig, dataset: Dataset, split: Split, out: Path, seed: int) -> Run:
    """Make the run folder and write what the run is."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out} is there already and not an empty folder; choose another --out.")
    spec = dataset.spec(split["train"])
    name = options.name or re.sub(r"[^A-Za-z0-9._-]", "-", out.resolve().name).lstrip("._-")
    summary = DataSummary(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        n=dataset.n,
        split={part: len(indices) for part, indices in split.items()},
    )
    record = RunRecord(
        family=family,
        name=name[:100] or "model",
        seed=seed,
        config=options.model_dump(mode="json"),
        data=summary,
        shape=spec.shape,
        labels=spec.labels,
        label_frequencies=spec.label_frequencies,
        environment=_environment(),
        sdk_version=sdk_version(),
        started=now(),
    )
    make_folder(out / "samples")
    write_bytes(out / RECORD, json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False).encode())
    return Run(out, record)


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _fit(run: Run, family: Family, options: FamilyConfig, data: Dataset, split: Split, seed: int) -> Family:
    """Train the family and return it with its averaged weights, in evaluation mode."""
    # One device, and mixed precision where the processor is made for it; Fabric does both.
    fabric = Fabric(accelerator="auto", devices=1, precision=_precision(options.precision))
    optimizers = family.optimizers()
    module, *wrapped = fabric.setup(family, *optimizers.values())
    optimizers = dict(zip(optimizers, wrapped, strict=True))
    groups = [(group, group["lr"]) for optimizer in optimizers.values() for group in optimizer.param_groups]
    average = AveragedModel(family, multi_avg_fn=_averaging(options.ema_decay))
    averaged = cast(Family, average.module)

    order = np.random.default_rng(seed)
    size = min(options.batch_size, len(split["train"]))
    clock = _Clock(options, steps_per_epoch=len(split["train"]) // size)
    meter, carry, last_checkpoint = _Meter(), None, clock.minutes
    module.train()
    for epoch in itertools.count(1):
        # Every batch is a full one; what is left over comes up in other epochs.
        indices = order.permutation(split["train"])[: clock.steps_per_epoch * size]
        for batch in _batches(data, indices, size, fabric.device):
            # One step: every phase on this batch, then the average follows the weights.
            rate = clock.learning_rate()
            for group, peak in groups:
                group["lr"] = peak * rate
            for phase in family.phases(clock.step):
                with fabric.autocast():
                    losses, carry = family.training_step(batch, phase, clock.step, carry)
                optimizers[phase].zero_grad()
                fabric.backward(losses.total)
                if options.clip_norm is not None:
                    fabric.clip_gradients(module, optimizers[phase], max_norm=options.clip_norm)
                optimizers[phase].step()
                meter.add({"loss": losses.total, **losses.parts})
            average.update_parameters(family)
            clock.step += 1
            meter.items += size

            is_over = clock.progress >= 1
            if is_over or meter.seconds >= _LOG_SECONDS:
                _write_metrics(run, clock, epoch, meter)
                meter = _Meter()
            started = clock.minutes
            if started - last_checkpoint >= options.checkpoint_minutes and not is_over:
                _checkpoint(run, family, averaged, clock)
                last_checkpoint = clock.minutes
                meter.leave_out(clock.minutes - started)
            if is_over:
                break
        if len(split["validation"]):
            started = clock.minutes
            figures = _validate(averaged, data, split["validation"], size, fabric.device)
            line = {"step": clock.step, "epoch": epoch, "minutes": round(clock.minutes, 3), "validation": figures}
            _write_line(run, line)
            meter.leave_out(clock.minutes - started)
            _log.info("epoch %d: %s", epoch, _readable(figures))
        if clock.progress >= 1:
            break
    averaged.cpu().eval()
    _checkpoint(run, family, averaged, clock)
    return averaged


@dataclass
class _Clock:
    """How far the training is, and how far it may go."""

    options: FamilyConfig
    steps_per_epoch: int
    step: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.started) / 60

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

    def learning_rate(self) -> float:
        """Return the factor on the peak learning rate: a linear warm-up, then half a cosine to 0."""
        warmed = min(1.0, (self.step + 1) / (self.options.warmup_steps + 1))
        return warmed * (0.5 + 0.5 * math.cos(math.pi * self.progress))


class _Meter:
    """Means of what the steps since the last line returned."""

    def __init__(self) -> None:
        self.items = 0
        self._started = time.monotonic()
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def leave_out(self, minutes: float) -> None:
        """Do not count time in which no step was made."""
        self._started += 60 * minutes

    def add(self, figures: Mapping[str, torch.Tensor]) -> None:
        for name, value in figures.items():
            self._sums[name] = self._sums[name] + value.detach() if name in self._sums else value.detach()
            self._counts[name] += 1

    def means(self) -> dict[str, float]:
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}


def _precision(wanted: str) -> Literal["bf16-mixed", "32-true"]:
    """Return Fabric's name of a precision; "auto" is bfloat16 where the processor computes in it."""
    if wanted == "auto":
        if torch.cuda.is_available():
            fast = torch.cuda.is_bf16_supported()
        else:
            able = torch.cpu.get_capabilities()
            fast = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
        wanted = "bfloat16" if fast else "float32"
    return "bf16-mixed" if wanted == "bfloat16" else "32-true"


def _averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the moving average for AveragedModel; it starts short, so that a short training is averaged too."""

    def average(averaged: Any, current: Any, count: Any) -> None:
        warmed = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(warmed)(averaged, current, count)  # type: ignore[no-untyped-call]  # torch has no types here

    return average


def _batches(data: Dataset, indices: NDArray[np.int64], size: int, device: torch.device) -> Iterator[Batch]:
    """Yield batches of `size` in the order of the indices; the last may be smaller."""
    labels = None if data.labels is None else torch.from_numpy(data.labels)
    order = torch.from_numpy(indices)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        chosen = torch.from_numpy(data.pixels(rows.numpy())).to(device).permute(0, 3, 1, 2)
        # Into a new tensor, because to the convolutions a single channel at the end looks like channels last.
        batch = {"images": torch.empty(chosen.shape, device=device).copy_(chosen).div_(255)}
        if labels is not None:
            batch["labels"] = labels[rows].to(device)
        yield batch


def _validate(
    family: Family, data: Dataset, indices: NDArray[np.int64], size: int, device: torch.device
) -> dict[str, float]:
    """Return the means of the family's figures over the validation part."""
    was_training = family.training
    family.eval()
    totals: Counter[str] = Counter()
    with torch.no_grad():
        for batch in _batches(data, indices, size, device):
            for name, value in family.validate(batch).items():
                totals[name] += value * len(batch["images"])  # type: ignore[assignment]  # sums of floats
    family.train(was_training)
    return {name: total / len(indices) for name, total in totals.items()}


def _write_metrics(run: Run, clock: _Clock, epoch: int, meter: _Meter) -> None:
    """Log the means since the last line; a loss that is no number ends the training."""
    means = meter.means()
    speed = meter.items / max(meter.seconds, 1e-9)
    line = {
        "step": clock.step,
        "epoch": epoch,
        "minutes": round(clock.minutes, 3),
        "items_per_s": round(speed, 1),
        "learning_rate": clock.options.learning_rate * clock.learning_rate(),
        **means,
    }
    if not all(map(math.isfinite, means.values())):
        raise TrainingFailed(
            f"The loss is not a number any more at step {clock.step} ({_readable(means)}); {run.folder} keeps the last"
            " checkpoint, if there was one. A smaller learning_rate or a clip_norm may help."
        )
    _write_line(run, line)
    _log.info(
        "%3.0f %%, step %d, epoch %d: %s, %.0f items/s",
        100 * clock.progress,
        clock.step,
        epoch,
        _readable(means),
        speed,
    )


def _write_line(run: Run, line: Mapping[str, Any]) -> None:
    path = run.folder / METRICS
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise storage_error("write", path, error) from error


def _checkpoint(run: Run, family: Family, averaged: Family, clock: _Clock) -> None:
    """Write the weights, and a grid of what the averaged ones make from fixed seeds."""
    save_checkpoint(run.folder, family.state_dict(), averaged.state_dict(), {"step": clock.step})
    copied = copy.deepcopy(averaged).cpu()
    eager = run.exportable(copied.tasks[0], copied).eager
    request = build_request(
        eager.card, _GRID_ITEMS, seed=_GRID_SEED, seeds=None, batch_size=None, deadline_s=None, controls={}
    )
    grid = make_contents(eager, request).grid()  # of no concern to policy plugins
    with atomic_write(run.folder / "samples" / f"step-{clock.step:07d}.png") as temporary:
        grid.save(temporary, "PNG")


def _readable(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
