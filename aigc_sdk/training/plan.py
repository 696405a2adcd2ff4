"""Plan: what a training would do, take and need, found out without writing a run folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aigc_sdk.errors import blamed
from aigc_sdk.training.budget import seconds_of_step, settle
from aigc_sdk.training.checkpoint import flatten
from aigc_sdk.training.family import Family, FamilyConfig
from aigc_sdk.training.initial import find_source, start_from
from aigc_sdk.training.loop import Inputs, read_inputs, with_network
from aigc_sdk.training.progress import now
from aigc_sdk.training.trainer import Trainer, prepare

# Steps that are timed, after those in which torch gets ready; fewer when the time is up.
_WARM_UP_STEPS = 3
_TIMED_STEPS = 24
_TIMED_SECONDS = 10.0

# What a model file holds besides its weights: the graph, the tables of the random numbers, the card with its items.
_GRAPH_BYTES = 100_000


@dataclass(frozen=True)
class Plan:
    """What a training would do.

    Example:
        >>> rows, columns = np.indices((8, 8))
        >>> stripes = np.stack([(rows + i * columns) % 8 * 36 for i in range(99)]).astype("uint8")
        >>> found = plan("vae", stripes, config={"steps": 9, "latent": 4, "width": 8})
        >>> found.steps, found.data["shape"], found.minutes < 5
        (9, (8, 8, 1), True)

    Attributes:
        config: the options, the defaults filled in.
        data: name, n, shape, fingerprint, split, how many training images each label has, and the report of the
            reading.
        parameters: numbers that are trained.
        steps: at most; fewer when the training stops early.
        step_ms: how long one takes here.
        minutes: about how long the training takes, validations included; reading, checkpoints and model files are not.
        reading_s: how long the data took to read.
        disk_mb: what `checkpoint`, `models` and `samples` take in the end, and the `peak`, when a new checkpoint lies
            beside the old one; and the decoded `pixels` in the cache, if they are there; in millions of bytes.
        init: what of other weights fits, see `start_from`.
    """

    config: dict[str, Any]
    data: dict[str, Any]
    parameters: int
    steps: int
    step_ms: float
    minutes: float
    reading_s: float
    disk_mb: dict[str, float]
    init: dict[str, Any] | None


def plan(family: str, data: Any, *, seed: int = 0, init: Any = None, config: Mapping[str, Any]) -> Plan:
    """Time some real steps on weights that are thrown away, and say what a training would take; see `aigc_sdk.train`.

    Nothing is written but the pixels of many images, decoded, into the cache, where the training finds them; and the
    caller's random numbers stay as they were.
    """
    started = now()
    inputs = read_inputs(family, data, seed, config if init is None else with_network(family, init, config))
    with blamed(f"The family {family!r} failed"):
        return _plan(inputs, seed, init, started, now() - started)


def _plan(inputs: Inputs, seed: int, init: Any, started: float, reading_s: float) -> Plan:
    family_class, options, dataset, split = inputs
    spec = dataset.spec(split["train"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        options = settle(family_class, options, dataset, split, seed=seed, started=started).options
        model = family_class(options)
        model.build(spec)
        report = None if init is None else start_from(model, find_source(init))
        trainer = prepare(Path(), model, dataset, split, seed)
        step_s = seconds_of_step(trainer, _TIMED_SECONDS, most_steps=_TIMED_STEPS, warm_ups=_WARM_UP_STEPS)
        validation_s = _time_validation(trainer)
        steps, minutes = _duration(options, trainer.clock.steps_per_epoch, step_s, validation_s, reading_s)
        disk_mb = _disk_mb(trainer, 2 + math.floor(math.log2(max(minutes, 1))))
    labels = dataset.labels
    counts = () if labels is None else np.bincount(labels[split["train"]], minlength=len(spec.labels)).tolist()
    return Plan(
        config=options.model_dump(mode="json"),
        data={
            "name": dataset.name,
            "n": dataset.n,
            "shape": spec.shape,
            "fingerprint": dataset.fingerprint,
            "split": {part: len(rows) for part, rows in split.items()},
            "labels": dict(zip(spec.labels, counts, strict=True)),
            "report": dataset.report.to_json(),
        },
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=steps,
        step_ms=1000 * step_s,
        minutes=minutes,
        reading_s=reading_s,
        disk_mb={**disk_mb, "pixels": dataset.report.cache_bytes / 1e6},
        init=report,
    )


def _time_validation(trainer: Trainer) -> float:
    """Return the seconds of a validation, from one of a single batch and one of three."""
    rows, size = trainer.split["validation"], trainer.batch_size
    times = []
    for n in (0, size, 3 * size):  # the first of all takes longer than others
        trainer.split = {**trainer.split, "validation": rows[:n]}
        begun = now()
        trainer.validate()
        times.append(now() - begun)
    more = len(rows[size : 3 * size])
    each = max(0.0, times[2] - times[1]) / more if more else 0.0
    return times[1] + each * len(rows[size:])


def _duration(
    options: FamilyConfig, steps_per_epoch: int, step_s: float, validation_s: float, reading_s: float
) -> tuple[int, float]:
    """Return how many steps there will be and how many minutes they take, each epoch with its validation.

    A limit in minutes has to hold the reading too.
    """
    each_s = step_s + validation_s / min(steps_per_epoch, options.validation_steps or steps_per_epoch)
    limits = [
        float(options.epochs * steps_per_epoch) if options.epochs else math.inf,
        float(options.steps or math.inf),
        (60 * options.minutes - reading_s) / each_s if options.minutes else math.inf,
    ]
    steps = max(1, math.ceil(min(limits)))
    return steps, steps * each_s / 60


def _disk_mb(trainer: Trainer, grids: int) -> dict[str, float]:
    tensors: dict[str, Tensor] = {}
    flatten(trainer.state(), "", tensors)
    checkpoint = _size(tensors)
    if trainer.options.keeps_best:
        checkpoint += _size(trainer.averaged.state_dict())
    models = sum(_size(trainer.family.sampler(task).state_dict()) + _GRAPH_BYTES for task in trainer.family.tasks)
    samples = grids * _grid_bytes(trainer.family)
    sizes = {"checkpoint": checkpoint, "models": models, "samples": samples}
    sizes["peak"] = sum(sizes.values()) + checkpoint
    return {name: size / 1e6 for name, size in sizes.items()}


def _grid_bytes(family: Family) -> int:
    """Return the size of 64 images without compression, which is more than their PNG takes."""
    return 64 * math.prod(family.output(family.tasks[0]).shape)


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
