"""The training loop: data in, verified model files out. Read it from top to bottom."""

import copy
import json
import logging
import math
import os
import platform
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from aigc_sdk.card import DataSummary
from aigc_sdk.data.dataset import DataReport
from aigc_sdk.errors import (
    AigcError,
    Interrupted,
    InvalidConfig,
    StorageError,
    TrainingFailed,
    blamed,
)
from aigc_sdk.files import TEMPORARY, make_folder, storage_error, write_bytes
from aigc_sdk.generation import make_contents
from aigc_sdk.generator import Generator
from aigc_sdk.modality import find_modality
from aigc_sdk.registry import default_registry
from aigc_sdk.request import build_request
from aigc_sdk.seeds import check_seed
from aigc_sdk.specs import sdk_version
from aigc_sdk.training.budget import settle
from aigc_sdk.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from aigc_sdk.training.family import Family, FamilyConfig, parse_config
from aigc_sdk.training.initial import find_source, options_of_network, run_folder, start_from
from aigc_sdk.training.interruption import Interruption, interruptible
from aigc_sdk.training.journal import Journal, check_tensorboard
from aigc_sdk.training.lock import alone_in
from aigc_sdk.training.progress import Spent, Teller, now
from aigc_sdk.training.run import RECORD, Run, RunRecord, export_task, file_name
from aigc_sdk.training.run import now as utc_now
from aigc_sdk.training.samples import NoSamples, feed_samples
from aigc_sdk.training.trainer import Data, Split, Trainer, prepare

SAMPLES = "samples"
LEFT_OUT = "left_out.txt"

# Samples come always from the same seed.
_SAMPLES_SEED = 0

# Samples come after so many minutes and then at doubling times, but none beyond this share of the training.
_FIRST_SAMPLES, _LAST_SAMPLES = 1.0, 2 / 3

# They change nothing in the weights, so that a training may go on with others.
_FREE_OPTIONS = frozenset(("workers", "checkpoint_minutes", "log_steps", "tensorboard"))

# What a held-out part without items means.
_OF_EMPTY = {
    "validation": "there are no figures of held-out items while it trains",
    "test": "the model cannot be evaluated against this data; hold more out, or keep other data for that",
}

Check = Callable[[Generator], None]
Inputs = tuple[type[Family], FamilyConfig, Data, Split]

_log = logging.getLogger("aigc_sdk")


def train(
    family: str,
    data: Any,
    *,
    out: Path,
    seed: int,
    config: Mapping[str, Any],
    resume: bool = False,
    init: Any = None,
    check: Check | None = None,
) -> Run:
    """Train a family on data; see `aigc_sdk.train`.

    `check` is called with the first task of the untrained model before the training begins, and may raise.
    """
    spent = Spent(now())
    if _is_begun(out, resume=resume):
        config = _with_recorded(family, out, config)
    elif init is not None:
        config = with_network(family, init, config)  # before the data is read, which may take long
    with spent.on("reading"):
        inputs = read_inputs(family, data, seed, config)
    with alone_in(out), blamed(f"The family {family!r} failed"):
        try:
            return _train(family, inputs, out=out, seed=seed, resume=resume, init=init, spent=spent, check=check)
        except AigcError:
            raise
        except OSError as error:
            raise storage_error("train into", out, error) from error


def _train(
    family: str,
    inputs: Inputs,
    *,
    out: Path,
    seed: int,
    resume: bool,
    init: Any,
    spent: Spent,
    check: Check | None,
) -> Run:
    family_class, options, dataset, split = inputs
    run = Run(out, _record(family, family_class.modality, options, dataset, split, out, seed))
    state, step_s = None, None
    if _is_begun(out, resume=resume):
        run, state, init = _reopen(run, init)
    if state is not None and state["finished"]:
        _export_all(run, run.family())
        return run
    if state is None:
        with spent.on("choosing options"):
            held = settle(family_class, options, dataset, split, seed=seed, started=spent.started)
        options, step_s = held.options, held.step_s
        run = Run(out, run.record.model_copy(update={"config": options.model_dump(mode="json")}))

    # Everything random inside comes from this one seed, and the caller's generators stay as they were.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = family_class(options)
        model.build(dataset.spec(split["train"]))
        if state is None and init is not None:
            run = Run(out, run.record.model_copy(update={"init": _initialise(model, init)}))
        for task in model.tasks:
            exportable = run.exportable(task, model)  # a card that cannot be made fails now, not after the training
            if check is not None and task == model.tasks[0]:
                check(exportable.eager)
        trainer = prepare(out, model, dataset, split, seed)
        trainer.spent = spent
        if state is None:
            trainer.clock.begin(spent.started)
        if step_s is not None:
            trainer.expect_validation(step_s)
        trained = _fit(run, trainer, state, dataset.report)
    _log.info("trained in %s; the model files come now: %s", spent, ", ".join(trained.tasks))
    with spent.on("model files"):
        _export_all(run, trained)
    _log.info("done in %s", spent)
    return run


