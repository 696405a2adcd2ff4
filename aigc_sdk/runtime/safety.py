"""Safe loading: a model file is untrusted input, and is read and checked before onnxruntime sees it.

The file is read once; those bytes are hashed, checked and run, and the path is never looked at again.
What the checks found is kept in the cache by the sha256 of the bytes, so that `onnx` is imported only
for a file that was not seen before.
"""

import hashlib
import json
import math
import os
import re
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_sdk.card import CARD_KEY, Control, Golden, ModelCard, Packed
from aigc_sdk.errors import InvalidModel, StorageError, UnknownName, blamed
from aigc_sdk.files import cache_folder, make_folder, storage_error, write_bytes
from aigc_sdk.forking import unforked
from aigc_sdk.generator import parts_of
from aigc_sdk.kinds import kind_of
from aigc_sdk.modality import find_modality
from aigc_sdk.runtime.folding import may_fold
from aigc_sdk.seeds import MAX_SEED

if TYPE_CHECKING:
    import onnx

MAX_FILE_BYTES = 2**31 - 1
MAX_NODES = 100_000
MAX_GOLDEN_ITEMS = 16
OPSETS = range(18, 22)
MAX_IR_VERSION = 10

# Standard operators that draw their own random numbers: with one of them content is no function of the seed.
RANDOM_OPERATORS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
# Operators on strings, which no content is made of, and whose values onnxruntime allocates one by one.
_STRING_OPERATORS = frozenset({"StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch"})
_STANDARD = ("", "ai.onnx")

_STRING, _MOST_DIMENSIONS = 8, 64
# onnx.TensorProto's number of each data type that a file may hold: numpy's name, and the field besides `raw_data`.
_TENSOR_TYPES = {
    1: ("float32", "float_data"), 10: ("float16", "raw_data"), 11: ("float64", "double_data"),
    3: ("int8", "int32_data"), 5: ("int16", "int32_data"), 6: ("int32", "int32_data"), 7: ("int64", "int64_data"),
    2: ("uint8", "int32_data"), 4: ("uint16", "int32_data"), 12: ("uint32", "uint64_data"),
    13: ("uint64", "uint64_data"), 9: ("bool", "int32_data"),
}  # fmt: skip

# Grows when a check is added, so that files are looked at again.
_CHECKS_VERSION = 7


