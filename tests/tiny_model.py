"""A model of the contract in a dozen ONNX nodes, made by hand: for tests of what runs models, without torch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from aigc_sdk.card import CARD_KEY, Control, DataSummary, Golden, ModelCard, OutputSpec, checked
from aigc_sdk.runtime.safety import graph_sha256

LABELS = ("cat", "dog", "owl")
SIZE = 8

CONTROLS = (
    Control(name="label", kind="choice", choices=LABELS, default=-1, help="what it shows"),
    Control(name="gain", kind="number", minimum=0, maximum=2, default=1.0, help="brightness"),
    Control(name="shift", kind="integer", minimum=0, maximum=9, default=0, help="added to the seed"),
    Control(name="flip", kind="flag", default=False, help="mirrored"),
    Control(name="seed_b", kind="seed", default=0, help="a second seed"),
)


def make_graph() -> onnx.ModelProto:
    """Return the bare graph: pixel p of an item is ((seed + seed_b + shift + 31 p + 7 label) & 255) times gain."""
    shape = numpy_helper.from_array(np.array([-1, 1, 1, 1], np.int64), "item_shape")
    positions = np.arange(SIZE * SIZE, dtype=np.int64).reshape(1, SIZE, SIZE, 1) * 31
    constants = [
        shape,
        numpy_helper.from_array(positions, "positions"),
        numpy_helper.from_array(positions[:, :, ::-1].copy(), "mirrored"),
        numpy_helper.from_array(np.array(7, np.int64), "seven"),
        numpy_helper.from_array(np.array(255, np.int64), "low_byte"),
        numpy_helper.from_array(np.array(255, np.float32), "white"),
        numpy_helper.from_array(np.array(0, np.float32), "black"),
    ]
    nodes = [
        helper.make_node("Mul", ["label", "seven"], ["label_part"]),
        helper.make_node("Add", ["seed", "seed_b"], ["seeds"]),
        helper.make_node("Add", ["seeds", "shift"], ["shifted"]),
        helper.make_node("Add", ["shifted", "label_part"], ["start"]),
        helper.make_node("Reshape", ["start", "item_shape"], ["start_4d"]),
        helper.make_node("Reshape", ["flip", "item_shape"], ["flip_4d"]),
        helper.make_node("Reshape", ["gain", "item_shape"], ["gain_4d"]),
        helper.make_node("Where", ["flip_4d", "mirrored", "positions"], ["places"]),
        helper.make_node("Add", ["start_4d", "places"], ["words"]),
        helper.make_node("BitwiseAnd", ["words", "low_byte"], ["levels"]),
        helper.make_node("Cast", ["levels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["values", "gain_4d"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "black", "white"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["content"], to=TensorProto.UINT8),
    ]
    types = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}
    inputs = [("seed", "int64"), *((control.name, control.dtype) for control in CONTROLS)]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, types[dtype], ["n"]) for name, dtype in inputs],
        [helper.make_tensor_value_info("content", TensorProto.UINT8, ["n", SIZE, SIZE, 1])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


PIXEL_CONTROLS = (
    Control(name="image", kind="image", shape=(SIZE, SIZE, 1), default=None, help="what to keep of it"),
    Control(name="mask", kind="mask", shape=(SIZE, SIZE, 1), default=255, help="where"),
)


def write_pixel_model(path: Path) -> Path:
    """Write a model that keeps the image where the mask is 255, and fills the rest with the low byte of the seed."""
    nodes = [
        helper.make_node("Reshape", ["seed", "item_shape"], ["seed_4d"]),
        helper.make_node("BitwiseAnd", ["seed_4d", "low_byte"], ["levels"]),
        helper.make_node("Cast", ["levels"], ["fill"], to=TensorProto.UINT8),
        helper.make_node("Equal", ["mask", "white"], ["keep"]),
        helper.make_node("Where", ["keep", "image", "fill"], ["content"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([-1, 1, 1, 1], np.int64), "item_shape"),
        numpy_helper.from_array(np.array(255, np.int64), "low_byte"),
        numpy_helper.from_array(np.array(255, np.uint8), "white"),
    ]
    pixels = ["n", SIZE, SIZE, 1]
    inputs = [helper.make_tensor_value_info("seed", TensorProto.INT64, ["n"])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.UINT8, pixels) for name in ("image", "mask")]
    outputs = [helper.make_tensor_value_info("content", TensorProto.UINT8, pixels)]
    graph = helper.make_graph(nodes, "pixels", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    seeds = np.array([5, 300], np.int64)
    feeds = {"image": np.arange(2 * SIZE * SIZE, dtype=np.uint8).reshape(2, SIZE, SIZE, 1)}
    feeds["mask"] = np.where(feeds["image"] % 2, np.uint8(255), np.uint8(0))
    content = np.where(feeds["mask"] == 255, feeds["image"], (seeds & 255).astype(np.uint8).reshape(2, 1, 1, 1))
    card = make_card(model, name="pixels", controls=PIXEL_CONTROLS, golden=Golden.of(seeds, feeds, content))
    path.write_bytes(to_bytes(model, card))
    return path


def expected(
    seeds: Any, label: int = -1, gain: float = 1.0, shift: int = 0, flip: bool = False, seed_b: int = 0
) -> Any:
    """Return what the graph makes, uint8 (n, 8, 8, 1), computed in numpy."""
    places = np.arange(SIZE * SIZE, dtype=np.int64).reshape(1, SIZE, SIZE, 1) * 31
    words = (
        np.asarray(seeds, np.int64).reshape(-1, 1, 1, 1)
        + seed_b
        + shift
        + 7 * label
        + (places[:, :, ::-1] if flip else places)
    )
    return np.clip((words & 255).astype(np.float32) * np.float32(gain), 0, 255).astype(np.uint8)


def make_card(graph: onnx.ModelProto, **changes: Any) -> ModelCard:
    """Return a card that fits the graph, but for the changes."""
    seeds = np.array([0, 1, 2, 2**53 - 1], np.int64)
    feeds = {control.name: np.full(4, control.default, control.dtype) for control in CONTROLS}
    values: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0",
        "license": "Apache-2.0",
        "intended_use": "tests",
        "created": "2026-11-22T00:00:00+00:00",
        "sdk_version": "0.1.0",
        "family": "handmade",
        "task": "generate",
        "modality": "image",
        "controls": CONTROLS,
        "output": OutputSpec(dtype="uint8", shape=(SIZE, SIZE, 1)),
        "config": {},
        "data": DataSummary(name="none", fingerprint="0" * 64, n=1, split={"train": 1}),
        "graph_sha256": graph_sha256(graph),
        "golden": Golden.of(seeds, feeds, expected(seeds)),
    }
    return checked(ModelCard, {**values, **changes})


def to_bytes(graph: onnx.ModelProto, card: ModelCard | str | None) -> bytes:
    """Return the file: the graph with the card in its metadata."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    if card is not None:
        model.metadata_props.add(key=CARD_KEY, value=card if isinstance(card, str) else card.to_json())
    return bytes(model.SerializeToString(deterministic=True))


def write_tiny_model(path: Path, **card_changes: Any) -> Path:
    """Write the model to a file and return its path."""
    graph = make_graph()
    path.write_bytes(to_bytes(graph, make_card(graph, **card_changes)))
    return path
