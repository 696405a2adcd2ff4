"""Folding: whether onnxruntime may compute what follows from a file's constants alone while it loads the file.

Nothing ends a computation inside of loading, as a deadline ends a run: onnxruntime 1.31 looks at its cancellation flag
between its optimizers, not inside of one. So a file is folded only where the cost is known to be small. Otherwise all
of it is left to each run; runs are slower then, and products with such matrices are rounded in another way.

What onnxruntime folds (its ConstantFolding, from 1.22 to 1.31): each node whose inputs are all constants; `Shape` of
any value whose whole shape it has inferred; the branch of an `If` whose condition is constant; all of that inside of
the bodies of control flow too. A standard operator without a kernel is first replaced by its definition, whose nodes
are folded as well.
"""

import math
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from aigc_sdk.forking import unforked

if TYPE_CHECKING:
    import onnx

# What may be computed: so many values, and 8 more for each byte of the file, for weights that are stored small; and so
# many multiplications inside of matrix products.
MAX_CONSTANT_VALUES, MAX_CONSTANT_PRODUCTS = 2**25, 2**33
_VALUES_PER_BYTE = 8

# Operators whose definition makes much of one constant input, such as a size, while another input is no constant.
GROWING_DEFINITIONS = frozenset({"AffineGrid", "CenterCropPad", "SequenceMap"})

# The most dimensions that the shape of a value has here.
_MOST_DIMENSIONS = 64

Shape = tuple[int, ...]


def may_fold(data: bytes) -> bool:
    """Return whether onnxruntime may fold the constants of a checked file; see `folded_values`."""
    return folded_values(data) is not None


def folded_values(
    data: bytes, *, most_values: int = MAX_CONSTANT_VALUES, most_products: int = MAX_CONSTANT_PRODUCTS
) -> int | None:
    """Return how many values at most onnxruntime computes of the constants of a checked file; None: it must not.

    A few operators and their cost are known here; a file with others on constants is not folded.

    Args:
        data: the file; it has passed `check_model`.
        most_values: how many values may be computed, besides 8 for each byte of the file.
        most_products: how many multiplications matrix products may take.
    """
    try:
        values, products = folding_cost(data)
    except (ArithmeticError, LookupError, ValueError):  # another operator, no order, or shapes that do not fit
        return None
    is_little = values <= most_values + _VALUES_PER_BYTE * len(data) and products <= most_products
    return values if is_little else None


def folding_cost(data: bytes) -> tuple[int, int]:
    """Return how many values at most are computed from the constants of a file, and with how many multiplications.

    Raises:
        ValueError, LookupError, ArithmeticError: it is not known.
    """
    with unforked:
        import onnx

    graph = onnx.ModelProto.FromString(data).graph
    inputs = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    costs = [(0, 0), *_costs(graph, ChainMap(), inputs)]
    return sum(values for values, _ in costs), sum(products for _, products in costs)


def _costs(
    graph: "onnx.GraphProto", outer: ChainMap[str, Shape | None], inputs: Mapping[str, list[str]]
) -> Iterator[tuple[int, int]]:
    """Yield the cost of each node that onnxruntime may fold: values made, and multiplications of matrix products."""
    # Of each constant a shape of at least its size; None for what no optimizer can know.
    known = outer.new_child(dict.fromkeys(value.name for value in graph.input))
    known |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        for inner in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
            yield from _costs(inner, known, {})
        if node.op_type in GROWING_DEFINITIONS:
            raise ValueError(node.op_type)
        shapes = [known[name] for name in node.input if name]
        constants = [shape for shape in shapes if shape is not None]
        made: Shape | None = None
        if node.op_type in ("Shape", "Size"):
            made = None if _asks_for_a_free_dimension(node, inputs) else (_MOST_DIMENSIONS,)
        elif len(constants) == len(shapes):
            made, products = _made(node, constants)
            yield math.prod(made) * max(len(node.output), 1), products
        known |= dict.fromkeys(node.output, made)


def _asks_for_a_free_dimension(node: "onnx.NodeProto", inputs: Mapping[str, list[str]]) -> bool:
    """Return whether the answer has a dimension of an input that only a call says.

    Of any other value, an optimizer may have inferred the shape. onnxruntime 1.31 folds `Shape` only where the whole
    shape is known; here the part that is asked for decides, whatever the rest is.
    """
    start, end = (next((a.i for a in node.attribute if a.name == name), None) for name in ("start", "end"))
    return any(inputs.get(node.input[0], [])[start:end])


def _made(node: "onnx.NodeProto", shapes: list[Shape]) -> tuple[Shape, int]:
    """Return a shape of at least the size of what a node makes of constants, and the multiplications it takes."""
    match node.op_type:
        case "Constant":
            (value,) = node.attribute  # a tensor, a number or a list
            return tuple(value.t.dims) if value.HasField("t") else (len(value.ints) + len(value.floats) or 1,), 0
        case "Cast" | "Split" | "Squeeze" if node.op_type != "Squeeze" or len(shapes[0]) == 1:
            return shapes[0], 0
        case "Add" | "Sub" | "Mul" | "Div":
            return tuple(np.broadcast_shapes(*shapes)), 0
        case "Concat":
            (axis,) = (attribute.i for attribute in node.attribute if attribute.name == "axis")
            made = [*map(max, zip(*shapes, strict=True))]
            made[axis] = sum(shape[axis] for shape in shapes)
            return tuple(made), 0
        case "MatMul" | "Gemm" if len(shapes[0]) == len(shapes[1]) == 2:
            turned = {attribute.name for attribute in node.attribute if attribute.i}
            rows, depth = shapes[0][::-1] if "transA" in turned else shapes[0]
            columns = shapes[1]["transB" not in turned]
            return (rows, columns), rows * depth * columns
    raise ValueError(node.op_type)