def read_model(path: Path) -> bytes:
    """Return the bytes of a regular file of at most 2 GB.

    Raises:
        InvalidModel: it is a folder, a device or a pipe, empty, too large, or clearly no ONNX file.
        StorageError: it cannot be opened.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            is_usable = stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES
            data = file.read(status.st_size) if is_usable else b""
    except IsADirectoryError as error:
        raise InvalidModel(f"{path} is a folder, not a model file.") from error
    except OSError as error:
        raise storage_error("read", path, error) from error
    except ValueError as error:  # a NUL character in the path
        raise StorageError(f"Cannot read {str(path)!r}: {error}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise InvalidModel(f"{path} is not a regular file.")
    if status.st_size > MAX_FILE_BYTES:
        raise InvalidModel(f"{path} has {status.st_size} bytes; a model file has at most {MAX_FILE_BYTES}.")
    if not data:
        raise InvalidModel(f"{path} is empty.")
    beginning = data[:1000].lstrip()[:20]
    if beginning[:1] in (b"<", b"{", b"["):
        raise InvalidModel(f"{path} is text ({beginning!r}...), not an ONNX file. Was a web page saved instead?")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; opening a pipe would otherwise wait for somebody who writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@dataclass
class Verdict:
    """What is known of a file.

    Args:
        is_safe: it passed the static checks.
        may_fold: onnxruntime may make what follows from its constants alone while loading it (`may_fold`).
        golden: how its golden items came out, for each provider.
    """

    is_safe: bool = False
    may_fold: bool = False
    golden: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, sha256: str) -> "Verdict":
        """Return what the cache knows of these bytes; a missing or damaged entry knows nothing."""
        try:
            values = json.loads(_verdict_path(sha256).read_bytes())
            golden = {str(provider): str(found) for provider, found in values["golden"].items()}
            return cls(values["is_safe"] is True, values["may_fold"] is True, golden)
        # RecursionError: JSON that is nested too deep
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return cls()

    def save(self, sha256: str) -> None:
        """Keep the verdict; a cache that cannot be written is no error, the next use checks again."""
        try:
            make_folder(_verdict_path(sha256).parent)
            write_bytes(_verdict_path(sha256), json.dumps(asdict(self)).encode())
        except StorageError:
            return


def trust(data: bytes) -> None:
    """Keep a verdict on a file that this process has made and checked: it is loaded without a trial."""
    Verdict(is_safe=True, may_fold=may_fold(data)).save(hashlib.sha256(data).hexdigest())


def _verdict_path(sha256: str) -> Path:
    return cache_folder() / "verdicts" / f"{sha256}.{_CHECKS_VERSION}.json"


def check_model(data: bytes, name: str) -> ModelCard:
    """Check the bytes of a model file without running anything, and return its card.

    Args:
        data: the whole file.
        name: what messages call it.

    Raises:
        InvalidModel: says what is wrong.
    """
    model = _parsed(data, name)
    try:
        _check_versions(model)
        _check_graphs(model.graph)
        card = _read_card(model)
        _check_signature(model.graph, card)
        _check_measured(card) if card.input else _check_golden(card)
        if graph_sha256(model) != card.graph_sha256:
            raise InvalidModel("its graph is not the one that its card was written for (graph_sha256 differs)")
    except InvalidModel as error:
        raise InvalidModel(f"{name} is not a model this SDK runs: {str(error).rstrip('.')}.") from error
    return card


def _parsed(data: bytes, name: str) -> "onnx.ModelProto":
    with unforked:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InvalidModel(f"{name} is not an ONNX file, or a truncated one: {error}.") from error
    return model


def unknown_card(path: Path) -> ModelCard | None:
    """Return the card of a file whose modality, or a control's kind, no plugin here brings; None for any other file."""
    try:
        card = _read_card(_parsed(read_model(path), path.name))
        _check_names(card)
    except UnknownName:
        return card
    except InvalidModel:
        pass
    return None


def graph_sha256(model: "onnx.ModelProto") -> str:
    """Return the sha256 of the file without its metadata: the identity of the model."""
    import onnx

    # Put aside rather than copied without it: the weights may be large.
    aside = onnx.ModelProto(metadata_props=model.metadata_props)
    model.ClearField("metadata_props")
    try:
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    finally:
        model.metadata_props.MergeFrom(aside.metadata_props)


def _check_versions(model: "onnx.ModelProto") -> None:
    if not model.graph.node:
        raise InvalidModel("it has no graph")
    if not 3 <= model.ir_version <= MAX_IR_VERSION:
        raise InvalidModel(f"its IR version is {model.ir_version}, at most {MAX_IR_VERSION} is known")
    # A few KB of functions that call one another can stand for 2^24 nodes and more.
    if model.functions:
        raise InvalidModel(f"it defines the function {model.functions[0].name!r}; functions have to be inlined")
    for opset in model.opset_import:
        if opset.domain not in _STANDARD:
            raise InvalidModel(f"it uses the operator domain {opset.domain!r}, which is not standard ONNX")
        if opset.version not in OPSETS:
            raise InvalidModel(f"its opset is {opset.version}; {OPSETS.start} to {OPSETS.stop - 1} are known")
    if len(model.opset_import) != 1:
        raise InvalidModel(f"it says {len(model.opset_import)} times which opset it uses, instead of once")


