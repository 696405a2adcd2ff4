"""EfficientNet-Lite0 from torch's weights to an ONNX graph, without torch: read, fold, and written node by node."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from aigc_sdk.errors import InvalidData

Array = NDArray[Any]
Weights = dict[str, NDArray[np.float64]]

SIDE = 224  # pixels of the square that the network was trained on
OPSET = 20
IR_VERSION = 10

# Of the blocks; their kernels, channels and whether they expand are told by the weights.
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
_EPSILON = 1e-3  # of the batch normalisations
_MOST = 6.0  # of ReLU6


class _Unpickler(pickle.Unpickler):
    """Knows what a state_dict consists of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *parts: parts[:4],  # storage, offset, size, stride
            ("torch", "FloatStorage"): np.dtype("<f4"),
            ("torch", "LongStorage"): np.dtype("<i8"),
        }
        if (module, name) not in known:
            raise InvalidData(f"The weights ask for {module}.{name}, which is no part of a tensor; they were not read.")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        _, dtype, key, *_ = pid
        return key, dtype


def read_weights(data: bytes) -> Weights:
    """Return the arrays of a torch state_dict in its first format: pickles, then one block of numbers a storage."""
    file = io.BytesIO(data)
    for _ in range(3):  # the magic number, the version, the machine
        _Unpickler(file).load()
    tensors = _Unpickler(file).load()
    dtypes = {key: dtype for (key, dtype), *_ in tensors.values()}
    storages = {}
    for key in _Unpickler(file).load():
        size_bytes = int(np.frombuffer(file.read(8), "<i8")[0]) * dtypes[key].itemsize
        storages[key] = np.frombuffer(file.read(size_bytes), dtypes[key])

    def array(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Array:
        values = storages[storage[0]][offset:]
        steps = [step * values.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(values, size, steps).astype(np.float64)

    return {name: array(*parts) for name, parts in tensors.items()}


def make_graph(weights: Weights, shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Return the bare graph: content uint8 (n, *shape) in, value float32 (n, 1280) out.

    Args:
        weights: as the package names them.
        shape: (height, width, channels) of the images.
    """
    graph = _Graph()
    x = _prepare(graph, "content", shape)
    grey = shape[2] == 1

    def convolve(x: str, layer: str, norm: str, side: int, stride: int = 1, depthwise: bool = False) -> str:
        weight, bias = fold(weights, layer, norm)
        if grey and layer == "_conv_stem":  # three equal channels weigh as much as one with their sum
            weight = weight.sum(1, keepdims=True)
        return graph.convolution(x, weight, bias, side, stride, depthwise)

    def rectified(*arguments: Any, **options: Any) -> str:
        return graph.clip(convolve(*arguments, **options), _MOST)

    x, side = rectified(x, "_conv_stem", "_bn0", SIDE, 2), SIDE // 2
    for i, stride in enumerate(_STRIDES):
        block, entry = f"_blocks.{i}.", x
        if f"{block}_expand_conv.weight" in weights:
            x = rectified(x, f"{block}_expand_conv", f"{block}_bn0", side)
        x = rectified(x, f"{block}_depthwise_conv", f"{block}_bn1", side, stride, depthwise=True)
        side = -(-side // stride)
        x = convolve(x, f"{block}_project_conv", f"{block}_bn2", side)
        expanded = weights.get(f"{block}_expand_conv.weight", weights[f"{block}_depthwise_conv.weight"])
        if stride == 1 and expanded.shape[1] == len(weights[f"{block}_project_conv.weight"]):
            x = graph.node("Add", x, entry)
    x = rectified(x, "_conv_head", "_bn1", side)
    graph.node("ReduceMean", x, graph.constant([2, 3], "int64"), keepdims=0, output="value")
    return graph.model(shape, len(weights["_conv_head.weight"]))


def fold(weights: Weights, layer: str, norm: str) -> tuple[Array, Array]:
    """Return weight and bias of a convolution with its batch normalisation folded in, float64."""
    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + _EPSILON)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
    return weights[f"{layer}.weight"] * gain[:, None, None, None], bias


def resize_matrix(size_in: int, size_out: int) -> NDArray[np.float64]:
    """Return the matrix (size_out, size_in) of Pillow's bicubic resizing along one side, antialiased when it shrinks.

    Keys 1981, "Cubic convolution interpolation for digital image processing", a = -0.5.
    """
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    centers = (np.arange(size_out)[:, None] + 0.5) * scale
    t = np.abs(np.arange(size_in)[None, :] + 0.5 - centers) / stretch
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    kernel = np.where(t < 1, near, np.where(t < 2, far, 0))
    matrix: NDArray[np.float64] = kernel / kernel.sum(1, keepdims=True)
    return matrix


def _prepare(graph: "_Graph", x: str, shape: tuple[int, int, int]) -> str:
    """From pixels to what the network takes: alpha over white, 224 x 224, channels first, from about -1 to 1."""
    height, width, channels = shape
    x = graph.node("Cast", x, to=TensorProto.FLOAT)
    if channels == 4:
        colour, alpha = (
            graph.node("Slice", x, *(graph.constant([i], "int64") for i in (start, start + size, 3)))
            for start, size in ((0, 3), (3, 1))
        )
        # white + alpha (colour - white)
        white = graph.constant(255)
        opacity = graph.node("Div", alpha, white)
        x = graph.node("Add", white, graph.node("Mul", opacity, graph.node("Sub", colour, white)))
    x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
    if height != SIDE:
        x = graph.node("MatMul", graph.constant(resize_matrix(height, SIDE)), x)
    if width != SIDE:
        x = graph.node("MatMul", x, graph.constant(resize_matrix(width, SIDE).T))
    x = graph.clip(x, 255)  # bicubic resizing overshoots
    return graph.node("Div", graph.node("Sub", x, graph.constant(127)), graph.constant(128))


class _Graph:
    """A graph that grows node by node; what adds one returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node."""
        name = output or f"x{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, dtype: str = "float32") -> str:
        """Add a constant."""
        name = f"w{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.array(values, dtype, order="C"), name))
        return name

    def clip(self, x: str, most: float) -> str:
        """Limit to 0 ... most."""
        return self.node("Clip", x, self.constant(0), self.constant(most))

    def convolution(self, x: str, weight: Array, bias: Array, side: int, stride: int, depthwise: bool) -> str:
        """Convolve a square of `side` pixels, padded as TensorFlow does for "SAME"."""
        kernel = weight.shape[2]
        padding = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        before = padding // 2
        return self.node(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            strides=[stride, stride],
            pads=[before, before, padding - before, padding - before],
            group=len(weight) if depthwise else 1,
        )

    def model(self, shape: tuple[int, int, int], features: int) -> onnx.ModelProto:
        """Finish."""
        content = helper.make_tensor_value_info("content", TensorProto.UINT8, ["n", *shape])
        value = helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", features])
        graph = helper.make_graph(self._nodes, "efficientnet_lite0", [content], [value], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
