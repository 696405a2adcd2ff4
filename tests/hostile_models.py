"""Model files that hurt whoever loads or runs them without care: each is the hand-made model with a trap inside.

Each of `HOSTILE` is a function that returns the bytes of a file. Those whose names end in "later" are sprung by the
control flip; all others while the file is parsed, checked, loaded, or makes its golden items.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tiny_model import make_card, make_graph, to_bytes

node = helper.make_node
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

HOSTILE: dict[str, Callable[[], bytes]] = {}


def hostile(function: Callable[[], ModelProto | bytes]) -> Callable[[], bytes]:
    def make() -> bytes:
        made = function()
        return made if isinstance(made, bytes) else to_bytes(made, make_card(made))

    HOSTILE[function.__name__.replace("_", "-")] = make
    return make


def with_work(nodes: list[NodeProto], weights: dict[str, Any] | None = None, result: str = "work") -> ModelProto:
    """A model that adds nothing times `result` to its pixels, whatever is computed for it.

    The nodes may use `seed`, `any_flip` (0, or 1 if an item is flipped) and `fixed`, which is float32 (1, 2, 2): no
    constant, but of a shape that onnxruntime infers.
    """
    graph = make_graph()
    weights = {"nil": np.float32(0), "two_by_two": np.array([1, 2, 2]), **(weights or {})}
    graph.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    before = [
        node("Cast", ["flip"], ["flip_number"], to=INT64),
        node("ReduceMax", ["flip_number"], ["any_flip"], keepdims=0),
        node("ReduceMax", ["gain"], ["any_gain"], keepdims=0),
        node("Expand", ["any_gain", "two_by_two"], ["fixed"]),
    ]
    after = [
        node("Cast", [result], ["work_float"], to=FLOAT),
        node("ReduceSum", ["work_float"], ["work_sum"], keepdims=0),
        node("Mul", ["work_sum", "nil"], ["work_nil"]),
        node("Add", ["values_before", "work_nil"], ["values"]),
    ]
    producer = next(each for each in graph.graph.node if each.output[0] == "values")
    producer.output[0] = "values_before"
    at = list(graph.graph.node).index(producer) + 1
    for offset, each in enumerate([*before, *nodes, *after]):
        graph.graph.node.insert(at + offset, each)
    return graph


def squares(count: int) -> list[NodeProto]:
    """Products of a large matrix with itself, from `size`."""
    value = numpy_helper.from_array(np.array([1e-3], np.float32))
    nodes = [node("ConstantOfShape", ["size"], ["p0"], value=value)]
    nodes += [node("MatMul", [f"p{i}", "p0"], [f"p{i + 1}"]) for i in range(count)]
    return [*nodes, node("Identity", [f"p{count}"], ["work"])]


def grown_shape(**part: int) -> list[NodeProto]:
    """A size of 2,000 x 2,000 from the shape of what is no constant, but has a shape that onnxruntime infers."""
    shape = node("Shape", ["fixed"], ["hw"], **part)
    return [shape, node("Slice", ["hw", "minus_two", "far"], ["last"]), node("Mul", ["last", "thousand"], ["size"])]


SLICE = {"minus_two": np.array([-2]), "far": np.array([99]), "thousand": np.array([1000])}


@hostile
def shape_of_a_value_from_1() -> ModelProto:
    return with_work([*grown_shape(start=1), *squares(200)], SLICE)


@hostile
def shape_of_a_value() -> ModelProto:
    return with_work([*grown_shape(), *squares(200)], SLICE)


@hostile
def shape_of_a_value_negative() -> ModelProto:
    return with_work([*grown_shape(start=-2), *squares(200)], SLICE)


@hostile
def products_of_constants() -> ModelProto:
    return with_work(squares(200), {"size": np.array([2000, 2000])})


@hostile
def products_of_weights() -> ModelProto:
    weight = np.full((700, 700), 1e-3, np.float32)
    nodes = [node("MatMul", [f"p{i}", "p0"], [f"p{i + 1}"]) for i in range(3000)]
    return with_work([*nodes, node("Identity", ["p3000"], ["work"])], {"p0": weight})


@hostile
def definition_of_a_grid() -> ModelProto:
    nodes = [
        node("Expand", ["any_gain", "theta_shape"], ["theta"]),
        node("Cast", ["theta"], ["theta16"], to=TensorProto.FLOAT16),
        node("AffineGrid", ["theta16", "grid_size"], ["work"]),
    ]
    return with_work(nodes, {"theta_shape": np.array([1, 2, 3]), "grid_size": np.array([1, 1, 30_000, 30_000])})


def allocation(count: int, *, sprung: bool = False) -> ModelProto:
    """Make so many floats for each golden item, or only if an item is flipped."""
    nodes = [node("Shape", ["seed"], ["n"]), node("Mul", ["n", "count"], ["size"])]
    if sprung:
        nodes = [node("Mul", ["any_flip", "count"], ["most"]), node("Reshape", ["most", "one"], ["size"])]
    return with_work([*nodes, *squares(0)], {"count": np.array([count]), "one": np.array([1])})


@hostile
def allocation_of_2_gb() -> ModelProto:
    return allocation(2**27)


@hostile
def allocation_of_16_gb() -> ModelProto:
    return allocation(2**30)


@hostile
def allocation_of_16_tb() -> ModelProto:
    return allocation(2**40)


@hostile
def allocation_of_256_tb_later() -> ModelProto:
    return allocation(2**46, sprung=True)


def operator(name: str, inputs: list[str], weights: dict[str, Any], **attributes: Any) -> ModelProto:
    return with_work([node(name, inputs, ["work"], **attributes)], weights)


@hostile
def expand() -> ModelProto:
    return operator("Expand", ["any_gain", "to"], {"to": np.array([2**17, 2**17])})


@hostile
def tile() -> ModelProto:
    return operator("Tile", ["fixed", "times"], {"times": np.array([2**20, 2**10, 1])})


@hostile
def pad() -> ModelProto:
    return operator("Pad", ["fixed", "pads"], {"pads": np.array([0, 0, 0, 0, 2**16, 2**16])})


@hostile
def range_of_numbers() -> ModelProto:
    return operator("Range", ["start_at", "end_at", "step"], {"start_at": 0, "end_at": 2**40, "step": 1})


@hostile
def one_hot() -> ModelProto:
    weights = {"depth": np.array(2**36), "off_on": np.array([0, 1], np.float32)}
    return operator("OneHot", ["seed", "depth", "off_on"], weights)


@hostile
def resize() -> ModelProto:
    return operator("Resize", ["fixed", "", "scales"], {"scales": np.array([1, 2**16, 2**16], np.float32)})


@hostile
def eye() -> ModelProto:
    nodes = [node("Expand", ["any_gain", "long"], ["row"]), node("Transpose", ["row"], ["column"])]
    return with_work([*nodes, node("Add", ["row", "column"], ["work"])], {"long": np.array([1, 200_000])})


@hostile
def doubled_again_and_again() -> ModelProto:
    nodes = [node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=0) for i in range(40)]
    return with_work([node("Identity", ["fixed"], ["d0"]), *nodes, node("Identity", ["d40"], ["work"])])


@hostile
def doubled_string() -> ModelProto:
    nodes = [node("StringConcat", [f"d{i}", f"d{i}"], [f"d{i + 1}"]) for i in range(40)]
    text = node("Constant", [], ["d0"], value_string="0")
    return with_work([text, *nodes, node("Cast", ["d40"], ["work"], to=FLOAT)])


@hostile
def condition_that_is_constant() -> ModelProto:
    value = helper.make_tensor_value_info("work_inside", FLOAT, None)
    nodes = squares(200)
    nodes[-1].output[0] = "work_inside"
    body = helper.make_graph(nodes, "body", [], [value])
    other = node("If", ["yes"], ["work"], then_branch=body, else_branch=body)
    return with_work([other], {"yes": np.array(True), "size": np.array([2000, 2000])})


def loop(trips: str, *, collects: bool = False) -> NodeProto:
    """A loop that adds one, or collects a row of a million numbers on each trip."""
    info = helper.make_tensor_value_info
    nodes = [node("Identity", ["go"], ["go_on"]), node("Add", ["state", "unit"], ["next"])]
    outputs = [info("go_on", BOOL, []), info("next", FLOAT, [])]
    if collects:
        nodes.append(node("Expand", ["state", "row_shape"], ["row"]))
        outputs.append(info("row", FLOAT, None))
    inputs = [info("i", INT64, []), info("go", BOOL, []), info("state", FLOAT, [])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    return node("Loop", [trips, "yes", "any_gain"], ["last", "rows"] if collects else ["work"], body=body)


LOOP = {"yes": np.array(True), "unit": np.float32(1), "row_shape": np.array([10**6]), "for_ever": np.array(2**62)}


@hostile
def loop_without_end() -> ModelProto:
    return with_work([loop("for_ever")], LOOP)


@hostile
def loop_without_end_later() -> ModelProto:
    return with_work([node("Mul", ["any_flip", "for_ever"], ["trips"]), loop("trips")], LOOP)


@hostile
def loop_that_collects() -> ModelProto:
    return with_work([loop("for_ever", collects=True)], LOOP, result="rows")


@hostile
def weights_packed_again_and_again() -> ModelProto:
    nodes = [node("Expand", ["any_gain", "row_shape"], ["row0"])]
    for i in range(2000):
        nodes += [node("Neg", [f"row{i}"], [f"row{i + 1}"]), node("MatMul", [f"row{i + 1}", "weight"], [f"p{i}"])]
    nodes += [node("Sum", [f"p{i}" for i in range(2000)], ["work"])]
    return with_work(nodes, {"row_shape": np.array([1, 1000]), "weight": np.ones((1000, 1000), np.float32)})


@hostile
def nodes_that_nobody_needs() -> ModelProto:
    graph = make_graph()
    graph.graph.node.extend(node("Identity", ["seed"], [f"x{i}"]) for i in range(90_000))
    return graph


@hostile
def nodes_of_two_bytes() -> bytes:
    """10 MB of empty nodes, which take a hundred times as much when they are parsed."""
    body = b"\x0a\x00" * 5_000_000
    return b"\x3a" + varint(len(body)) + body


def varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


@hostile
def a_million_dimensions() -> ModelProto:
    graph = make_graph()
    graph.graph.initializer.add(name="w", data_type=FLOAT, dims=[1] * 10**6, raw_data=bytes(4))
    return graph


@hostile
def a_shape_of_a_million_dimensions() -> ModelProto:
    nodes = [node("Reshape", ["any_gain", "ones"], ["a"]), node("Add", ["a", "a"], ["b"])]
    return with_work([*nodes, node("Transpose", ["b"], ["work"])], {"ones": np.ones(10**6, np.int64)})


@hostile
def bodies_in_bodies() -> ModelProto:
    info = helper.make_tensor_value_info
    body = helper.make_graph([node("Add", ["seed", "seed"], ["o0"])], "b0", [], [info("o0", INT64, None)])
    for depth in range(1, 15):
        other = helper.make_graph([node("Neg", ["seed"], [f"e{depth}"])], "e", [], [info(f"e{depth}", INT64, None)])
        inner = node("If", ["is_flipped"], [f"o{depth}"], then_branch=body, else_branch=other)
        body = helper.make_graph([inner], f"b{depth}", [], [info(f"o{depth}", INT64, None)])
    condition = node("Cast", ["any_flip"], ["is_flipped"], to=BOOL)
    return with_work([condition, node("If", ["is_flipped"], ["work"], then_branch=body, else_branch=body)])
