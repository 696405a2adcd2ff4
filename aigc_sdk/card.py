"""The card: what a model file says of itself, as strict JSON inside the file and beside it.

The published schema is `docs/card.schema.json`; a test keeps it in step with these classes. They are plain
dataclasses, and pydantic checks them against their annotations where a card is put together (`checked`) or comes from
outside (`from_json`). The card of a file that was checked before is read without it, because importing pydantic takes
longer than running a small model.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidModel, InvalidRequest, UnknownName, shown
from aigc_sdk.forking import unforked
from aigc_sdk.kinds import find_kind, kind_of

CONTRACT = 1
CARD_KEY = "aigc.card"
MAX_JSON_BYTES = 2**20
MAX_JSON_DEPTH = 32
MAX_GOLDEN_BYTES = 2**26

_INT64_MAX = 2**63 - 1

Array = NDArray[Any]
Part = TypeVar("Part")


class Limit:
    """Narrows an annotation, in pydantic's words (`pattern`, `ge`, `min_length`) but without importing it."""

    def __init__(self, **constraints: Any) -> None:
        self.constraints = constraints

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Add the constraints to what pydantic makes of the type."""
        return {**handler(source), **self.constraints}


Name = Annotated[str, Limit(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, Limit(pattern=r"^[0-9a-f]{64}$")]

# A caller's argument of these names never reaches a control: they are those of the public functions, or will be.
RESERVED = frozenset(
    ("n", "seed", "seeds", "batch_size", "device", "task", "deadline_s", "best_of", "judge", "weights", "reject_below")
).union(("self", "model", "model_or_contents", "path", "reference", "train", "metrics", "extractor"))


class _Part:
    # How pydantic checks the dataclasses below; those inside others are checked again, because a dataclass that was
    # made by hand is not.
    __pydantic_config__: ClassVar[Any] = {
        "extra": "forbid",
        "allow_inf_nan": False,
        "revalidate_instances": "always",
    }


def checked(part: type[Part], values: Any) -> Part:
    """Make a part of a card, or a whole one, of a mapping that may hold anything.

    Raises:
        ValueError: pydantic's, which says which value is wrong and why.

    Example:
        >>> checked(OutputSpec, {"dtype": "uint8", "shape": [28, 28, 1]})
        OutputSpec(dtype='uint8', shape=(28, 28, 1), length=False)
    """
    with unforked:
        made: Part = _adapter(part).validate_python(values)  # type: ignore[arg-type]  # mypy: no type variable is hashable
    return made


@lru_cache
def _adapter(part: Any) -> Any:
    """Return what checks a part; made and used `unforked`, since pydantic imports and has locks of its own."""
    with unforked:
        from pydantic import TypeAdapter

        return TypeAdapter(part)


@dataclass(frozen=True, kw_only=True)
class Control(_Part):
    """One input of a model besides `seed`: what the caller may ask for.

    Every control is fed as an array (n, *shape) of its dtype. A `choice` is the index of its name in
    `choices`, or -1: drawn from the item's seed with the frequencies of the training data. An `image`
    is pixels of `shape`, a `mask` one channel of them, where 255 says keep; their default is a level
    for all pixels, or None: the caller has to give one. A `text` is code points (n, p), -1 after the end of each
    and p at least 1, of the characters in `choices`, at most `maximum` of them. `music` is the same of events, see
    `aigc_music.events`.
    """

    name: Annotated[str, Limit(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    kind: Annotated[str, Limit(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    dtype: str = ""  # filled in from the kind
    shape: tuple[int, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Annotated[str, Limit(min_length=1)], ...] = ()
    default: bool | int | float | str | None
    help: str

    def __post_init__(self) -> None:
        if self.name in RESERVED:
            raise ValueError(f"control name {self.name!r} is reserved")
        try:
            kind = find_kind(self.kind)
        except UnknownName as error:
            if not self.dtype:
                raise ValueError(str(error)) from error
            return  # a card from elsewhere can be looked at; its model is not loaded
        if not self.dtype:
            object.__setattr__(self, "dtype", kind.dtype)
        kind.check(self)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that may be fed, both included; of codes, how many."""
        return kind_of(self).bounds(self)

    @property
    def allowed(self) -> str:
        """What may be fed, in words: "a number from 0 to 2"."""
        return kind_of(self).allowed(self)

    def accepts(self, value: object) -> bool:
        """Tell whether a plain value may be fed; a choice goes by its index, pixels by the level of all of them."""
        return kind_of(self).accepts(self, value)


