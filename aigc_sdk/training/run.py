"""Runs: the folder that a training writes, read back, and exported from."""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from aigc_sdk.card import DataSummary, ModelCard, checked, parse_strict_json
from aigc_sdk.data import DataSpec
from aigc_sdk.errors import InvalidConfig, InvalidModel, StorageError, TrainingFailed, UnknownName
from aigc_sdk.exporter import Exportable, ExportReport
from aigc_sdk.files import write_bytes
from aigc_sdk.registry import default_registry
from aigc_sdk.specs import FamilySpec, sdk_version
from aigc_sdk.training.eager import EagerGenerator, weights_sha256
from aigc_sdk.training.family import Family, parse_config

RECORD = "run.json"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.safetensors"

_log = logging.getLogger("aigc_sdk")

# Tensors of the averaged weights carry this prefix in a checkpoint, those being trained the other.
EMA = "ema."
TRAINED = "trained."


class RunRecord(BaseModel):
    """What a run folder says of itself, in `run.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    name: str
    seed: int
    config: dict[str, JsonValue]
    data: DataSummary
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    label_frequencies: tuple[float, ...]
    environment: dict[str, JsonValue]
    sdk_version: str
    started: str

    def data_spec(self) -> DataSpec:
        """Return the description of the data that the family was built for."""
        return DataSpec(self.shape, self.labels, self.label_frequencies)


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
            return cls(Path(folder), RunRecord.model_validate(parse_strict_json(path.read_bytes())))
        except OSError as error:
            raise StorageError(f"{folder} is not a run folder: cannot read {path}: {error.strerror}.") from error
        except ValidationError as error:
            raise InvalidModel(f"{path} is not what a training writes: {error.errors()[0]['msg']}.") from error

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, in order."""
        path = self.folder / METRICS
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

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

    def family(self) -> Family:
        """Rebuild the family with the averaged weights of the last checkpoint, in evaluation mode.

        Raises:
            TrainingFailed: there is no checkpoint that fits.
        """
        family_class = self.family_class()
        family = family_class(parse_config(self.record.family, family_class.Config, self.record.config))
        family.build(self.record.data_spec())
        path = self.folder / CHECKPOINT
        try:
            tensors = load_tensors(path.read_bytes())
            family.load_state_dict({k.removeprefix(EMA): v for k, v in tensors.items() if k.startswith(EMA)})
        except (OSError, SafetensorError, RuntimeError) as error:
            raise TrainingFailed(f"{path} does not hold the weights of this run: {error}.") from error
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
        sampler = family.sampler(task).eval()
        try:
            card = self._card(family, task, weights_sha256(sampler))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidConfig(
                f"No card can be made of this run: {where} is {first['input']!r}: {first['msg']}."
            ) from error
        return Exportable(sampler, EagerGenerator(sampler, card))

    def _card(self, family: Family, task: str, sha256: str) -> ModelCard:
        config = self.record.config
        values = {
            "name": self.record.name,
            "version": str(config["version"]),
            "license": str(config["license"]),
            "intended_use": str(config["intended_use"]),
            "created": now(),
            "sdk_version": sdk_version(),
            "family": self.record.family,
            "task": task,
            "modality": "image",
            "controls": tuple(family.controls(task)),
            "output": family.output(task),
            "config": config,
            "data": self.record.data,
            "scores": self._scores(),
            "graph_sha256": sha256,
        }
        return checked(ModelCard, values)

    def _scores(self) -> tuple[dict[str, JsonValue], ...]:
        """Return the figures of the last validation, as the card keeps them."""
        last = next((line for line in reversed(self.metrics) if "validation" in line), None)
        if last is None:
            return ()
        n = self.record.data.split["validation"]
        return tuple(
            {"metric": name, "value": value, "split": "validation", "n": n, "step": last["step"]}
            for name, value in last["validation"].items()
        )


def export(run: Any, path: Path, *, task: str | None = None, file_format: str = "onnx") -> ExportReport:
    """Write one task of a run to a file; see `aigc_sdk.export`."""
    opened = run if isinstance(run, Run) else Run.open(Path(run))
    return export_task(opened.exportable(task or opened.family_class().tasks[0]), path, file_format)


def export_task(model: Exportable, path: Path, file_format: str = "onnx") -> ExportReport:
    """Write one task of a finished model with the exporter of that name."""
    exporter = default_registry().find("format", file_format).resolve()()
    report: ExportReport = exporter.export(model, path)
    for check in report.checks:
        _log.info("%s: %s: %s", report.path.name, check.name, check.measured)
    return report


def file_name(task: str, *, first: bool) -> str:
    """Return the name of a task's model file in a run folder; a family's first task has the short one."""
    return "model.onnx" if first else f"model.{task}.onnx"


def save_checkpoint(folder: Path, trained: dict[str, Tensor], ema: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the weights being trained and the averaged ones, whole or not at all.

    Args:
        folder: the run folder.
        trained: the state dict of the family.
        ema: that of its average.
        state: what else to keep, as JSON in the file's header.
    """
    tensors = {TRAINED + name: tensor for name, tensor in trained.items()}
    tensors |= {EMA + name: tensor for name, tensor in ema.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / CHECKPOINT, save_tensors(contiguous, {"state": json.dumps(state)}))


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