def _check_graphs(graph: "onnx.GraphProto") -> None:
    """Check the graph and all graphs inside its nodes (the bodies of Loop, Scan and If)."""
    waiting, parts = [graph], 0
    while waiting:
        graph = waiting.pop()
        parts += len(graph.node) + len(graph.initializer)
        if parts > MAX_NODES:
            raise InvalidModel(f"it has more than {MAX_NODES} nodes and weights")
        if graph.sparse_initializer:
            raise InvalidModel("it holds sparse tensors")
        for tensor in graph.initializer:
            _check_tensor(tensor)
        for node in graph.node:
            _check_operator(node)
            for attribute in node.attribute:
                _check_attribute(attribute, node.op_type)
                if attribute.HasField("g"):
                    waiting.append(attribute.g)


def _check_operator(node: "onnx.NodeProto") -> None:
    if node.domain not in _STANDARD:
        raise InvalidModel(f"it uses the operator {node.domain}.{node.op_type}, which is not standard ONNX")
    if node.op_type in RANDOM_OPERATORS:
        raise InvalidModel(f"it uses {node.op_type}, so its content would not be a function of the seed")
    if node.op_type in _STRING_OPERATORS or (node.op_type == "Cast" and any(a.i == _STRING for a in node.attribute)):
        raise InvalidModel(f"it uses {node.op_type} to make strings")


def _check_attribute(attribute: "onnx.AttributeProto", operator: str) -> None:
    """Check all fields, whatever `type` says; the graph inside is the caller's."""
    where = f"the attribute {attribute.name!r} of {operator}"
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise InvalidModel(f"{where} holds sparse tensors")
    if attribute.tensors or attribute.graphs or attribute.ref_attr_name:
        raise InvalidModel(f"{where} is of a kind that no standard operator takes")
    if operator == "Constant" and (attribute.s or attribute.strings):
        raise InvalidModel(f"{where} holds strings")
    if attribute.HasField("t"):
        _check_tensor(attribute.t)
    if attribute.HasField("f"):
        _check_values(np.float32(attribute.f), where)
    if attribute.floats:
        _check_values(np.array(attribute.floats, np.float32), where)


def _check_tensor(tensor: "onnx.TensorProto") -> None:
    """Refuse external data, a size that is not what the shape says, NaN, and Inf in more than a constant."""
    name = f"the tensor {tensor.name!r}"
    if tensor.data_location or tensor.external_data:
        raise InvalidModel(f"{name} keeps its data outside of the file")
    if tensor.data_type not in _TENSOR_TYPES:
        raise InvalidModel(f"{name} has the data type {tensor.data_type}, which is not allowed")
    is_possible = len(tensor.dims) <= _MOST_DIMENSIONS and all(0 <= size < 2**31 for size in tensor.dims)
    if tensor.HasField("segment") or not is_possible:
        raise InvalidModel(f"{name} has the impossible shape {tuple(tensor.dims[:_MOST_DIMENSIONS])}")
    dtype, field = _TENSOR_TYPES[tensor.data_type]
    filled = [each.name for each, _ in tensor.ListFields() if each.name.endswith("_data")] or [field]
    if filled not in (["raw_data"], [field]):
        raise InvalidModel(f"{name} of {dtype} keeps its data in {' and '.join(filled)}")
    data, unit = getattr(tensor, filled[0]), "bytes" if filled == ["raw_data"] else "values"
    wanted = math.prod(tensor.dims) * (np.dtype(dtype).itemsize if unit == "bytes" else 1)
    if len(data) != wanted:
        raise InvalidModel(f"{name} has {len(data)} {unit}, its shape {tuple(tensor.dims)} says {wanted}")
    if dtype.startswith("float"):
        _check_values(np.frombuffer(data, dtype) if unit == "bytes" else np.array(data, dtype), name)
    elif dtype == "bool" and not set(data) <= {0, 1}:
        raise InvalidModel(f"{name} of bool holds other values than 0 and 1")


def _check_values(values: Any, name: str) -> None:
    """Refuse NaN, and infinities but for a constant of one element."""
    if np.isfinite(values).all():
        return
    if np.isnan(values).any():
        raise InvalidModel(f"{name} holds NaN")
    if values.size > 1:
        raise InvalidModel(f"{name} holds an infinity among {values.size} values")


