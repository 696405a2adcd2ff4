"""Journal: where the figures of a training go: `metrics.jsonl`, TensorBoard if asked for, and the log."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigc_sdk.errors import TrainingFailed, missing_package
from aigc_sdk.files import storage_error
from aigc_sdk.training.progress import Clock, Meter, readable
from aigc_sdk.training.run import METRICS

TENSORBOARD = "tensorboard"

_log = logging.getLogger("aigc_sdk")


class Journal:
    """Writes figures; a context manager, so that TensorBoard's file is closed.

    Args:
        folder: the run folder.
        tensorboard: write TensorBoard's events too.
        step: from which step on.
        size_bytes: how long `metrics.jsonl` was at that step; what was written after it is cut off.
    """

    def __init__(self, folder: Path, *, tensorboard: bool, step: int = 0, size_bytes: int = 0) -> None:
        self._path = folder / METRICS
        self._cut(size_bytes)
        self._events: Any = _event_writer(folder / TENSORBOARD, step) if tensorboard else None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._events.close()

    def losses(self, clock: Clock, meter: Meter, rate: float) -> None:
        """Write the means since the last line, and begin a new one; a loss that is no number ends the training."""
        means = meter.means()
        if not all(map(math.isfinite, means.values())):
            raise TrainingFailed(not_finite(clock.step, means, self._path.parent))
        speed = meter.items / max(meter.seconds, 1e-9)
        line = self._line(clock) | {"items_per_s": round(speed, 1), "learning_rate": rate, **means}
        self._write(line, clock.step, {"learning_rate": rate, "items_per_s": speed, **means})
        meter.reset()

    def validation(self, clock: Clock, figures: Mapping[str, float]) -> None:
        """Write the figures of a validation."""
        named = {f"validation/{name}": value for name, value in figures.items()}
        self._write(self._line(clock) | {"validation": dict(figures)}, clock.step, named)
        _log.info("epoch %d: %s", clock.epoch, readable(figures))

    def sync(self) -> int:
        """Bring all to the disk and return how many bytes of `metrics.jsonl` there are."""
        if self._events is not None:
            self._events.flush()
        try:
            with open(self._path, "rb+") as file:
                os.fsync(file.fileno())
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise storage_error("write", self._path, error) from error

    def _line(self, clock: Clock) -> dict[str, Any]:
        return {"step": clock.step, "epoch": clock.epoch, "minutes": round(clock.minutes, 3)}

    def _write(self, line: Mapping[str, Any], step: int, scalars: Mapping[str, float]) -> None:
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise storage_error("write", self._path, error) from error
        if self._events is not None:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)

    def _cut(self, size_bytes: int) -> None:
        """Cut off what is beyond these bytes, and half a line before."""
        try:
            found = self._path.read_bytes()
            if len(found) < size_bytes:
                _log.warning("%s has %d bytes, less than the %d of before.", self._path, len(found), size_bytes)
            whole = found.rfind(b"\n", 0, size_bytes) + 1
            if whole < len(found):
                os.truncate(self._path, whole)
        except FileNotFoundError:
            if size_bytes:
                _log.warning("%s is gone; only the figures from here on will be in it.", self._path)
        except OSError as error:
            raise storage_error("read", self._path, error) from error


def check_tensorboard() -> None:
    """Raise MissingPackage when TensorBoard's events cannot be written."""
    try:
        import torch.utils.tensorboard  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise missing_package("The option tensorboard", "tensorboard", "train") from error


def not_finite(step: int, figures: Mapping[str, float], folder: Path) -> str:
    """Say that the loss is not a number, and what to do."""
    return (
        f"The loss is not a number any more at step {step} ({readable(figures)}); {folder} keeps the last good"
        " checkpoint. A smaller learning_rate or a clip_norm may help; init= starts a new run from those weights."
    )


def _event_writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    # TensorBoard drops what an earlier process wrote from this step on.
    return SummaryWriter(str(folder), purge_step=step + 1)
