"""The card: what a model file says of itself, as strict JSON inside the file and beside it.

The published schema is `docs/card.schema.json`; a test keeps it in step with these classes.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from aigc_sdk.errors import InvalidModel
from aigc_sdk.seeds import MAX_SEED

CONTRACT = 1
CARD_KEY = "aigc.card"
MAX_JSON_BYTES = 2**20
MAX_JSON_DEPTH = 32

Array = NDArray[Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ControlKind = Literal["choice", "number", "integer", "flag", "seed"]

DTYPES: dict[str, str] = {"choice": "int64", "number": "float32", "integer": "int64", "flag": "bool", "seed": "int64"}

# A caller's argument of these names never reaches a control.
RESERVED = frozenset(
    "n seed seeds batch_size device task deadline_s best_of judge weights reject_below".split()
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Control(_Part):
    """One input of a model besides `seed`: what the caller may ask for.

    Every control is fed as an array (n,) of its dtype. A `choice` is the index of its name in
    `choices`, or -1: drawn from the item's seed with the frequencies of the training data.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    kind: ControlKind
    dtype: str
    shape: tuple[int, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    default: bool | int | float
    help: str

    @model_validator(mode="before")
    @classmethod
    def _fill_dtype(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "dtype" not in values:
            return {**values, "dtype": DTYPES.get(str(values.get("kind")), "")}
        return values

    @model_validator(mode="after")
    def _check(self) -> "Control":
        if self.name in RESERVED:
            raise ValueError(f"control name {self.name!r} is reserved")
        if self.dtype != DTYPES[self.kind] or self.shape != ():
            raise ValueError(f"a {self.kind} control is {DTYPES[self.kind]} of shape ()")
        if (self.kind == "choice") != bool(self.choices) or len(set(self.choices)) < len(self.choices):
            raise ValueError("a choice control has distinct choices, and no other control has any")
        low, high = self.range
        if not low <= self.default <= high:
            raise ValueError(f"default {self.default} is outside of {low} to {high}")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that may be fed, both included."""
        match self.kind:
            case "choice":
                return -1, len(self.choices) - 1
            case "seed":
                return 0, MAX_SEED
            case "flag":
                return 0, 1
        low = -math.inf if self.minimum is None else self.minimum
        return low, math.inf if self.maximum is None else self.maximum


class OutputSpec(_Part):
    """The `content` output: dtype and the shape of one item.

    `length` says that the items are of variable length and a second output `length` int64 (n,) counts them.
    """

    dtype: Literal["uint8", "int32", "float32"]
    shape: tuple[int, ...]
    length: bool = False


class DataSummary(_Part):
    """What a model was trained on: a name for people, a fingerprint for programs, and how it was split."""

    name: str
    fingerprint: Sha256
    n: Annotated[int, Field(ge=1)]
    split: dict[str, int]


class Golden(_Part):
    """Items that the file made when it was exported, so that any runtime can test itself.

    `content` is base64 of the zlib-compressed little-endian array of `shape`, in the output's dtype.
    """

    seeds: tuple[int, ...]
    controls: dict[str, tuple[bool | int | float, ...]]
    shape: tuple[int, ...]
    content: str

    @classmethod
    def of(cls, seeds: Array, controls: Mapping[str, Array], content: Array) -> "Golden":
        """Record the content made from these seeds and controls."""
        data = base64.b64encode(zlib.compress(np.ascontiguousarray(content).tobytes(), 9)).decode()
        listed = {name: tuple(values.tolist()) for name, values in controls.items()}
        return cls(seeds=tuple(seeds.tolist()), controls=listed, shape=content.shape, content=data)

    def array(self, dtype: str) -> Array:
        """Unpack the content; raises InvalidModel when it is not what `shape` says."""
        size = math.prod(self.shape) * np.dtype(dtype).itemsize
        try:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(base64.b64decode(self.content, validate=True), max(size, 1))
            if len(data) != size or not unpacker.eof:
                raise ValueError(f"it does not hold {size} bytes")
        except (ValueError, zlib.error) as error:
            raise InvalidModel(f"The golden samples of the card cannot be unpacked: {error}.") from error
        return np.frombuffer(data, dtype).reshape(self.shape)


class ModelCard(_Part):
    """What a model file says of itself.

    `graph_sha256` is that of the file without its metadata, so that a score can be added later
    without changing the model's identity. A model in training, which has no graph yet, carries
    the hash of its weights there and no golden items.

    Example:
        >>> import aigc_sdk as sdk
        >>> card = sdk.load("digits-vae").card
        >>> card.modality, card.output.shape, [control.name for control in card.controls]
        ('image', (28, 28, 1), ['label', 'temperature'])
    """

    contract: Literal[1] = CONTRACT
    kind: Literal["model"] = "model"
    name: Name
    version: str
    license: str
    intended_use: str
    created: str
    sdk_version: str
    family: Name
    task: Name
    modality: Literal["image"]
    portable: bool = True
    controls: tuple[Control, ...]
    output: OutputSpec
    config: dict[str, JsonValue]
    data: DataSummary
    scores: tuple[dict[str, JsonValue], ...] = ()
    graph_sha256: Sha256
    golden: Golden | None = None

    def control(self, name: str) -> Control | None:
        """Return the control of that name, or None."""
        return next((control for control in self.controls if control.name == name), None)

    def to_json(self) -> str:
        """Return the card as JSON, the same text for the same card."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "ModelCard":
        """Read a card that may come from anywhere.

        Raises:
            InvalidModel: it is not strict JSON, or not a card of contract 1; says which field is wrong.
        """
        values = parse_strict_json(text)
        if isinstance(values, dict) and values.get("contract") != CONTRACT:
            raise InvalidModel(
                f"The model file follows contract {values.get('contract')!r}; this SDK knows contract {CONTRACT}."
                " A newer aigc-sdk may read it."
            )
        try:
            return cls.model_validate(values, strict=False)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the card"
            raise InvalidModel(f"The card of the model file is wrong at {where}: {first['msg']}.") from error


def parse_strict_json(text: str | bytes) -> Any:
    """Parse JSON that may be hostile.

    Raises:
        InvalidModel: more than 1 MB, not UTF-8, nested deeper than 32, a duplicate key, NaN or Infinity,
            or an integer of more than 19 digits.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InvalidModel(f"The card is larger than {MAX_JSON_BYTES} bytes.")
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        decoded.encode("utf-8")
        values = json.loads(
            decoded, object_pairs_hook=_distinct_keys, parse_constant=_refuse_constant, parse_int=_bounded_int
        )
        _check_depth(values, MAX_JSON_DEPTH)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"The card is not strict JSON: {error}.") from error
    return values


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


def _bounded_int(text: str) -> int:
    if len(text) > 20:
        raise ValueError("an integer of more than 19 digits")
    return int(text)
