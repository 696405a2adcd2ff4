"""Runs: the folder that a training writes, read back, and exported from."""

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from aigc_sdk.card import DataSummary, ModelCard, checked, parse_strict_json
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import (
    InvalidConfig,
    InvalidModel,
    InvalidRequest,
    StorageError,
    TrainingFailed,
    UnknownName,
    blamed,
    shown,
)
from aigc_sdk.exporter import Exportable, ExportReport
from aigc_sdk.files import as_path, read_file, storage_error
from aigc_sdk.modality import find_modality, package_of
from aigc_sdk.registry import default_registry
from aigc_sdk.specs import ExporterSpec, FamilySpec, sdk_version
from aigc_sdk.training.checkpoint import CHECKPOINT, load_averaged_weights
from aigc_sdk.training.eager import EagerGenerator, rounded, weights_sha256
from aigc_sdk.training.family import Family, FamilyConfig, parse_config

RECORD = "run.json"
METRICS = "metrics.jsonl"

_log = logging.getLogger("aigc_sdk")


class RunRecord(BaseModel):
    """What a run folder says of itself, in `run.json`.

    Attributes:
        details: what the modality says of the data besides, see `ModalityData.dump`; in the file it stands beside the
            other fields.
        data_report: what was read and what was left out, see `DataReport`.
        init: where the weights came from and what did not fit, see `start_from`; None for random ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    name: str
    seed: int
    config: dict[str, JsonValue]
    data: DataSummary
    shape: tuple[int, ...]
    labels: tuple[str, ...]
    label_frequencies: tuple[float, ...]
    details: dict[str, JsonValue] = {}
    environment: dict[str, JsonValue]
    sdk_version: str
    started: str
    data_report: dict[str, JsonValue] | None = None
    init: dict[str, JsonValue] | None = None

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "details" in values:
            return values
        details = {name: value for name, value in values.items() if name not in cls.model_fields}
        return {**{name: value for name, value in values.items() if name not in details}, "details": details}

    @model_serializer(mode="wrap")
    def _spread(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        spread: dict[str, Any] = {}
        for name, value in handler(self).items():
            spread |= value if name == "details" else {name: value}
        return spread

    def data_spec(self, modality: str) -> DataSpec:
        """Return the description of the data that a family of a modality was built for.

        Raises:
            InvalidModel: the details are not those of such data.
        """
        try:
            details = find_modality(modality).data.load(self.details)
        except ValueError as error:
            words = str(error).replace("\n", " ").rstrip(".")
            raise InvalidModel(
                f"{RECORD} is not what a training writes with version {sdk_version()} of the SDK: {words}."
            ) from error
        return DataSpec(self.shape, self.labels, self.label_frequencies, self.data.split["train"], details)


@dataclass(frozen=True)
class Run:
    """A training that has been started: `folder`, `record`, its metrics and its model files."""

    folder: Path
    record: RunRecord

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read a run folder.

        Raises:
            StorageError: it has no `run.json`, or it cannot be read.
            InvalidModel: `run.json` is not what a training writes.
        """
        path = Path(folder) / RECORD
        try:
            return cls(Path(folder), RunRecord.model_validate(parse_strict_json(read_file(path), str(path))))
        except StorageError as error:
            raise StorageError(f"{folder} is not a run folder: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidModel(
                f"{path} is not what a training writes with version {sdk_version()} of the SDK: {where}:"
                f" {first['msg'].rstrip('.')}."
            ) from error

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, in order, without what a training that was killed left half written.

        Raises:
            StorageError: the file cannot be read.
        """
        path = self.folder / METRICS
        try:
            lines = path.read_bytes().splitlines() if os.path.lexists(path) else []
        except OSError as error:
            raise storage_error("read", path, error) from error
        found = map(_parsed_line, lines)
        return [line for line in found if line is not None]

    @property
    def models(self) -> dict[str, Path]:
        """The model files that are there, by task."""
        files = {task: self.folder / file_name(task, first=i == 0) for i, task in enumerate(self.family_class().tasks)}
        return {task: path for task, path in files.items() if path.exists()}

    def family_class(self) -> type[Family]:
        """Import the family that was trained."""
        spec: FamilySpec = default_registry().find("family", self.record.family)
        family: type[Family] = spec.resolve()
        return family

    def options(self) -> FamilyConfig:
        """Return the family's options in this run.

        Raises:
            InvalidConfig: the family has no longer such options.
        """
        try:
            return parse_config(self.record.family, self.family_class().Config, self.record.config)
        except (InvalidConfig, UnknownName) as error:
            raise InvalidConfig(
                f"{self.folder} was made by version {self.record.sdk_version} of the SDK with options that"
                f" {sdk_version()} does not take: {error}"
            ) from error

    def family(self) -> Family:
        """Rebuild the family with the averaged weights of the last checkpoint, in evaluation mode.

        Raises:
            TrainingFailed: there is no checkpoint that fits.
        """
        family = self.family_class()(self.options())
        family.build(self.record.data_spec(family.modality))
        weights = load_averaged_weights(self.folder)
        try:
            family.load_state_dict(weights)
        except RuntimeError as error:
            path = self.folder / CHECKPOINT
            problem = str(error).splitlines()[-1].strip().rstrip(".")
            raise TrainingFailed(f"{path} does not hold the weights of this run: {problem}.") from error
        return family.eval()

    def exportable(self, task: str, family: Family | None = None) -> Exportable:
        """Return one task of the run, ready for an exporter.

        Args:
            task: one of the family's tasks.
            family: the family with the weights to export; without it, the last checkpoint's.
        """
        family = family or self.family()
        if task not in family.tasks:
            raise UnknownName.of(f"task of the family {self.record.family}", task, family.tasks)
        sampler = rounded(family.sampler(task).eval(), family.config.weights)
        try:
            card = self._card(family, task, weights_sha256(sampler))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidConfig(
                f"No card can be made of this run: {where} is {first['input']!r}: {first['msg']}."
            ) from error
        content = self.exportable(family.tasks[0], family).eager if task in family.measures else None
        return Exportable(sampler, EagerGenerator(sampler, card), content)

    def _card(self, family: Family, task: str, sha256: str) -> ModelCard:
        config = family.config
        values = {
            "name": self.record.name,
            "version": config.version,
            "license": config.license,
            "intended_use": config.intended_use,
            "created": now(),
            "sdk_version": sdk_version(),
            "family": self.record.family.rpartition(":")[2],  # without the distribution that picked it
            "task": task,
            "modality": family.modality,
            "package": package_of(family.modality),
            "controls": tuple(family.controls(task)),
            "kind": "measure" if task in family.measures else "model",
            "input": family.output(family.tasks[0]) if task in family.measures else None,
            "output": family.output(task),
            "state": family.state(task),
            "config": self.record.config,
            "data": self.record.data,
            "scores": self._scores(family.scores),
            "graph_sha256": sha256,
        }
        return checked(ModelCard, values)

    def _scores(self, names: tuple[str, ...] | None) -> tuple[dict[str, JsonValue], ...]:
        """Return the figures of these names of the validation that the weights are of, as the card keeps them."""
        lines = [line for line in self.metrics if line.get("validation")]
        if not lines:
            return ()
        last = min(lines, key=_first_figure) if self.options().keeps_best else lines[-1]
        n = self.record.data.split["validation"]
        return tuple(
            {"metric": name, "value": value, "split": "validation", "n": n, "step": last["step"]}
            for name, value in last["validation"].items()
            if math.isfinite(value) and (names is None or name in names)
        )


def export(run: Any, path: Path, *, task: str | None = None, file_format: str = "onnx") -> ExportReport:
    """Write one task of a run to a file; see `aigc_sdk.export`."""
    opened = run if isinstance(run, Run) else Run.open(as_path(run, "run"))
    with blamed(f"The family {opened.record.family!r} failed"):
        model = opened.exportable(opened.family_class().tasks[0] if task is None else task)
    return export_task(model, path, file_format)


def export_task(model: Exportable, path: Path, file_format: str = "onnx") -> ExportReport:
    """Write one task of a finished model with the exporter of that name."""
    spec: ExporterSpec = default_registry().find("format", file_format)
    if not path.name.endswith(spec.suffix):
        raise InvalidRequest(f"Cannot export to {path}; the file's name has to end in {spec.suffix}.")
    exporter = spec.resolve()
    with blamed(f"The exporter {file_format!r} failed"):
        report = exporter().export(model, path)
        if not isinstance(report, ExportReport):
            raise TypeError(f"it returned {shown(report)}, no ExportReport")
    for check in report.checks:
        _log.info("%s: %s: %s", report.path.name, check.name, check.measured)
    return report


def file_name(task: str, *, first: bool) -> str:
    """Return the name of a task's model file in a run folder; a family's first task has the short one."""
    return "model.onnx" if first else f"model.{task}.onnx"


def _parsed_line(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    has_figures = isinstance(values, dict) and isinstance(values.get("step"), int)
    return values if has_figures and isinstance(values.get("validation", {}), dict) else None


def _first_figure(line: dict[str, Any]) -> float:
    figure: float = next(iter(line["validation"].values()))
    return math.inf if math.isnan(figure) else figure


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
