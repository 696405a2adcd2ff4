"""ControlKind: what may be fed to a model under a control, and the plain kinds.

Kinds of content bring kinds of their own, such as `image` or `text`. A kind is looked up by its own name, never by what
a model makes: a model of texts may take an image.
"""

# ruff: noqa: ARG002 - a kind is asked with its control, whether that matters to it or not
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.codes import encode
from aigc_sdk.errors import InvalidRequest, UnknownName, shown
from aigc_sdk.names import composed
from aigc_sdk.registry import default_registry
from aigc_sdk.seeds import MAX_SEED

if TYPE_CHECKING:  # a control checks itself by its kind
    from aigc_sdk.card import Control

Array = NDArray[Any]

_INT64_MAX = 2**63 - 1
_FLOAT32_MAX = float(np.finfo(np.float32).max)

# Characters or events that an error names.
NAMED = 5
# Codes of an example, and of the longest that is tried.
_MOST_CODES, _MOST_EDGE = 12, 100
# Examples of `max_length` are short, or making them would take long.
_MOST_LENGTH = 40


class ControlKind(ABC):
    """What may be fed to a model under one control.

    It has no state; every method takes the control. `name` is what `Control.kind` says, `dtype` that of the array that
    is fed. `is_array`: the value of one item is an array. `is_ragged`: the first dimension of that array is free within
    a call, and shorter ones have `padding` behind them. `is_recorded`: the provenance holds the value itself, so that
    an item can be made again without giving it. `has_choices`: a control has distinct choices. `has_bounds`: it may
    have a minimum and a maximum.
    """

    name: ClassVar[str]
    dtype: ClassVar[str]
    is_array: ClassVar[bool] = False
    is_ragged: ClassVar[bool] = False
    is_recorded: ClassVar[bool] = True
    padding: ClassVar[int] = -1
    has_choices: ClassVar[bool] = False
    has_bounds: ClassVar[bool] = False
    shapes: ClassVar[str] = "()"  # what a control's shape may be, in words
    implies: ClassVar[tuple[str, ...]] = ()  # the controls that a value says something of

    def check(self, control: "Control") -> None:
        """Raise ValueError where the control's dtype, shape, choices, bounds or default cannot be those of the kind."""
        if control.dtype != self.dtype or not self.has_shape(control):
            raise ValueError(f"a control of kind {self.name} is {self.dtype} of shape {self.shapes}")
        if self.has_choices != bool(control.choices) or len(set(control.choices)) < len(control.choices):
            raise ValueError(f"a {self.name} control has {'distinct' if self.has_choices else 'no'} choices")
        if not self.has_bounds and (control.minimum, control.maximum) != (None, None):
            raise ValueError(f"a {self.name} control has no minimum and maximum")
        self.check_choices(control)
        (low, high), limit = self.bounds(control), _FLOAT32_MAX if self.dtype == "float32" else _INT64_MAX
        if not -limit <= low <= high <= limit:
            raise ValueError(f"the range {low:g} to {high:g} is empty, or more than {self.dtype} holds")
        if not self.accepts(control, control.default):
            raise ValueError(f"default is {control.default}, not {self.allowed(control)}")

    def has_shape(self, control: "Control") -> bool:
        """Tell whether the value of one item may have the control's shape."""
        return control.shape == ()

    def check_choices(self, control: "Control") -> None:  # noqa: B027 - most kinds take any names
        """Raise ValueError where the choices are not those of the kind."""

    @abstractmethod
    def bounds(self, control: "Control") -> tuple[float, float]:
        """Return the smallest and the largest value that may be fed, both included; of codes, how many."""

    @abstractmethod
    def allowed(self, control: "Control") -> str:
        """Return what may be fed, in words: "a number from 0 to 2"."""

    @abstractmethod
    def accepts(self, control: "Control", value: object) -> bool:
        """Tell whether a plain value, as cards and provenance hold it, may be fed."""

    def split(self, control: "Control", value: Any, most: int) -> Any:
        """Return a list with one value for each item, or one value for all; files are read here.

        Raises:
            InvalidRequest: there are more than `most` values, or one cannot be read.
        """
        return listed(value, control.name, most)

    def implied(self, value: Any) -> Mapping[str, Any]:
        """Return what a value that `split` returned says of the controls that the kind `implies`, by their names."""
        return {}

    def decode(self, control: "Control", value: Any, where: str) -> Any:
        """Return what is fed for a value that `split` returned, or for the default; `where` is what errors call it.

        Raises:
            InvalidRequest: it cannot be fed; says what may be.
            UnknownName: it is no choice.
        """
        if not self.accepts(control, value):
            raise InvalidRequest(f"{where} is {shown(value)}; give {self.allowed(control)}.")
        return value

    def stack(self, control: "Control", values: Sequence[Any]) -> Array:
        """Return values that `decode` returned as one array (n, ...)."""
        return np.array(values, self.dtype)

    def record(self, row: Array) -> Any:
        """Return what the provenance holds of the value of one item, where that is an array."""
        return row.tolist()

    def from_words(self, control: "Control", words: str) -> Any:
        """Return what `-c NAME=WORDS` on the command line asks for: a choice's own name, JSON, or else a text."""
        return words if words in control.choices else json_or_text(words)

    def examples(self, control: "Control", n: int, random: np.random.Generator) -> Array:
        """Return what n items may be fed, (n, ...), ranging over all that is allowed."""
        low, high = (min(max(bound, -1000), MAX_SEED) for bound in self.bounds(control))
        if control.name == "max_length":
            high = min(high, _MOST_LENGTH)
        return random.integers(int(low), int(high), n, endpoint=True).astype(self.dtype)

    def edges(self, control: "Control") -> Array:
        """Return the two ends of what may be fed, (2, ...)."""
        return np.array(self.bounds(control), self.dtype)

    def wrong(self, control: "Control") -> list[Any]:
        """Return values that a caller may not give: beyond the range, and of a wrong type."""
        low, high = self.bounds(control)
        beyond = [value for value in (low - 1, high + 1) if not low <= value <= high]
        return [{}, "no such choice", True, *beyond, float("nan")]


