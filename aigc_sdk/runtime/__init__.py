"""Running model files with onnxruntime: safe loading, devices, sessions, and what runs each kind of file."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_sdk.forking import unforked
from aigc_sdk.runtime.loading import open_file

if TYPE_CHECKING:
    from aigc_sdk.card import ModelCard
    from aigc_sdk.runtime.onnx_generator import OnnxGenerator
    from aigc_sdk.runtime.onnx_measure import OnnxMeasure
    from aigc_sdk.runtime.session import Session

__all__ = ["OnnxGenerator", "OnnxMeasure", "open_model"]

# These import onnxruntime, which may take as long as a new file is tried in another process: both at the same time.
_WITH_ONNXRUNTIME = {"OnnxGenerator": "onnx_generator", "OnnxMeasure": "onnx_measure"}


def __getattr__(name: str) -> Any:
    if name not in _WITH_ONNXRUNTIME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_ONNXRUNTIME[name]}"), name)


def open_model(
    path: Path,
    *,
    device: str = "auto",
    trusted_sha256: str | None = None,
    deadline: float | None = None,
    compares: bool = True,
) -> "OnnxGenerator | OnnxMeasure":
    """Load a file of either kind safely; see `open_file`."""

    def run(session: "Session", card: "ModelCard") -> "OnnxGenerator | OnnxMeasure":
        with unforked:
            from aigc_sdk.runtime.onnx_generator import OnnxGenerator
            from aigc_sdk.runtime.onnx_measure import OnnxMeasure

        return OnnxMeasure(session, card) if card.kind == "measure" else OnnxGenerator(session, card)

    return open_file(path, run, device=device, trusted_sha256=trusted_sha256, deadline=deadline, compares=compares)
