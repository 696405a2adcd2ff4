"""Safe loading: a model file is untrusted input, and is read and checked before onnxruntime sees it.

The file is read once; those bytes are hashed, checked and run, and the path is never looked at again.
What the checks found is kept in the cache by the sha256 of the bytes, so that `onnx` is imported only
for a file that was not seen before.
"""

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_sdk.card import CARD_KEY, ModelCard
from aigc_sdk.errors import InvalidModel, StorageError
from aigc_sdk.files import cache_folder, make_folder, write_bytes

if TYPE_CHECKING:
    import onnx

MAX_FILE_BYTES = 2**31 - 1
MAX_NODES = 100_000
OPSETS = range(18, 22)
MAX_IR_VERSION = 10

# Standard operators that draw their own random numbers: with one of them content is no function of the seed.
RANDOM_OPERATORS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_STANDARD = ("", "ai.onnx")

# Grows when a check is added, so that files are looked at again.
_CHECKS_VERSION = 1


def read_model(path: Path) -> bytes:
    """Return the bytes of a regular file of at most 2 GB.

    Raises:
        InvalidModel: it is a folder, a device or a pipe, empty, too large, or clearly no ONNX file.
        StorageError: it cannot be opened.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidModel(f"{path} is not a regular file.")
            if status.st_size > MAX_FILE_BYTES:
                raise InvalidModel(f"{path} has {status.st_size} bytes; a model file has at most {MAX_FILE_BYTES}.")
            data = file.read(MAX_FILE_BYTES)
    except IsADirectoryError as error:
        raise InvalidModel(f"{path} is a folder, not a model file.") from error
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    if not data:
        raise InvalidModel(f"{path} is empty.")
    if data.lstrip()[:1] in (b"<", b"{", b"["):
        raise InvalidModel(f"{path} is text ({data.lstrip()[:20]!r}...), not an ONNX file. Was a web page saved instead?")
    return data


@dataclass
class Verdict:
    """What is known of a file: whether the static checks passed, and how its golden items came out where."""

    checks: int = 0
    golden: dict[str, str] = field(default_factory=dict)

    @property
    def is_safe(self) -> bool:
        """Whether the checks of this version of the SDK have passed."""
        return self.checks == _CHECKS_VERSION

    @classmethod
    def load(cls, sha256: str) -> "Verdict":
        """Return what the cache knows of these bytes; a missing or damaged entry knows nothing."""
        try:
            values = json.loads(_verdict_path(sha256).read_bytes())
            return cls(int(values["checks"]), {str(key): str(value) for key, value in values["golden"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def mark_safe(self) -> None:
        """Record that the static checks have passed."""
        self.checks = _CHECKS_VERSION

    def save(self, sha256: str) -> None:
        """Keep the verdict; a cache that cannot be written is no error, the next use checks again."""
        try:
            make_folder(_verdict_path(sha256).parent)
            write_bytes(_verdict_path(sha256), json.dumps(asdict(self)).encode())
        except StorageError:
            return


def _verdict_path(sha256: str) -> Path:
    return cache_folder() / "verdicts" / f"{sha256}.json"


def check_model(data: bytes, name: str) -> ModelCard:
    """Check the bytes of a model file without running anything, and return its card.

    Args:
        data: the whole file.
        name: what messages call it.

    Raises:
        InvalidModel: says what is wrong.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InvalidModel(f"{name} is not an ONNX file, or a truncated one: {error}.") from error
    try:
        _check_versions(model)
        _check_operators(model)
        for tensor in _tensors(model):
            _check_tensor(tensor)
        card = _read_card(model)
        _check_signature(model, card)
        if graph_sha256(model) != card.graph_sha256:
            raise InvalidModel("its graph is not the one that its card was written for (graph_sha256 differs)")
    except InvalidModel as error:
        raise InvalidModel(f"{name} is not a model this SDK runs: {str(error).rstrip('.')}.") from error
    return card


def graph_sha256(model: "onnx.ModelProto") -> str:
    """Return the sha256 of the file without its metadata: the identity of the model."""
    import hashlib

    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.ClearField("metadata_props")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _check_versions(model: "onnx.ModelProto") -> None:
    if not model.HasField("graph") or not model.graph.node:
        raise InvalidModel("it has no graph")
    if not 3 <= model.ir_version <= MAX_IR_VERSION:
        raise InvalidModel(f"its IR version is {model.ir_version}, at most {MAX_IR_VERSION} is known")
    if model.training_info:
        raise InvalidModel("it carries training instructions")
    functions = {function.domain for function in model.functions}
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    for domain, opset in opsets.items():
        if domain not in _STANDARD and domain not in functions:
            raise InvalidModel(f"it uses the operator domain {domain!r}; only standard ONNX operators are allowed")
        if domain in _STANDARD and opset not in OPSETS:
            raise InvalidModel(f"its opset is {opset}; {OPSETS.start} to {OPSETS.stop - 1} are known")
    if not any(domain in opsets for domain in _STANDARD):
        raise InvalidModel("it does not say which opset it uses")