class IntegerKind(ControlKind):
    """A whole number."""

    name, dtype, has_bounds = "integer", "int64", True

    def bounds(self, control: "Control") -> tuple[float, float]:
        """Return the whole numbers next to the control's bounds, inside of them."""
        return (
            -_INT64_MAX if control.minimum is None else math.ceil(control.minimum),
            _INT64_MAX if control.maximum is None else math.floor(control.maximum),
        )

    def allowed(self, control: "Control") -> str:
        """Return the range in words."""
        low, high = self.bounds(control)
        return f"a whole number from {low} to {high}"

    def accepts(self, control: "Control", value: object) -> bool:
        """Tell whether it is a whole number of the range."""
        low, high = self.bounds(control)
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


class SeedKind(IntegerKind):
    """A second seed."""

    name, has_bounds = "seed", False

    def bounds(self, control: "Control") -> tuple[float, float]:
        """Return those of seeds."""
        return 0, MAX_SEED


class ChoiceKind(IntegerKind):
    """The index of one of the control's choices, or -1: drawn from the item's seed, as often as in the data."""

    name, has_bounds, has_choices = "choice", False, True

    def bounds(self, control: "Control") -> tuple[float, float]:
        """Return those of the index."""
        return -1, len(control.choices) - 1

    def allowed(self, control: "Control") -> str:
        """Return the choices."""
        names, last = ", ".join(control.choices), len(control.choices) - 1
        return f"one of {names}, its index from 0 to {last}, or -1 to leave it to the seed"

    def decode(self, control: "Control", value: Any, where: str) -> Any:
        """Return the index; an accent may be part of its letter or not."""
        if not isinstance(value, str):
            return super().decode(control, value, where)
        if value in control.choices:
            return control.choices.index(value)
        names = [composed(name) for name in control.choices]  # cards of before may have them in another form
        if composed(value) in names:
            return names.index(composed(value))
        raise UnknownName.of(f"choice for {where}", value, control.choices)


class NumberKind(ControlKind):
    """A number of float32."""

    name, dtype, has_bounds = "number", "float32", True

    def bounds(self, control: "Control") -> tuple[float, float]:
        """Return the control's bounds, or those of float32."""
        return (
            -_FLOAT32_MAX if control.minimum is None else control.minimum,
            _FLOAT32_MAX if control.maximum is None else control.maximum,
        )

    def allowed(self, control: "Control") -> str:
        """Return the range in words."""
        low, high = self.bounds(control)
        return f"a number from {low:.9g} to {high:.9g}"  # 9 digits tell all float32 values apart

    def accepts(self, control: "Control", value: object) -> bool:
        """Tell whether it is a number of the range."""
        low, high = self.bounds(control)
        # Provenance gives back float32; the one nearest to a bound may lie just outside of it.
        low, high = min(low, float(np.float32(low))), max(high, float(np.float32(high)))
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    def examples(self, control: "Control", n: int, random: np.random.Generator) -> Array:
        """Return numbers of the range, (n,)."""
        low, high = (min(max(bound, -1000), MAX_SEED) for bound in self.bounds(control))
        return random.uniform(low, high, n).astype(self.dtype)


