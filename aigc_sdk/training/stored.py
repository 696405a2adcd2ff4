"""Stored weights: what a model file holds of the network that it was exported from."""

from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor

from aigc_sdk.card import ModelCard
from aigc_sdk.runtime.safety import check_model, read_model

# How a tensor is stored small: in these parts, each with the tensor's name before it.
_STEPS, _SCALE, _HALVES = ".int8", ".scale", ".float16"


@dataclass(frozen=True)
class Stored:
    """What is in a model file.

    Attributes:
        card: of the file.
        tensors: float32, by their names in the file, which are those in the network but for what the exporter worked
            out beforehand, such as the sum of two; in the order of the file.
        codes: the tables of int32, such as an alphabet; whatever they are called, for they are cut and reshaped.
    """

    card: ModelCard
    tensors: dict[str, Tensor]
    codes: tuple[Tensor, ...] = ()


def read_stored(path: Path) -> Stored:
    """Read the weights of a model file, of whatever they are stored in.

    Raises:
        InvalidModel: it is no model file, or not a safe one.
        StorageError: it cannot be read.
    """
    data = read_model(path)
    card = check_model(data, path.name)
    graph = onnx.load_model_from_string(data).graph
    parts = {each.name: torch.tensor(onnx.numpy_helper.to_array(each)) for each in graph.initializer}
    tensors = dict[str, Tensor]()
    for name, values in parts.items():
        whole, dot, kind = name.rpartition(".")
        if dot + kind == _STEPS and whole + _SCALE in parts:
            tensors[whole] = values.float() * parts[whole + _SCALE]
        elif dot + kind == _HALVES:
            tensors[whole] = values.float()
        elif values.dtype == torch.float32 and not (dot + kind == _SCALE and whole + _STEPS in parts):
            tensors[name] = values
    return Stored(card, tensors, tuple(values for values in parts.values() if values.dtype == torch.int32))