def _read_card(model: "onnx.ModelProto") -> ModelCard:
    cards = [entry.value for entry in model.metadata_props if entry.key == CARD_KEY]
    if len(cards) != 1:
        raise InvalidModel(f"it has {len(cards) or 'no'} cards (metadata {CARD_KEY!r}); export it with exactly one")
    return ModelCard.from_json(cards[0])


def check_known(card: ModelCard) -> None:
    """Raise InvalidModel where no plugin here knows what a model makes or takes, or its arrays are no such content.

    It is asked at each load: a plugin may be gone, or be of another version than when the file was checked.
    """
    try:
        _check_names(card)
        with blamed(f"The modality {card.modality!r} cannot check an output"):
            try:
                find_modality(card.modality).check_output(card.input or card.output)
            except ValueError as error:
                raise InvalidModel(f"its card says {error}") from error
    except UnknownName as error:
        how = f" Run: pip install {card.package}" if re.fullmatch(r"[A-Za-z0-9._-]+", card.package) else ""
        raise InvalidModel(f"no plugin that is installed knows what it makes or takes: {error}{how}") from error


def _check_names(card: ModelCard) -> None:
    """Raise UnknownName where no plugin here brings the modality, or the kind of a control."""
    find_modality(card.modality)
    for control in card.controls:
        kind_of(control)


def _check_signature(graph: "onnx.GraphProto", card: ModelCard) -> None:
    """Compare the declared inputs and outputs with the card's."""
    content = card.input or card.output
    check_known(card)
    inputs: list[Any]
    outputs: list[Any]
    contents: list[Any] = [("content", content.dtype, content.shape)]
    if content.length:  # as long as the longest item, whatever the card allows
        contents = [("content", content.dtype, (FREE, *content.shape[1:])), ("length", "int64", ())]
    if card.kind == "measure":
        if card.output.dtype != "float32" or len(card.output.shape) != 1 or card.output.length:
            raise InvalidModel(f"its card says {card.output}; the value of a measure is float32 (K,)")
        inputs, outputs = contents, [("value", "float32", card.output.shape)]
    else:
        controls = [(c.name, c.dtype, (FREE,) if kind_of(c).is_ragged else c.shape) for c in card.controls]
        parts_made = [(f"content.{part.name}", part.dtype, part.shape) for part in parts_of(card)]
        inputs, outputs = [("seed", "int64", ()), *controls], contents + parts_made
        if card.state:
            parts = [(f"state.{part.name}", part.dtype, part.shape) for part in card.state]
            inputs += [*parts, ("position", "int64", ())]
            outputs += [(f"{name}.next", dtype, shape) for name, dtype, shape in inputs[-len(parts) - 1 :]]
            outputs.append(("finished", "bool", ()))
    for what, values, wanted in (("inputs", graph.input, inputs), ("outputs", graph.output, outputs)):
        if (found := [_declared(value) for value in values]) != wanted:
            raise InvalidModel(f"its {what} are {found}, its card says {wanted}")
    defaults = {value.name for value in graph.input} & {value.name for value in graph.initializer}
    if defaults:
        raise InvalidModel(f"its input {min(defaults)!r} has a default in the graph, which few runtimes understand")


Declared = tuple[str, str, tuple[int | str, ...]]

# What stands for a dimension that has a name in the file, and any size in a call.
FREE = "free"


def _declared(value: "onnx.ValueInfoProto") -> Declared:
    """Return the name, dtype and shape of one item. Other types than tensors get the dtype "?", or no dimensions."""
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if not dims or not dims[0].dim_param:
        raise InvalidModel(f"the first dimension of {value.name!r} is not the free number of items")
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else FREE for dim in dims[1:])
    return value.name, _TENSOR_TYPES.get(tensor.elem_type, ("?",))[0], shape