class FlagKind(ControlKind):
    """True or False."""

    name, dtype = "flag", "bool"

    def bounds(self, control: "Control") -> tuple[float, float]:
        """Return 0 and 1."""
        return 0, 1

    def allowed(self, control: "Control") -> str:
        """Return both."""
        return "True or False"

    def accepts(self, control: "Control", value: object) -> bool:
        """Tell whether it is one of both."""
        return isinstance(value, bool)

    def wrong(self, control: "Control") -> list[Any]:
        """Return values that are neither True nor False."""
        return [{}, "x", 2, 0.5]


class CodedKind(ControlKind):
    """A sequence of codes, int32 (p,), such as the characters of a text: at most `maximum` of the `choices`.

    An array (n, p) is as wide as the longest sequence, at least 1, and has -1 behind the others.
    """

    dtype, is_array, is_ragged, has_choices, has_bounds = "int32", True, True, True, True

    @abstractmethod
    def is_code(self, choice: str) -> bool:
        """Tell whether a choice is a code of this kind."""

    @abstractmethod
    def join(self, choices: Sequence[str]) -> str:
        """Return a sequence of choices as the plain value of a control."""

    def check_choices(self, control: "Control") -> None:
        """Raise ValueError where a choice is no code, or there is no maximum."""
        if control.maximum is None or not all(map(self.is_code, control.choices)):
            raise ValueError(
                f"the choices of a {self.name} control are the codes that it takes, and its maximum says how many"
            )

    def bounds(self, control: "Control") -> tuple[float, float]:
        """Return how many codes there may be."""
        return 0, math.floor(control.maximum or 0)

    def stack(self, control: "Control", values: Sequence[Sequence[int]]) -> Array:
        """Return codes (n, p)."""
        return encode(values)

    def examples(self, control: "Control", n: int, random: np.random.Generator) -> Array:
        """Return short sequences of the choices."""
        most = min(int(self.bounds(control)[1]), _MOST_CODES)
        drawn = [random.choice(control.choices, size) for size in random.integers(0, most, n, endpoint=True)]
        return self._of(control, drawn)

    def edges(self, control: "Control") -> Array:
        """Return an empty sequence, and one of the last choice alone."""
        return self._of(control, [[], [control.choices[-1]] * min(int(self.bounds(control)[1]), _MOST_EDGE)])

    def _of(self, control: "Control", drawn: Iterable[Sequence[str]]) -> Array:
        return self.stack(control, [self.decode(control, self.join(each), control.name) for each in drawn])


def listed(value: Any, name: str, most: int) -> Any:
    """Return a value for all items as it is, and values for each item as a list, without numpy's types.

    Raises:
        InvalidRequest: there are more than `most`.
    """
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    is_one = isinstance(value, str | bytes | bytearray | memoryview | Mapping | Set)
    if is_one or not isinstance(value, Iterable):
        return value
    values = list(islice(value, most + 1))
    if len(values) > most:
        raise InvalidRequest(f"{name} has more than {most} values, the most that one request can make.")
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def json_or_text(words: str) -> Any:
    """Return the value of JSON (3, 0.5, true, [1, 2]), or the words themselves."""
    try:
        return json.loads(words)
    except (ValueError, RecursionError):
        return words


_PLAIN = {kind.name: kind() for kind in (ChoiceKind, NumberKind, IntegerKind, FlagKind, SeedKind)}


def find_kind(name: str) -> ControlKind:
    """Return the kind of that name.

    Raises:
        UnknownName: there is none, and no plugin brings it.
        PluginError: the plugin that brings it fails.

    Example:
        >>> find_kind("choice").dtype
        'int64'
    """
    if plain := _PLAIN.get(name):
        return plain
    try:
        kind: ControlKind = default_registry().kind(name)
    except UnknownName:
        raise UnknownName.of("control kind", name, [*_PLAIN, *default_registry().kinds()]) from None
    return kind


def kind_of(control: "Control") -> ControlKind:
    """Return the kind of a control."""
    return find_kind(control.kind)