def _with_recorded(family: str, out: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, those that the call leaves out or gives as None as the run in the folder has them."""
    run = Run.open(out)
    if run.record.family != family:
        return dict(config)
    run.options()  # says it if they are of another version, as the next line does of the data
    run.record.data_spec(run.family_class().modality)
    return {**run.record.config, **{name: value for name, value in config.items() if value is not None}}


def with_network(family: str, init: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, those that decide about the network as `init` has them where they are left out or None.

    Raises:
        InvalidRequest: it names no weights.
    """
    theirs = options_of_network(default_registry().find("family", family).resolve(), family, init)
    given = {name: value for name, value in config.items() if value is not None or name not in theirs}
    if taken := {name: value for name, value in theirs.items() if name not in given}:
        _log.info("init: its network is taken: %s", ", ".join(f"{name}={value}" for name, value in taken.items()))
    return {**theirs, **given}


def read_inputs(family: str, data: Any, seed: int, config: Mapping[str, Any]) -> Inputs:
    """Check what a training is given, and read its data.

    Raises:
        UnknownName, InvalidConfig, InvalidData, InvalidRequest, MissingPackage: see `aigc_sdk.train`.
    """
    family_class: type[Family] = default_registry().find("family", family).resolve()
    options = parse_config(family, family_class.Config, config)
    check_seed(seed)
    if options.tensorboard:
        check_tensorboard()
    _log.info("reading the data")
    dataset = _load(data, family_class, options)
    split = dataset.split(options.validation_fraction, options.test_fraction)
    if options.early_stop_epochs is not None and not len(split["validation"]):
        raise InvalidConfig(
            f"early_stop_epochs needs data to validate on, and of the {dataset.n} items of {dataset.name} none are:"
            f" validation_fraction is {options.validation_fraction}."
        )
    if options.balance_classes and dataset.labels is None:
        raise InvalidConfig(f"balance_classes needs labels, and {dataset.name} has none.")
    for part, words in _OF_EMPTY.items():
        fraction = getattr(options, f"{part}_fraction")
        if fraction and not len(split[part]):
            _log.warning("%s_fraction is %s, which is less than one of %d items: %s.", part, fraction, dataset.n, words)
    return family_class, options, dataset, split


def _load(data: Any, family: type[Family], options: FamilyConfig) -> Data:
    """Read the data of a family's modality, with the options that it has for that."""
    modality = find_modality(family.modality)
    with blamed(f"Reading {modality.plural} failed"):
        dataset: Data = modality.data.read(data, options.model_dump(), trains=True)
    _log.log(logging.WARNING if dataset.report.skipped else logging.INFO, "%s: %s", dataset.name, dataset.report)
    return dataset


def _record(
    family: str, modality: str, options: FamilyConfig, dataset: Data, split: Split, out: Path, seed: int
) -> RunRecord:
    """Return what the run says of itself."""
    spec = dataset.spec(split["train"])
    name = options.name or re.sub(r"[^A-Za-z0-9._-]", "-", out.resolve().name).lstrip("._-")
    summary = DataSummary(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        n=dataset.n,
        split={part: len(indices) for part, indices in split.items()},
    )
    return RunRecord(
        family=family,
        name=name[:100] or "model",
        seed=seed,
        config=options.model_dump(mode="json"),
        data=summary,
        shape=spec.shape,
        labels=spec.labels,
        label_frequencies=spec.label_frequencies,
        details=find_modality(modality).data.dump(spec.details),
        environment=_environment(),
        sdk_version=sdk_version(),
        started=utc_now(),
        data_report=dataset.report.to_json(),
    )


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _is_begun(out: Path, *, resume: bool) -> bool:
    """Tell whether a training is to go on in this folder; otherwise make sure that one can begin there."""
    try:
        names = [path.name for path in out.iterdir()] if out.exists() else []
    except OSError as error:
        raise storage_error("train into", out, error) from error
    if all(map(TEMPORARY.fullmatch, names)):
        return False
    if RECORD in names and resume:
        return True
    if resume:
        raise StorageError(f"{out} is not empty, but it has no {RECORD}: there is no training to resume.")
    hint = "resume it (resume=True, --resume) or " if RECORD in names else ""
    raise StorageError(f"{out} is there already and not an empty folder; {hint}choose another --out.")


def _reopen(wanted: Run, init: Any) -> tuple[Run, dict[str, Any] | None, Any]:
    """Return the run in the folder, its checkpoint, and what it began from.

    The checkpoint is None when the training was killed before the first one; then it begins once more.

    Raises:
        InvalidConfig: the run is another one than what is wanted; names all that differs.
        TrainingFailed: its checkpoint was deleted, is broken, or of another version.
    """
    run = Run.open(wanted.folder)
    if differences := _differences(run, wanted.record, init):
        raise InvalidConfig(
            f"{run.folder} cannot be resumed like this: {'; '.join(differences)}. Give what the run was begun with,"
            " or choose another --out."
        )
    for name, value in wanted.record.environment.items():
        if (before := run.record.environment.get(name)) != value:
            _log.warning("%s is %s, it was %s: the weights may differ in their last bits.", name, value, before)
    if (run.folder / CHECKPOINT).exists():
        return run, load_checkpoint(run.folder), init
    files = (path for path in run.folder.rglob("*") if path.is_file() and not TEMPORARY.fullmatch(path.name))
    if left := sorted(path.name for path in files if path.name != RECORD):
        raise TrainingFailed(
            f"{run.folder} has {left[0]} but no {CHECKPOINT}: it was deleted, and without it the training cannot go on."
            " Choose another --out."
        )
    return wanted, None, run.record.init["run"] if run.record.init else None


def _differences(run: Run, wanted: RunRecord, init: Any) -> list[str]:
    """Return what would make another training of a run, in words."""
    found = run.record
    if found.family != wanted.family:
        return [f"the run is of the family {found.family}, not {wanted.family}"]
    config = run.options().model_dump(mode="json")
    before = {"seed": found.seed, **config}
    after = {"seed": wanted.seed, **wanted.config}
    names = [name for name in after if name not in _FREE_OPTIONS]
    differences = [f"{name} was {before[name]}, now {after[name]}" for name in names if before[name] != after[name]]
    if found.data.fingerprint != wanted.data.fingerprint:
        differences.append(
            f"the data was {found.data.name} with {found.data.n} items and fingerprint {found.data.fingerprint!s:.12},"
            f" now {wanted.data.name} with {wanted.data.n} and {wanted.data.fingerprint!s:.12}"
        )
    elif found.data.split != wanted.data.split:
        differences.append(f"the data was split into {found.data.split}, now into {wanted.data.split}")
    begun_from = found.init["run"] if found.init else None
    if init is not None and begun_from not in (str(run_folder(init)), str(init)):
        differences.append(f"init was {begun_from}, now {run_folder(init)}")
    return differences


def _initialise(model: Family, init: Any) -> dict[str, Any]:
    """Start from other weights, and log what did not fit."""
    report = start_from(model, find_source(init))
    _log.info("%d tensors come from %s", report["copied"], report["run"])
    for kind in ("missing", "unexpected", "of_other_shape", "fresh", "dropped"):
        if report[kind]:
            _log.warning("init: %s: %s", kind.replace("_", " "), ", ".join(report[kind]))
    return report


def _fit(run: Run, trainer: Trainer, state: Mapping[str, Any] | None, report: DataReport) -> Family:
    """Train the family and return it with its averaged weights, in evaluation mode."""
    options, clock, meter = trainer.options, trainer.clock, trainer.meter
    metrics_bytes = _begin(run, trainer) if state is None else _go_on(run, trainer, state)
    if report.left_out:
        write_bytes(run.folder / LEFT_OUT, "\n".join([*report.left_out, ""]).encode(errors="replace"))
    last_checkpoint, next_samples = clock.minutes, _doubled(clock.trained_minutes)
    teller = Teller(clock, meter, trainer.spent, *trainer.unit)
    with (
        interruptible() as interruption,
        Journal(run.folder, tensorboard=options.tensorboard, step=clock.step, size_bytes=metrics_bytes) as journal,
    ):
        while True:
            # What is left of this pass over the data. A checkpoint can be taken after any step.
            for batch in trainer.epoch():
                trainer.step(batch)
                is_over = clock.progress >= 1
                teller.tell(always=is_over)
                if is_over or clock.step % options.log_steps == 0:
                    journal.losses(clock, meter, trainer.rate)
                if is_over:
                    break
                if clock.validates_within_pass:
                    _validate(trainer, journal)
                _leave_if_asked(interruption, run, trainer, journal)
                if clock.trained_minutes >= next_samples:
                    next_samples = _doubled(clock.trained_minutes)
                    if clock.progress <= _LAST_SAMPLES:  # the end brings others
                        with trainer.aside("samples"):
                            _write_samples(run, trainer, trainer.averaged, clock.step)
                if clock.minutes - last_checkpoint >= options.checkpoint_minutes:
                    with trainer.aside("checkpoints"):
                        _save(run, trainer, journal.sync())
                    last_checkpoint = clock.minutes

            # The pass is over: validate, and decide whether there is another.
            _validate(trainer, journal)
            if clock.progress >= 1 or trainer.stops_early:
                if meter.items:  # the time was up while validating, or the training stopped early
                    journal.losses(clock, meter, trainer.rate)
                break
            clock.count_epoch()
            _leave_if_asked(interruption, run, trainer, journal)
        trained = trainer.finish()
        with trainer.aside("checkpoints"):
            _save(run, trainer, journal.sync(), finished=True)
        with trainer.aside("samples"):
            _write_samples(run, trainer, trained, clock.step)
        if interruption.signal is not None:
            raise _interrupted(interruption.signal, run, "after its last step; only the model files are missing")
    return trained


def _validate(trainer: Trainer, journal: Journal) -> None:
    """Validate, write the figures down, and keep the weights if they are the best."""
    with trainer.aside("validation"):
        figures = trainer.validate()
        if figures:
            journal.validation(trainer.clock, figures)
        trainer.keep_if_best(figures)


def _doubled(minutes: float) -> float:
    """Return when the next samples are due: after a minute, two, four, and so on.

    Example:
        >>> _doubled(0.2), _doubled(1.0), _doubled(5.5)
        (1.0, 2.0, 8.0)
    """
    return _FIRST_SAMPLES * 2.0 ** max(0, math.floor(math.log2(max(minutes, 1e-9) / _FIRST_SAMPLES)) + 1)


def _begin(run: Run, trainer: Trainer) -> int:
    """Make the run folder and write what the run is; return the bytes of metrics, which are none.

    The first checkpoint comes before everything else: without it and with anything else the folder is incomplete.
    """
    _remove_temporaries(make_folder(run.folder))
    write_bytes(
        run.folder / RECORD,
        json.dumps(run.record.model_dump(mode="json"), indent=1, ensure_ascii=False).encode(),
    )
    make_folder(run.folder / SAMPLES)
    _save(run, trainer, 0)
    return 0


def _go_on(run: Run, trainer: Trainer, state: Mapping[str, Any]) -> int:
    """Bring the training to where the checkpoint is, and return how many bytes of metrics there were."""
    _remove_temporaries(run.folder)
    _remove_temporaries(make_folder(run.folder / SAMPLES))
    trainer.restore(state)
    _log.info("resumed at step %d, epoch %d", trainer.clock.step, trainer.clock.epoch)
    metrics_bytes: int = state["metrics_bytes"]
    return metrics_bytes


def _remove_temporaries(folder: Path) -> None:
    """Remove the files of writes that were killed."""
    try:
        for path in folder.iterdir():
            if TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("clean up", folder, error) from error


def _save(run: Run, trainer: Trainer, metrics_bytes: int, *, finished: bool = False) -> None:
    """Write a checkpoint; metrics after these bytes are of steps that a resumed training makes again."""
    save_checkpoint(run.folder, trainer.state() | {"metrics_bytes": metrics_bytes, "finished": finished})


def _leave_if_asked(interruption: Interruption, run: Run, trainer: Trainer, journal: Journal) -> None:
    if interruption.signal is not None:
        _save(run, trainer, journal.sync())
        raise _interrupted(interruption.signal, run, f"at step {trainer.clock.step}, and a checkpoint written")


def _interrupted(number: int, run: Run, where: str) -> Interrupted:
    return Interrupted(
        f"Training of {run.folder} was stopped by {signal.Signals(number).name} {where}. The same call with"
        " resume=True (--resume) goes on.",
        number,
    )


def _write_samples(run: Run, trainer: Trainer, averaged: Family, step: int) -> None:
    """Write what the averaged weights make from fixed seeds: a grid of images, a page of texts, or MIDI files.

    What has no default is fed from the validation part.
    """
    # When a checkpoint is taken depends on the time, so that no random number of the training may be used up.
    with torch.random.fork_rng():
        copied = copy.deepcopy(averaged).cpu().eval()
        eager = run.exportable(copied.tasks[0], copied).eager
        modality = find_modality(averaged.modality)
        n = modality.samples
        try:
            fed = feed_samples(eager.card, trainer.data, trainer.split["validation"], n, averaged.modality)
        except NoSamples as error:
            _log.warning("no samples at step %d: %s", step, error)
            return
        request = build_request(
            eager.card, n, seed=_SAMPLES_SEED, seeds=None, batch_size=None, deadline_s=None, controls=fed
        )
        contents = make_contents(eager, request)  # of no concern to policy plugins
    path = run.folder / SAMPLES / f"step-{step:07d}"
    modality.write_samples(contents, path)


def _export_all(run: Run, family: Family) -> None:
    """Write the model file of every task that is not there yet, each verified."""
    _remove_temporaries(run.folder)
    for i, task in enumerate(family.tasks):
        path = run.folder / file_name(task, first=i == 0)
        if not (path.exists() and path.with_suffix(".card.json").exists()):
            export_task(run.exportable(task, family), path)
