"""From a torch sampler to a bare ONNX graph: traced whole, with the number of items free."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxscript import opset20 as opset
from torch import nn

from aigc_sdk.card import Control, ModelCard
from aigc_sdk.errors import ExportFailed
from aigc_sdk.generator import output_names, start_state
from aigc_sdk.kinds import kind_of
from aigc_sdk.training.random import rounds
from aigc_sdk.training.trainer import quiet

OPSET = 20

# The number of items that the sampler is traced with; verification uses others.
TRACED_N = 4

_TRACED_LENGTH = 5  # of texts and prompts

# Weights of fewer values than these are not worth a node.
_LARGE = 1024

_DTYPES = {name: getattr(torch, name) for name in ("int64", "int32", "float32", "bool", "uint8")}


def _shift_left(x: Any, places: int) -> Any:
    return opset.Mul(x, _constant(1 << places))


def _shift_right(x: Any, places: int) -> Any:
    # Of what is not negative, or divides, as `aigc_sdk.training.random` shifts nothing else: the division truncates.
    return opset.Div(x, _constant(1 << places))


def _constant(value: int) -> Any:
    return opset.Constant(value_int=value)


class _Word:
    """A value of the graph that holds 32-bit words in int64, with the operators of Python."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def _with(self, operator: Callable[..., Any], other: "_Word | int") -> "_Word":
        return _Word(operator(self.value, _constant(other) if isinstance(other, int) else other.value))

    def __add__(self, other: "_Word | int") -> "_Word":
        return self._with(opset.Add, other)

    def __and__(self, other: "_Word | int") -> "_Word":
        return self._with(opset.BitwiseAnd, other)

    def __or__(self, other: "_Word | int") -> "_Word":
        return self._with(opset.BitwiseOr, other)

    def __xor__(self, other: "_Word | int") -> "_Word":
        return self._with(opset.BitwiseXor, other)

    def __lshift__(self, places: int) -> "_Word":
        return _Word(_shift_left(self.value, places))

    def __rshift__(self, places: int) -> "_Word":
        return _Word(_shift_right(self.value, places))


def _threefry(*words: Any) -> tuple[Any, Any]:
    key_0, key_1, counter_0, counter_1 = map(_Word, words)
    made = rounds((key_0, key_1), (counter_0, counter_1))
    return made[0].value, made[1].value


# ONNX shifts unsigned words alone, so that the exporter's own translation takes three to six nodes for one of these;
# the random numbers of a small model would cost more than its network.
_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.__lshift__.Scalar: _shift_left,
    torch.ops.aten.__rshift__.Scalar: _shift_right,
    torch.ops.aigc.threefry.default: _threefry,
}


def convert(sampler: nn.Module, card: ModelCard) -> onnx.ModelProto:
    """Trace the sampler and return the graph, without any trace of the machine that made it.

    Args:
        sampler: f(seed, {name: control}) -> content, or also f(seed, controls, state) for a card with a state, in
            evaluation mode; see `Family.sampler`.
        card: says what it takes and makes.

    Raises:
        ExportFailed: torch cannot trace or translate it.
    """
    groups = {"controls": {control.name: _traced_feed(control) for control in card.controls}}
    state = start_state(card, TRACED_N)
    if state:
        groups["state"] = {name: torch.from_numpy(part) for name, part in state.items()}
    outputs = (*output_names(card), *(f"{name}.next" for name in state), *(("finished",) if state else ()))
    return trace(sampler, {"seed": torch.arange(TRACED_N)}, groups, outputs)


def _traced_feed(control: Control) -> torch.Tensor:
    kind = kind_of(control)
    if kind.is_ragged:
        shape = (TRACED_N, _TRACED_LENGTH, *control.shape[1:])
        return torch.full(shape, kind.padding, dtype=_DTYPES[control.dtype])
    return torch.full((TRACED_N, *control.shape), float(control.default or 0), dtype=_DTYPES[control.dtype])


def convert_measure(network: nn.Module, *content: torch.Tensor) -> onnx.ModelProto:
    """Trace a network f(content[, length]) -> value, in evaluation mode, with such (n, ...); raises ExportFailed."""
    return trace(network, dict(zip(("content", "length"), content, strict=False)), {}, ("value",))


