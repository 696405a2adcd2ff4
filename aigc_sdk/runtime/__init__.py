"""Running model files with onnxruntime: safe loading, devices, sessions, and what runs each kind of file."""

from pathlib import Path

from aigc_sdk.card import ModelCard
from aigc_sdk.runtime.loading import open_file
from aigc_sdk.runtime.onnx_generator import OnnxGenerator
from aigc_sdk.runtime.onnx_measure import OnnxMeasure
from aigc_sdk.runtime.session import Session

__all__ = ["OnnxGenerator", "OnnxMeasure", "open_model"]


def open_model(path: Path, *, device: str = "auto", trusted_sha256: str | None = None) -> OnnxGenerator | OnnxMeasure:
    """Load a file of either kind safely; see `open_file`."""

    def run(session: Session, card: ModelCard) -> OnnxGenerator | OnnxMeasure:
        return OnnxMeasure(session, card) if card.kind == "measure" else OnnxGenerator(session, card)

    return open_file(path, run, device=device, trusted_sha256=trusted_sha256)