def _check_golden(card: ModelCard) -> None:
    """Refuse golden items that the model cannot be asked for, or that are not what it makes."""
    golden = card.golden
    if golden is None or not 1 <= len(golden.seeds) <= MAX_GOLDEN_ITEMS:
        raise InvalidModel(f"its card has no golden items, or more than {MAX_GOLDEN_ITEMS}")
    n = len(golden.seeds)
    shape = (n, *golden.shape[1:2], *card.output.shape[1:]) if card.output.length else (n, *card.output.shape)
    if golden.shape != shape or (card.output.length and len(golden.shape) < 2):
        raise InvalidModel(f"its {n} golden items have the shape {golden.shape}, its output {card.output.shape} each")
    if set(golden.controls) != {control.name for control in card.controls}:
        raise InvalidModel(f"its golden items have the controls {sorted(golden.controls)}, which are not the card's")
    if not all(0 <= seed <= MAX_SEED for seed in golden.seeds):
        raise InvalidModel(f"a seed of its golden items is not within 0 to {MAX_SEED}")
    for control in card.controls:
        values, kind = golden.controls[control.name], kind_of(control)
        if kind.is_array != isinstance(values, Packed):
            raise InvalidModel(f"its golden items have {control.name!r} in the form of another kind")
        if isinstance(values, Packed):
            shape = (n, *values.shape[1:2], *control.shape[1:]) if kind.is_ragged else (n, *control.shape)
            if values.array(control.dtype).shape != shape or 0 in shape:
                raise InvalidModel(f"its {n} golden items have {control.name!r} of shape {values.shape}")
            continue
        if len(values) != n:
            raise InvalidModel(f"its {n} golden items have {len(values)} values of {control.name!r}")
        if not all(_can_be_fed(value, control) for value in values):
            raise InvalidModel(f"its golden items have values of {control.name!r} that cannot be fed")
    _check_values(golden.array(card.output.dtype), "the golden content")
    _check_golden_parts(golden, card)


def _check_golden_parts(golden: Golden, card: ModelCard) -> None:
    """Refuse other outputs than the model has; cards that were written before there were any have none."""
    if golden.parts and golden.parts.keys() != {part.name for part in parts_of(card)}:
        raise InvalidModel(f"its golden items have the parts {sorted(golden.parts)}, which are not the model's")
    for part in parts_of(card) if golden.parts else ():
        packed, wanted = golden.parts[part.name], (len(golden.seeds), *part.shape)
        if packed.shape != wanted:
            raise InvalidModel(f"its golden items have {part.name!r} of shape {packed.shape}, its output {wanted}")
        _check_values(packed.array(part.dtype), f"the golden {part.name}")


def _check_measured(card: ModelCard) -> None:
    """Refuse golden items of a measure that are not content with the values measured of it."""
    golden, taken = card.golden, card.input
    if golden is None or taken is None or golden.seeds or set(golden.controls) != {"content"}:
        raise InvalidModel("its card has no golden items of a measure: no seeds, 'content', and the values")
    content = golden.controls["content"]
    if not isinstance(content, Packed) or not content.shape or not 1 <= content.shape[0] <= MAX_GOLDEN_ITEMS:
        raise InvalidModel(f"its golden content is not 1 to {MAX_GOLDEN_ITEMS} items, packed")
    n = content.shape[0]
    shape = (*content.shape[1:2], *taken.shape[1:]) if taken.length else taken.shape
    if content.shape != (n, *shape) or golden.shape != (n, *card.output.shape):
        raise InvalidModel(f"its golden items are {content.shape} and {golden.shape}, its card says otherwise")
    _check_values(content.array(taken.dtype), "the golden content")
    _check_values(golden.array(card.output.dtype), "the golden value")


def _can_be_fed(value: float, control: Control) -> bool:
    # A golden number was rounded to float32, maybe beyond the end of its range.
    is_float = control.dtype == "float32"
    return abs(value) <= float(np.finfo(np.float32).max) if is_float else control.accepts(value)