def trace(
    module: nn.Module,
    arrays: dict[str, torch.Tensor],
    groups: dict[str, dict[str, torch.Tensor]],
    outputs: tuple[str, ...],
) -> onnx.ModelProto:
    """Trace module(*arrays, **groups), the number of items free, and the length of codes and of what has a length.

    Codes are int32, and nothing else is; what has a length is `content` beside `length`.
    """
    n, length = (torch.export.Dim(name, min=1, max=2**20) for name in ("n", "length"))

    def free(group: dict[str, torch.Tensor]) -> dict[str, dict[int, Any]]:
        long = {key for key, part in group.items() if part.dtype == torch.int32}
        long |= {"content"} & group.keys() if "length" in group else set()
        return {key: {0: n, 1: length} if key in long else {0: n} for key in group}

    shapes = {**free(arrays), **{name: free(group) for name, group in groups.items()}}
    # A loop cannot be traced but strictly; the exporter finds that out too, and prints what it failed at.
    loops = "length" in (*arrays, *outputs)
    try:
        with warnings.catch_warnings(), quiet("torch.onnx", "onnxscript", "onnx_ir"):
            warnings.simplefilter("ignore")  # of the exporter's own insides
            given = tuple(arrays.values())
            program = torch.onnx.export(
                torch.export.export(module, given, groups, dynamic_shapes=shapes, strict=True) if loops else module,
                given,
                kwargs=groups,
                dynamo=True,
                opset_version=OPSET,
                input_names=[*arrays, *(name for group in groups.values() for name in group)],
                output_names=list(outputs),
                dynamic_shapes=shapes,
                custom_translation_table=_TRANSLATIONS,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.TorchDynamoException) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ExportFailed(f"torch cannot export this sampler: {reason}") from error
    if program is None:  # only the older exporter returns nothing
        raise ExportFailed("torch returned no program.")
    model = program.model_proto
    strip(model)
    compact(model)
    return model


def compact(model: onnx.ModelProto) -> None:
    """Store the large weights that lose nothing by it in float16, or in int8 with scales, and cast them on loading."""
    nodes, kept = list[onnx.NodeProto](), list[onnx.TensorProto]()
    for weights in model.graph.initializer:
        parts = _parts(onnx.numpy_helper.to_array(weights)) if _is_large(weights) else {}
        names = {part: f"{weights.name}.{part}" for part in parts}
        kept += [onnx.numpy_helper.from_array(array, names[part]) for part, array in parts.items()] or [weights]
        if "scale" in parts:
            cast = f"{weights.name}.steps"
            nodes.append(onnx.helper.make_node("Cast", [names["int8"]], [cast], to=weights.data_type))
            nodes.append(onnx.helper.make_node("Mul", [cast, names["scale"]], [weights.name]))
        elif parts:
            nodes.append(onnx.helper.make_node("Cast", [names["float16"]], [weights.name], to=weights.data_type))
    nodes += model.graph.node
    for field, values in (("initializer", kept), ("node", nodes)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)


def _is_large(weights: onnx.TensorProto) -> bool:
    return weights.data_type == onnx.TensorProto.FLOAT and math.prod(weights.dims) >= _LARGE


def _parts(values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return what the values can be stored as without loss: "float16", or "int8" and its "scale", or nothing."""
    with np.errstate(over="ignore"):  # to infinity, which is not the value
        halves = values.astype(np.float16)
    if np.array_equal(halves, values):
        return {"float16": halves}
    # What one unit weighs its inputs with is a row, or where the matrix was transposed, a column.
    for axis in {0, values.ndim - 1} if values.ndim > 1 else ():
        others = tuple(each for each in range(values.ndim) if each != axis)
        largest = np.abs(values).max(others, keepdims=True)
        scale = np.where(largest == 0, 1, largest / 127).astype(np.float32)
        steps = np.rint(values / scale).astype(np.int8)
        if np.array_equal(steps * scale, values):
            return {"int8": steps, "scale": scale}
    return {}


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter leaves behind: stack traces with machine paths, doc strings, known shapes."""
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    for graph in _graphs(model.graph):
        for field in ("doc_string", "metadata_props", "value_info"):
            graph.ClearField(field)
        for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")


def _graphs(graph: onnx.GraphProto) -> Iterator[Any]:
    """Yield a graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)