@dataclass(frozen=True, kw_only=True)
class OutputPart(_Part):
    """An output besides `content` and `length`: one array (n, *shape), the file's output `content.NAME`."""

    name: Annotated[str, Limit(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    dtype: Literal["uint8", "int32", "int64", "float32", "float64", "bool"]
    shape: tuple[int, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class OutputSpec(_Part):
    """An array of items, `content` or a measure's `value`: dtype and the shape of one item.

    `length` says that the items are of variable length: the first number of `shape` is then the most, an array is as
    long as the longest item of a call, and a second output `length` int64 (n,) says where each ends. `parts` are
    further outputs, besides those that every model of the modality has; `attributes` are constants of the model, such
    as `sample_rate`.
    """

    dtype: Literal["uint8", "int16", "int32", "int64", "float32", "float64"]
    shape: tuple[int, ...]
    length: bool = False
    parts: tuple[OutputPart, ...] = field(default=(), repr=False)
    attributes: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len({part.name for part in self.parts}) < len(self.parts):
            raise ValueError("two parts of the output have one name")


@dataclass(frozen=True, kw_only=True)
class StatePart(_Part):
    """What a model that streams hands from one call to the next: the input `state.NAME`, the output `state.NAME.next`.

    It is all zeros at the beginning.
    """

    name: Annotated[str, Limit(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    dtype: Literal["float32", "int64", "bool"]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DataSummary(_Part):
    """What a model was trained on: a name for people, a fingerprint for programs, and how it was split.

    The fingerprint is None where others trained the network, on data that the SDK has not seen.
    """

    name: str
    fingerprint: Sha256 | None
    n: Annotated[int, Limit(ge=1)]
    split: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Packed(_Part):
    """An array inside a card: base64 of its zlib-compressed little-endian bytes."""

    shape: tuple[int, ...]
    data: str

    @classmethod
    def of(cls, array: Array) -> "Packed":
        """Pack an array."""
        data = zlib.compress(np.ascontiguousarray(array).tobytes(), 9)
        return cls(shape=array.shape, data=base64.b64encode(data).decode())

    def array(self, dtype: str) -> Array:
        """Unpack; raises InvalidModel when it is not what `shape` says."""
        size = math.prod(self.shape) * np.dtype(dtype).itemsize
        try:
            if not 0 < size <= MAX_GOLDEN_BYTES:
                raise ValueError(f"the shape {self.shape} is {size} bytes, at most {MAX_GOLDEN_BYTES} are allowed")
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(base64.b64decode(self.data, validate=True), size)
            if len(data) != size or not unpacker.eof:
                raise ValueError(f"it does not hold {size} bytes")
            return np.frombuffer(data, dtype).reshape(self.shape)
        except (ValueError, zlib.error) as error:
            raise InvalidModel(f"The golden samples of the card cannot be unpacked: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Golden(_Part):
    """Items that the file made when it was exported, so that any runtime can test itself.

    `content` is base64 of the zlib-compressed little-endian array of `shape`, in the output's dtype.
    Controls of one value for each item are listed; those of pixels are packed as the content is. `parts` are the
    outputs "content.NAME" by NAME, packed too, and `provider` says what made the items. Cards that were written before
    there were these two have neither.
    """

    seeds: tuple[int, ...]
    controls: dict[str, tuple[bool | int | float, ...] | Packed]
    shape: tuple[int, ...]
    content: str
    parts: dict[str, Packed] = field(default_factory=dict)
    provider: str = ""

    @classmethod
    def of(
        cls,
        seeds: Array,
        controls: Mapping[str, Array],
        content: Array,
        parts: Mapping[str, Array] = MappingProxyType({}),
        provider: str = "",
    ) -> "Golden":
        """Record the content made from these seeds and controls, what else was made with it, and by what."""
        listed = {name: tuple(v.tolist()) if v.ndim == 1 else Packed.of(v) for name, v in controls.items()}
        packed, others = Packed.of(content), {name: Packed.of(part) for name, part in parts.items()}
        return cls(
            seeds=tuple(seeds.tolist()),
            controls=listed,
            shape=packed.shape,
            content=packed.data,
            parts=others,
            provider=provider,
        )

    def array(self, dtype: str) -> Array:
        """Unpack the content; raises InvalidModel when it is not what `shape` says."""
        return Packed(shape=self.shape, data=self.content).array(dtype)

    def control_array(self, control: Control) -> Array:
        """Return what was fed to a control, (n, *shape)."""
        values = self.controls[control.name]
        return values.array(control.dtype) if isinstance(values, Packed) else np.array(values, control.dtype)


@dataclass(frozen=True, kw_only=True)
class ModelCard(_Part):
    """What a model file says of itself.

    Of the kind "model" it makes content of seeds and controls. Of the kind "measure" it makes numbers, `value`
    float32 (n, K), of content: `input` says of which, there are no controls, and its golden items have no seeds but
    `content`. `graph_sha256` is that of the file without its metadata, so that a score can be added later
    without changing the model's identity. A model in training, which has no graph yet, carries
    the hash of its weights there and no golden items.

    Example:
        >>> import aigc_sdk as sdk
        >>> card = sdk.load("digits-vae").card
        >>> card.modality, card.output.shape, [control.name for control in card.controls]
        ('image', (28, 28, 1), ['label', 'temperature'])
    """

    contract: Literal[1] = 1
    kind: Literal["model", "measure"] = "model"
    name: Name
    version: str
    license: str
    intended_use: str
    created: str
    sdk_version: str
    family: Name
    task: Name
    modality: Annotated[str, Limit(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    package: str = ""  # the distribution that brings the modality, where the SDK itself does not
    portable: bool = True
    controls: tuple[Control, ...]
    input: OutputSpec | None = None  # of a measure alone
    output: OutputSpec
    state: tuple[StatePart, ...] = ()  # of a model that streams
    config: dict[str, Any]
    data: DataSummary
    scores: tuple[dict[str, Any], ...] = ()
    graph_sha256: Sha256
    golden: Golden | None = None

    def __post_init__(self) -> None:
        if (self.kind == "measure") != (self.input is not None):
            raise ValueError("a measure says what its input is, and a model has none")
        if self.kind == "measure" and self.controls:
            raise ValueError("a measure has no controls")

    def control(self, name: str) -> Control | None:
        """Return the control of that name, or None."""
        return next((control for control in self.controls if control.name == name), None)

    def check_kind(self, kind: Literal["model", "measure"]) -> None:
        """Raise InvalidRequest when a measure is asked for content, or a model for numbers."""
        if self.kind == kind:
            return
        does, use = {
            "model": ("makes contents and measures none", f"sdk.generate({self.name!r})"),
            "measure": ("takes contents and returns numbers", f"sdk.measure({self.name!r}, contents)"),
        }[self.kind]
        raise InvalidRequest(f"{self.name!r} is a {self.kind}: it {does}. Use {use}.")

    def rows(self) -> list[tuple[str, str]]:
        """Return what the card says, for people: (what, text) for each line."""
        texts = ("name", "version", "license", "intended_use", "family", "task", "created", "graph_sha256")
        return [
            *((name, getattr(self, name)) for name in texts),
            *([("input", f"{self.modality}, {self.input.dtype} {self.input.shape}")] if self.input else []),
            ("output", f"{'value' if self.input else self.modality}, {self.output.dtype} {self.output.shape}"),
            ("data", f"{self.data.name}, {self.data.n} items, {self.data.split}"),
            *(("score", _in_words(score)) for score in self.scores),
            *(("control", f"{c.name} ({c.kind}): {c.help}; {_allowed(c)}; default {c.default}") for c in self.controls),
        ]

    def to_json(self) -> str:
        """Return the card as JSON, the same text for the same card.

        An `input`, a `state`, a `package`, `parts` and `attributes` of the output, and `parts` and `provider` of the
        golden items are left out where there are none.
        """
        values = _without_empty(asdict(self), "input", "state", "package")
        for name in ("output", "input"):
            if name in values:
                values[name] = _without_empty(values[name], "parts", "attributes")
        if self.golden is not None:
            values["golden"] = _without_empty(values["golden"], "parts", "provider")
        return json.dumps(values, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_checked_json(cls, text: str) -> "ModelCard":
        """Read the card of a file that was checked before, without importing what checks it.

        Raises:
            InvalidModel: it is no card after all, or one of another contract.
        """
        try:
            values = _with_tuples(json.loads(text))
            values["controls"] = tuple(Control(**_with_tuples(control)) for control in values["controls"])
            values["output"] = _output(values["output"])
            if taken := values.get("input"):
                values["input"] = _output(taken)
            values["state"] = tuple(StatePart(**_with_tuples(part)) for part in values.get("state", ()))
            values["data"] = DataSummary(**values["data"])
            if golden := values.get("golden"):
                fed = {
                    name: Packed(**_with_tuples(value)) if isinstance(value, dict) else tuple(value)
                    for name, value in golden["controls"].items()
                }
                parts = {name: Packed(**_with_tuples(part)) for name, part in golden.get("parts", {}).items()}
                values["golden"] = Golden(**_with_tuples(golden | {"controls": fed, "parts": parts}))
            card = cls(**values)
        except (ValueError, TypeError, LookupError, AttributeError):
            return cls.from_json(text)  # which says what is wrong
        return card if card.contract == CONTRACT else cls.from_json(text)

    @classmethod
    def from_json(cls, text: str | bytes) -> "ModelCard":
        """Read a card that may come from anywhere.

        Raises:
            InvalidModel: it is not strict JSON, or not a card of contract 1; says which field is wrong.
        """
        with unforked:
            from pydantic import ValidationError

        values = parse_strict_json(text)
        if not isinstance(values, dict):
            raise InvalidModel(f"The card of the model file is no JSON object, but {shown(values)}.")
        if values.get("contract") != CONTRACT:
            raise InvalidModel(
                f"The model file follows contract {values.get('contract')!r}; this SDK knows contract {CONTRACT}."
                " A newer aigc-sdk may read it."
            )
        try:
            # Nothing is converted: what is checked here is what `from_checked_json` will read.
            with unforked:
                card: ModelCard = _adapter(ModelCard).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the card"
            what = "there is no such field" if first["type"] == "unexpected_keyword_argument" else first["msg"]
            raise InvalidModel(f"The card of the model file is wrong at {where}: {what}.") from error
        return card


def _output(values: dict[str, Any]) -> OutputSpec:
    parts = tuple(OutputPart(**_with_tuples(part)) for part in values.get("parts", ()))
    return OutputSpec(**_with_tuples(values | {"parts": parts}))


def _allowed(control: Control) -> str:
    try:
        return control.allowed
    except UnknownName:
        return "its kind is known to no plugin that is installed"


def _in_words(score: Mapping[str, Any]) -> str:
    """Return what people want to know of a score; a card from elsewhere may hold any values there."""
    parts = [_short(score.get("metric")), _short(score.get("value"))]
    for name in ("interval", "baseline", "n_fake", "split", "n"):
        if score.get(name) is not None:
            parts.append(f"{name} {_short(score[name])}")
    return ", ".join([*parts, str(score["verdict"])] if "verdict" in score else parts)


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parse_strict_json(text: str | bytes, what: str = "The card") -> Any:
    """Parse JSON that may be hostile; `what` is what messages call it.

    Raises:
        InvalidModel: more than 1 MB, not UTF-8 or half a surrogate pair, nested deeper than 32, a duplicate
            key, NaN or Infinity, or an integer beyond 64 bits.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InvalidModel(f"{what} is larger than {MAX_JSON_BYTES} bytes.")
    try:
        values = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_distinct_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_int64,
        )
        _check_depth(values, MAX_JSON_DEPTH)
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{what} is not strict JSON: {error}.") from error
    return values


def _without_empty(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the values without those of these names that are empty, as cards had none before there were these."""
    return {name: value for name, value in values.items() if name not in names or value}


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with tuples for JSON's lists, but for lists further inside."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _check_depth(value: Any, levels: int) -> None:
    if isinstance(value, dict | list):
        if levels == 0:
            raise ValueError(f"nested deeper than {MAX_JSON_DEPTH}")
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, levels - 1)


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return keys


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _finite_float(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _int64(text: str) -> int:
    if len(text) > 20 or not -_INT64_MAX - 1 <= (value := int(text)) <= _INT64_MAX:
        raise ValueError(f"{text[:20]} is beyond 64 bits")
    return value
