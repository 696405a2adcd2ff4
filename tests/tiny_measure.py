"""A measure of the contract in four ONNX nodes, made by hand: for tests of what runs measures, without torch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from aigc_sdk.card import DataSummary, Golden, ModelCard, OutputSpec, checked
from aigc_sdk.runtime.safety import graph_sha256
from tiny_model import SIZE, to_bytes

K = 3
SHAPE = (SIZE, SIZE, 1)
WEIGHTS = np.random.default_rng(0).normal(size=(SIZE * SIZE, K)).astype(np.float32) / 255


def contents(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return noise, uint8 (n, 8, 8, 1)."""
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), np.uint8)


def expected_value(content: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what the graph measures, float32 (n, 3), computed in numpy."""
    return content.reshape(len(content), -1).astype(np.float32) @ WEIGHTS


def make_measure_graph(divisor: float = 1.0) -> onnx.ModelProto:
    """Return the bare graph: a linear map of the pixels, divided; by zero, nothing it gives is finite."""
    nodes = [
        helper.make_node("Cast", ["content"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["product"]),
        helper.make_node("Div", ["product", "divisor"], ["value"]),
    ]
    constants = [
        numpy_helper.from_array(WEIGHTS, "weights"),
        numpy_helper.from_array(np.array(divisor, np.float32), "divisor"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny_measure",
        [helper.make_tensor_value_info("content", TensorProto.UINT8, ["n", *SHAPE])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", K])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def make_measure_card(graph: onnx.ModelProto, **changes: Any) -> ModelCard:
    """Return a card that fits the graph, but for the changes."""
    content = contents(4)
    values: dict[str, Any] = {
        "kind": "measure",
        "name": "tiny-measure",
        "version": "1.0",
        "license": "Apache-2.0",
        "intended_use": "tests",
        "created": "2026-11-24T00:00:00+00:00",
        "sdk_version": "0.1.0",
        "family": "handmade",
        "task": "features",
        "modality": "image",
        "controls": (),
        "input": OutputSpec(dtype="uint8", shape=SHAPE),
        "output": OutputSpec(dtype="float32", shape=(K,)),
        "config": {},
        "data": DataSummary(name="none", fingerprint=None, n=1, split={"train": 1}),
        "graph_sha256": graph_sha256(graph),
        "golden": Golden.of(np.zeros(0, np.int64), {"content": content}, expected_value(content)),
    }
    return checked(ModelCard, {**values, **changes})


def write_tiny_measure(path: Path, divisor: float = 1.0, **card_changes: Any) -> Path:
    """Write the measure to a file and return its path."""
    graph, content = make_measure_graph(divisor), contents(4)
    golden = Golden.of(np.zeros(0, np.int64), {"content": content}, expected_value(content) / np.float32(divisor))
    path.write_bytes(to_bytes(graph, make_measure_card(graph, **{"golden": golden, **card_changes})))
    return path