def _check_operators(model: "onnx.ModelProto") -> None:
    """Refuse unknown domains and random operators, and count the nodes with all functions expanded."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    if len(functions) < len(model.functions):
        raise InvalidModel("it defines a function twice")
    sizes: dict[tuple[str, str, str], int] = {}
    open_calls: set[tuple[str, str, str]] = set()

    def size_of(nodes: Any) -> int:
        total = 0
        for node in _walk(nodes):
            key = (node.domain, node.op_type, node.overload)
            if key in functions:
                total += function_size(key)
            elif node.domain not in _STANDARD:
                raise InvalidModel(f"it uses the operator {node.domain}.{node.op_type}, which is not standard ONNX")
            elif node.op_type in RANDOM_OPERATORS:
                raise InvalidModel(f"it uses {node.op_type}, so its content would not be a function of the seed")
            total += 1
            if total > MAX_NODES:
                raise InvalidModel(f"it has more than {MAX_NODES} nodes when its functions are expanded")
        return total

    def function_size(key: tuple[str, str, str]) -> int:
        if key in open_calls or len(open_calls) > 100:
            raise InvalidModel(f"its function {key[1]!r} calls itself, or is nested deeper than 100")
        if key not in sizes:
            open_calls.add(key)
            sizes[key] = size_of(functions[key].node)
            open_calls.discard(key)
        return sizes[key]

    size_of(model.graph.node)
    for key in functions:
        function_size(key)


def _walk(nodes: Any) -> Iterator[Any]:
    """Yield the nodes and those of all graphs inside them (the bodies of Loop, Scan and If)."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _walk(graph.node)


def _tensors(model: "onnx.ModelProto") -> Iterator[Any]:
    """Yield every tensor in the file: initializers and constants, of all graphs and functions."""
    graphs = [model.graph]
    nodes = [*_walk(model.graph.node), *(node for function in model.functions for node in _walk(function.node))]
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors) if attribute.HasField("t") else attribute.tensors
            graphs.extend((attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs)
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise InvalidModel("it holds sparse tensors")
            if np.isnan([attribute.f, *attribute.floats]).any():
                raise InvalidModel(f"the attribute {attribute.name!r} of {node.op_type} is NaN")
    for graph in graphs:
        if graph.sparse_initializer:
            raise InvalidModel("it holds sparse tensors")
        yield from graph.initializer


def _check_tensor(tensor: Any) -> None:
    """Refuse external data, a size that is not what the shape says, NaN, and Inf in more than a constant."""
    import onnx

    name = tensor.name or "a constant"
    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        raise InvalidModel(f"{name!r} keeps its data outside of the file")
    if tensor.data_type not in _TENSOR_TYPES:
        raise InvalidModel(f"{name!r} is of the unknown data type {tensor.data_type}")
    if tensor.HasField("segment") or any(size < 0 for size in tensor.dims):
        raise InvalidModel(f"{name!r} has an impossible shape")
    dtype, count = np.dtype(_TENSOR_TYPES[tensor.data_type]), math.prod(tensor.dims)
    lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    found = len(tensor.raw_data) // dtype.itemsize if tensor.HasField("raw_data") else sum(map(len, lists))
    whole = not tensor.HasField("raw_data") or (len(tensor.raw_data) == count * dtype.itemsize and not any(lists))
    if found != count or not whole or tensor.string_data:
        raise InvalidModel(f"{name!r} has data of {found} values, its shape {tuple(tensor.dims)} says {count}")
    if dtype.kind == "f":
        _check_values(onnx.numpy_helper.to_array(tensor), name)


def _check_values(values: np.ndarray[Any, Any], name: str) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    if np.isnan(values).any():
        raise InvalidModel(f"{name!r} holds NaN")
    if values.size > 1:
        raise InvalidModel(f"{name!r} holds an infinity")


# onnx.TensorProto's numbers for the data types that a model file may hold.
_TENSOR_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip


def _read_card(model: "onnx.ModelProto") -> ModelCard:
    cards = [entry.value for entry in model.metadata_props if entry.key == CARD_KEY]
    if len(cards) != 1:
        raise InvalidModel(
            f"it has {len(cards) or 'no'} card{'s' if cards else ''} (metadata {CARD_KEY!r})."
            " An ONNX file made elsewhere has to be exported with a card first"
        )
    card = ModelCard.from_json(cards[0])
    if card.golden is None:
        raise InvalidModel("its card has no golden items")
    return card


def _check_signature(model: "onnx.ModelProto", card: ModelCard) -> None:
    """Compare the declared inputs and outputs with the card's."""
    wanted = [("seed", "int64", ()), *((c.name, c.dtype, c.shape) for c in card.controls)]
    _compare("inputs", [_declared(value) for value in model.graph.input], wanted)
    outputs = [("content", card.output.dtype, card.output.shape)]
    if card.output.length:
        outputs.append(("length", "int64", ()))
    _compare("outputs", [_declared(value) for value in model.graph.output], outputs)
    defaults = {value.name for value in model.graph.input} & {value.name for value in model.graph.initializer}
    if defaults:
        raise InvalidModel(f"its input {min(defaults)!r} has a default inside the graph, which runtimes treat differently")


Declared = tuple[str, str, tuple[int | str, ...]]


def _declared(value: Any) -> Declared:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if not dims or not dims[0].dim_param:
        raise InvalidModel(f"the first dimension of {value.name!r} is not the free number of items")
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims[1:])
    return value.name, _TENSOR_TYPES.get(tensor.elem_type, "?"), shape


def _compare(what: str, found: list[Declared], wanted: list[Any]) -> None:
    if found != wanted:
        raise InvalidModel(f"its {what} are {found}, its card says {wanted}")


