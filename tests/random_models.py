"""Random model files: the hand-made model with a random graph inside, made so that much of it would grow if folded.

A value is known by its type, its shape (None for a dimension that only a call says) and, for small vectors of integers
that are constants, its numbers, so that most graphs are valid; onnxruntime refuses the others.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from hostile_models import BOOL, FLOAT, INT64, node, with_work
from tiny_model import make_card, to_bytes

DIMENSIONS = (1, 2, 3, 8, 50, 150)
SIDES = (1, 2, 7, 300, 3000, 20_000)


@dataclass(frozen=True)
class Value:
    name: str
    dtype: int
    shape: tuple[int | None, ...]
    numbers: tuple[int, ...] | None = None
    is_constant: bool = False


class Maker:
    """Adds random nodes to a graph, one after the other.

    Args:
        random: draws everything.
        prefix: of the names of values.
        values: what is there already.
    """

    def __init__(self, random: np.random.Generator, prefix: str, values: list[Value]) -> None:
        self.random, self.prefix, self.values = random, prefix, list(values)
        self.is_plain, self.bodies = bool(random.random() < 0.5), 0
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, Any] = {}

    def name(self) -> str:
        return f"{self.prefix}{len(self.values)}"

    def weight(self, array: Any) -> Value:
        array = np.asarray(array)
        numbers = tuple(array.tolist()) if array.dtype == np.int64 and array.ndim == 1 and array.size < 9 else None
        types = {"float32": FLOAT, "int64": INT64, "int8": TensorProto.INT8, "bool": BOOL}
        value = Value(self.name(), types[str(array.dtype)], array.shape, numbers, is_constant=True)
        self.weights[value.name] = array
        self.values.append(value)
        return value

    def sides(self, count: int) -> Value:
        return self.weight(self.random.choice(SIDES, count))

    def pick(self, dtype: int | None = None, rank: int | None = None) -> Value:
        fitting = [
            v for v in self.values if dtype in (None, v.dtype) and rank in (None, len(v.shape)) and v.dtype != BOOL
        ]
        if not fitting or self.random.random() < 0.1:
            shape = self.random.choice(DIMENSIONS, int(self.random.integers(0, 3)) if rank is None else rank)
            return self.weight(np.full(shape, 1, np.int64 if dtype == INT64 else np.float32))
        return fitting[int(self.random.integers(len(fitting)))]

    def add(self, operator: str, inputs: list[Value | str], dtype: int, shape: Any, numbers: Any = None, **more: Any):
        value = Value(self.name(), dtype, tuple(shape), numbers)
        names = [each if isinstance(each, str) else each.name for each in inputs]
        self.nodes.append(node(operator, names, [value.name], **more))
        self.values.append(value)
        return value

    def shape_numbers(self, rank: int) -> tuple[Value, tuple[int, ...]]:
        """A vector of so many sides: a weight, or made of the shape of a value, which loading may find out."""
        static = [v for v in self.values if len(v.shape) >= rank and None not in v.shape[-rank:]]
        if not static or self.random.random() < 0.4:
            sides = self.sides(rank)
            return sides, sides.numbers or ()
        value = static[int(self.random.integers(len(static)))]
        start = len(value.shape) - rank
        start -= len(value.shape) * bool(self.random.integers(2)) if start else 0  # counted from the end, too
        part = value.shape[-rank:]
        shape = self.add("Shape", [value], INT64, (rank,), part, start=start)
        factors = self.sides(rank)
        grown = tuple(a * b for a, b in zip(part, factors.numbers or (), strict=True))
        return self.add("Mul", [shape, factors], INT64, (rank,), grown), grown


def grow(maker: Maker, depth: int) -> None:
    """Add one random node, or a few that belong together."""
    kinds: list[Any] = [elementwise, stored_small, stored_small, product, product, joined, split]
    if not maker.is_plain:  # what may be folded, and what may not
        kinds += [filled, expanded, shape_of, moved, other, other] + [branch, repeated] * (depth < 2)
    elif maker.random.random() < 0.08:
        kinds = [moved, shape_of, branch][: 2 + (depth < 2)]
    kind = kinds[int(maker.random.integers(len(kinds)))]
    kind(maker, depth) if kind in (branch, repeated) else kind(maker)


def elementwise(maker: Maker) -> None:
    a = maker.pick(FLOAT)
    b = next((v for v in reversed(maker.values) if v.dtype == FLOAT and broadcast(a.shape, v.shape) is not None), a)
    operator = str(maker.random.choice(["Add", "Sub", "Mul", "Div", *["Max", "Where"] * (not maker.is_plain)]))
    if operator == "Where":
        maker.add("Where", [maker.weight(np.array(True)), a, b], FLOAT, broadcast(a.shape, b.shape) or ())
    else:
        maker.add(operator, [a, b], FLOAT, broadcast(a.shape, b.shape) or ())


def broadcast(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
    longest = max(len(a), len(b))
    made: list[int | None] = []
    for x, y in zip((1,) * (longest - len(a)) + a, (1,) * (longest - len(b)) + b, strict=True):
        if x != y and 1 not in (x, y):
            return None
        made.append(y if x == 1 else x)
    return tuple(made)


def stored_small(maker: Maker) -> None:
    steps = maker.weight(maker.random.integers(-9, 9, maker.random.choice(DIMENSIONS, 2)).astype(np.int8))
    cast = maker.add("Cast", [steps], FLOAT, steps.shape, to=FLOAT)
    maker.add("Mul", [cast, maker.weight(np.ones(steps.shape[1], np.float32))], FLOAT, steps.shape)


def product(maker: Maker) -> None:
    a = maker.pick(FLOAT, 2)
    fitting = [v for v in maker.values if v.dtype == FLOAT and len(v.shape) == 2 and v.shape[0] == a.shape[1]]
    if fitting and maker.random.random() < 0.7:
        b = fitting[int(maker.random.integers(len(fitting)))]
        maker.add(str(maker.random.choice(["MatMul", "Gemm"])), [a, b], FLOAT, (a.shape[0], b.shape[1]))
    else:
        maker.add("Gemm", [a, a], FLOAT, (a.shape[0], a.shape[0]), transB=1)


def joined(maker: Maker) -> None:
    a = maker.pick(FLOAT)
    if a.shape:
        axis = int(maker.random.integers(-len(a.shape), len(a.shape)))
        times = int(maker.random.integers(2, 5))
        made = list(a.shape)
        made[axis] = None if made[axis] is None else made[axis] * times
        maker.add("Concat", [a] * times, FLOAT, made, axis=axis)


def split(maker: Maker) -> None:
    a = maker.pick(FLOAT)
    if a.shape and a.shape[0] and a.shape[0] % 2 == 0:
        first, second = maker.name(), f"{maker.name()}_rest"
        maker.nodes.append(node("Split", [a.name], [first, second], axis=0, num_outputs=2))
        maker.values.append(Value(first, FLOAT, (a.shape[0] // 2, *a.shape[1:])))


def filled(maker: Maker) -> None:
    shape, numbers = maker.shape_numbers(int(maker.random.integers(1, 4)))
    maker.add("ConstantOfShape", [shape], FLOAT, numbers)


def expanded(maker: Maker) -> None:
    shape, numbers = maker.shape_numbers(int(maker.random.integers(1, 4)))
    a = next((v for v in reversed(maker.values) if v.dtype == FLOAT and broadcast(v.shape, numbers) == numbers), None)
    a = a or maker.weight(np.float32(1))
    maker.add("Expand", [a, shape], FLOAT, numbers)


def shape_of(maker: Maker) -> None:
    a = maker.pick()
    attributes = {name: int(maker.random.integers(-3, 4)) for name in ("start", "end") if maker.random.random() < 0.5}
    part = a.shape[attributes.get("start") : attributes.get("end")]
    shape = maker.add("Shape", [a], INT64, (len(part),), None if None in part else part, **attributes)
    if part and maker.random.random() < 0.5:
        big = maker.add("Mul", [shape, maker.sides(len(part))], INT64, (len(part),))
        maker.add("ConstantOfShape", [big], FLOAT, (None,) * len(part))


def moved(maker: Maker) -> None:
    a = maker.pick(FLOAT)
    kind = int(maker.random.integers(5))
    if kind == 0:
        maker.add("Transpose", [a], FLOAT, a.shape[::-1])
    elif kind == 1:
        size = None if None in a.shape else math.prod(x or 1 for x in a.shape)
        maker.add("Reshape", [a, maker.weight(np.array([-1]))], FLOAT, (size,))
    elif kind == 2:
        maker.add("ReduceSum", [a], FLOAT, (), keepdims=0)
    elif kind == 3:
        maker.add("Unsqueeze", [a, maker.weight(np.array([0]))], FLOAT, (1, *a.shape))
    else:
        maker.add("Identity", [a], FLOAT, a.shape)


def other(maker: Maker) -> None:
    """Operators that make much of little."""
    a, scalar = maker.pick(FLOAT, 2), maker.weight(np.int64(maker.random.choice(SIDES)))
    kind = int(maker.random.integers(9))
    side = maker.sides(2)
    grown = tuple(None if x is None else x * y for x, y in zip(a.shape, side.numbers or (), strict=True))
    if kind == 0:
        maker.add("Tile", [a, side], FLOAT, grown)
    elif kind == 1:
        maker.add("Pad", [a, maker.weight(np.array([0, 0, *(side.numbers or ())]))], FLOAT, (None, None))
    elif kind == 2:
        square = maker.add("Mul", [scalar, scalar], INT64, ())
        maker.add("Range", [maker.weight(np.int64(0)), square, maker.weight(np.int64(1))], INT64, (None,))
    elif kind == 3:
        maker.add("OneHot", [maker.pick(INT64), scalar, maker.weight(np.float32([0, 1]))], FLOAT, (None, None))
    elif kind == 4:
        maker.add("Resize", [a, "", maker.weight(np.float32(side.numbers))], FLOAT, (None, None))
    elif kind == 5:
        maker.add("EyeLike", [a], FLOAT, a.shape)
    elif kind == 6:
        column = maker.add("Transpose", [a], FLOAT, a.shape[::-1])
        flat = [
            maker.add("Reshape", [v, maker.weight(np.array(s))], FLOAT, (None, None))
            for v, s in ((a, [-1, 1]), (column, [1, -1]))
        ]
        maker.add("Add", flat, FLOAT, (None, None))
    elif kind == 7:
        theta = maker.add("Expand", [maker.pick(FLOAT, 0), maker.weight(np.array([1, 2, 3]))], FLOAT, (1, 2, 3))
        half = maker.add("Cast", [theta], TensorProto.FLOAT16, (1, 2, 3), to=TensorProto.FLOAT16)
        maker.add("AffineGrid", [half, maker.weight(np.array([1, 1, *(side.numbers or ())]))], TensorProto.FLOAT16, ())
    else:
        maker.add("Einsum", [a, a], FLOAT, (None, None), equation="ij,kj->ik")


def body(maker: Maker, depth: int, inputs: list[Value]) -> tuple[Maker, Value]:
    maker.bodies += 1
    inner = Maker(maker.random, f"{maker.name()}_{maker.bodies}_", [*maker.values, *inputs])
    for _ in range(int(maker.random.integers(1, 5))):
        grow(inner, depth + 1)
    work = inner.add(
        "Mul", [inner.pick(FLOAT), "any_gain"], FLOAT, ()
    )  # so it is no constant, and may be folded to here
    last = inner.add("ReduceSum", [work], FLOAT, (), keepdims=0)
    maker.weights |= inner.weights
    return inner, last


def branch(maker: Maker, depth: int) -> None:
    if maker.random.random() < 0.5:
        condition = maker.weight(np.array(bool(maker.random.integers(2))))
    else:
        condition = maker.add("Cast", [maker.pick(FLOAT, 0)], BOOL, (), to=BOOL)
    sides = [body(maker, depth, []) for _ in range(2)]
    graphs = [graph_of(inner, [], [last]) for inner, last in sides]
    maker.add("If", [condition], FLOAT, (), then_branch=graphs[0], else_branch=graphs[1])


def repeated(maker: Maker, depth: int) -> None:
    trips = maker.weight(np.int64(maker.random.choice([1, 3, 2**20, 2**62])))
    start, go = maker.pick(FLOAT, 0), maker.weight(np.array(True))
    base = f"{maker.name()}_{depth}_in"
    inputs = [Value(f"{base}_i", INT64, ()), Value(f"{base}_go", BOOL, ()), Value(f"{base}_state", FLOAT, ())]
    inner, last = body(maker, depth, inputs)
    goes_on = inner.add("Identity", [inputs[1]], BOOL, ())
    maker.add("Loop", [trips, go, start], FLOAT, (), body=graph_of(inner, inputs, [goes_on, last]))


def graph_of(inner: Maker, inputs: list[Value], outputs: list[Value]) -> Any:
    def info(values: list[Value]) -> list[Any]:
        return [helper.make_tensor_value_info(v.name, v.dtype, list(v.shape)) for v in values]

    return helper.make_graph(inner.nodes, "body", info(inputs), info(outputs))


def random_model(seed: int) -> bytes:
    """Return the file of this number: the same one each time."""
    random = np.random.default_rng(seed)
    given = [Value("any_gain", FLOAT, ()), Value("fixed", FLOAT, (1, 2, 2)), Value("gain", FLOAT, (None,))]
    given.append(Value("seed", INT64, (None,)))
    maker = Maker(random, "v", given)
    for _ in range(int(random.integers(1, 12))):
        grow(maker, 0)
    work = maker.add("Mul", [maker.pick(FLOAT), "any_gain"], FLOAT, ())
    graph = with_work(maker.nodes, maker.weights, result=work.name)
    return to_bytes(graph, make_card(graph))


def random_models(seeds: range) -> Iterator[tuple[int, bytes]]:
    """Yield each seed with its file."""
    for seed in seeds:
        yield seed, random_model(seed)
