"""Exporting a measure: a torch network of content, converted, verified and written as one file of the contract."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aigc_onnx.convert import OPSET, TRACED_N, convert_measure
from aigc_onnx.verify import SIZES
from aigc_sdk.card import ModelCard
from aigc_sdk.errors import ExportFailed, InvalidModel, InvalidRequest
from aigc_sdk.exporter import Check, ExportReport
from aigc_sdk.modality import find_modality, lengths_of, trimmed
from aigc_sdk.runtime import OnnxMeasure
from aigc_sdk.runtime.onnx_measure import finish_measure, within_tolerance, write_measure
from aigc_sdk.runtime.safety import MAX_IR_VERSION

Array = NDArray[Any]


def export_measure(network: nn.Module, card: ModelCard, path: Path, examples: Array) -> ExportReport:
    """Convert, verify and write a measure; on failure write no file.

    Args:
        network: f(content) -> value float32 (n, K), or f(content, length) for texts and music,
            in evaluation mode, on the CPU.
        card: of the file, but for `graph_sha256` and `golden`, which are filled in.
        path: ends in .onnx; the card is written beside it as NAME.card.json.
        examples: content (n, ...) of at least 64 items, to compare with; the first four become the golden items.

    Raises:
        ExportFailed: a check failed; says which and by how much.
        StorageError: the file cannot be written.
    """
    if path.suffix != ".onnx":
        raise InvalidRequest(f"Cannot export to {path}; the file's name has to end in .onnx.")
    graph = convert_measure(network, *_inputs(card, examples[:TRACED_N]))
    graph.ir_version = min(graph.ir_version, MAX_IR_VERSION)
    try:
        data = finish_measure(graph, card, examples[:TRACED_N])
    except InvalidModel as error:
        raise ExportFailed(f"The exported file breaks the contract: {error}") from error
    exported = OnnxMeasure.from_bytes(data)
    checks = [
        Check("contract", f"opset {OPSET}, standard operators only, {len(data) / 1e6:.2f} MB"),
        _compare_with_eager(network, exported, examples),
        _check_independence(exported, examples[:64]),
    ]
    write_measure(data, path)
    return ExportReport(path, tuple(checks))


def _inputs(card: ModelCard, content: Array) -> list[torch.Tensor]:
    """Return what the network takes: the content, and how long each item is where that varies."""
    return [torch.tensor(content), *([torch.tensor(lengths_of(content, _filler(card)))] if _has_length(card) else [])]


def _has_length(card: ModelCard) -> bool:
    return card.input is not None and card.input.length


def _filler(card: ModelCard) -> float:
    return find_modality(card.modality).filler


def _compare_with_eager(network: nn.Module, exported: OnnxMeasure, examples: Array) -> Check:
    largest = 0.0
    for size in SIZES:
        with torch.inference_mode():
            wanted = network(*_inputs(exported.card, examples[-size:])).numpy()
        got = exported.run(examples[-size:])
        if wanted.shape != got.shape or not within_tolerance(got, wanted):
            raise ExportFailed(f"At N = {size} the exported file measures something else than eager torch.")
        largest = max(largest, float(np.abs(got - wanted).max()))
    return Check("same as eager torch", f"by at most {largest:.1e} (N = {', '.join(map(str, SIZES))})")


def _check_independence(exported: OnnxMeasure, content: Array) -> Check:
    """Compare every item of 64 with the same one among 7 and alone."""
    whole, largest = exported.run(content), 0.0
    for size in (1, 7):
        for start in range(0, len(content), size):
            rows = slice(start, start + size)
            part = exported.run(
                trimmed(content[rows], _filler(exported.card)) if _has_length(exported.card) else content[rows]
            )
            if not within_tolerance(part, whole[rows]):
                raise ExportFailed(
                    f"Item {start} of 64 measures otherwise among {size}: it depends on its neighbours, or padding."
                )
            largest = max(largest, float(np.abs(part - whole[rows]).max()))
    return Check("independent items", f"64 items among 64, among 7 and alone differ by at most {largest:.1e}")
