"""A model of music in two dozen ONNX nodes, made by hand: two notes of each seed, a tempo, a metre and a key."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from aigc_sdk.card import Control, Golden, ModelCard, OutputSpec
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.runtime.loading import made_by
from aigc_sdk.runtime.safety import graph_sha256, trust
from tiny_model import make_card, to_bytes

# Pitch, velocity, onset, duration, voice and program of the two notes of seed 0.
NOTES = np.array([[60, 80, 0, 0.5, 0, 0], [64, 80, 0.5, 0.25, 0, 0]], np.float32)
PROMPT = Control(name="prompt", kind="text", choices=("a", "b"), maximum=20, default="", help="is counted")
SEEDS = np.array([0, 1, 2, 13], np.int64)


def make_music_graph(counted: str = "nothing", *, padding: int = 0) -> onnx.ModelProto:
    """Return the bare graph: seed & 7 moves the pitches, is the key, and times 10 plus 90 the tempo; the metre is 6/8.

    Args:
        counted: what the length of the prompt is added to as well: "nothing", "pitch" or "tempo".
        padding: count blocks of so many columns of the prompt, which its neighbours decide, not its characters.
    """
    count = (
        [
            helper.make_node("Shape", ["prompt"], ["width"], start=1, end=2),
            helper.make_node("Div", ["width", "block"], ["blocks"]),
            helper.make_node("Add", ["nothing", "blocks"], ["counted"]),
        ]
        if padding
        else [
            helper.make_node("Equal", ["prompt", "filler"], ["is_filler"]),
            helper.make_node("Not", ["is_filler"], ["is_there"]),
            helper.make_node("Cast", ["is_there"], ["there"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", ["there", "axis"], ["counted"], keepdims=0),
        ]
    )
    nodes = [
        helper.make_node("BitwiseAnd", ["seed", "seven"], ["low"]),
        helper.make_node("Mul", ["seed", "zero"], ["nothing"]),
        *count,
        helper.make_node("Add", ["low", "counted" if counted == "pitch" else "nothing"], ["moved"]),
        helper.make_node("Cast", ["moved"], ["moved_float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["moved_float", "row"], ["moved_row"]),
        helper.make_node("Mul", ["moved_row", "pitch"], ["up"]),
        helper.make_node("Add", ["up", "notes"], ["content"]),
        helper.make_node("Add", ["nothing", "two"], ["length"]),
        helper.make_node("Mul", ["low", "ten"], ["faster"]),
        helper.make_node("Add", ["faster", "ninety"], ["tempo"]),
        helper.make_node("Add", ["tempo", "counted" if counted == "tempo" else "nothing"], ["tempo_whole"]),
        helper.make_node("Cast", ["tempo_whole"], ["content.tempo"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["nothing", "pair"], ["nothing_pair"]),
        helper.make_node("Add", ["nothing_pair", "six_eight"], ["content.meter"]),
        helper.make_node("Add", ["low", "nothing"], ["content.key"]),
    ]
    numbers = {"block": padding, "seven": 7, "zero": 0, "two": 2, "ten": 10, "ninety": 90}
    constants = {name: np.array(number, np.int64) for name, number in numbers.items()}
    constants |= {"row": np.array([-1, 1, 1]), "pair": np.array([-1, 1]), "axis": np.array([1])}
    constants |= {"six_eight": np.array([6, 8]), "filler": np.array(-1, np.int32)}
    constants |= {"pitch": np.array([1, 0, 0, 0, 0, 0], np.float32), "notes": NOTES[None]}
    inputs = [("seed", TensorProto.INT64, ["n"]), ("prompt", TensorProto.INT32, ["n", "p"])]
    outputs = [
        ("content", TensorProto.FLOAT, ["n", "e", 6]),
        ("length", TensorProto.INT64, ["n"]),
        ("content.tempo", TensorProto.FLOAT, ["n"]),
        ("content.meter", TensorProto.INT64, ["n", 2]),
        ("content.key", TensorProto.INT64, ["n"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny_music",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def make_music_card(graph: onnx.ModelProto, **changes: Any) -> ModelCard:
    """Return a card that fits the graph, with golden items that the graph made here, but for the changes."""
    values: dict[str, Any] = {
        "name": "tiny-music",
        "modality": "music",
        "controls": (PROMPT,),
        "output": OutputSpec(dtype="float32", shape=(2, 6), length=True),
        "graph_sha256": graph_sha256(graph),
        "golden": None,
    }
    card = make_card(graph, **values)
    feeds = {"prompt": np.full((4, 1), -1, np.int32)}
    model = OnnxGenerator.from_bytes(to_bytes(graph, card))
    outputs = model.run(SEEDS, feeds)
    parts = {name: outputs[f"content.{name}"] for name in ("tempo", "meter", "key")}
    golden = Golden.of(SEEDS, feeds, outputs["content"], parts, made_by(model))
    return make_card(graph, **{**values, "golden": golden, **changes})


def write_tiny_music(path: Path, counted: str = "nothing", *, padding: int = 0, **changes: Any) -> Path:
    """Write the model to a file, and its card beside it, and return its path."""
    graph = make_music_graph(counted, padding=padding)
    card = make_music_card(graph, **changes)
    path.write_bytes(to_bytes(graph, card))
    trust(path.read_bytes())  # what a trial of the file tells is not what these tests are about
    path.with_suffix(".card.json").write_text(card.to_json(), encoding="utf-8")
    return path
