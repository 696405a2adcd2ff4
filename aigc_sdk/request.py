"""Requests: what a caller asks for, checked against the model's card and turned into arrays."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.card import Control, ModelCard
from aigc_sdk.errors import InvalidRequest, UnknownName
from aigc_sdk.seeds import check_seed, check_seeds, draw_seed, item_seeds

# More content than this is refused before the run.
MAX_CONTENT_BYTES = 2**32

# Values of content that one run makes at most, unless a single item has more: bounds the memory of a run.
_BATCH_VALUES = 2**18
_BATCH_ITEMS = 256

Array = NDArray[Any]


@dataclass(frozen=True)
class Request:
    """A request for n items, complete: every control of the card is there, as an array (n,) of its dtype."""

    card: ModelCard
    seeds: NDArray[np.int64]
    controls: Mapping[str, Array]
    batch_size: int
    deadline_s: float | None

    @property
    def n(self) -> int:
        """The number of items."""
        return len(self.seeds)


def build_request(
    card: ModelCard,
    n: int | None,
    *,
    seed: int | None,
    seeds: Iterable[int] | None,
    batch_size: int | None,
    deadline_s: float | None,
    controls: Mapping[str, Any],
) -> Request:
    """Check what the caller asked for and fill in what was left out.

    Raises:
        UnknownName: a control or choice that the model does not have.
        InvalidRequest: anything else that cannot be used; names it and its allowed range.
    """
    for name in controls:
        if card.control(name) is None:
            raise UnknownName.of(f"control of {card.name}", name, [control.name for control in card.controls])
    given = {name: _listed(value) for name, value in controls.items()}
    if seeds is not None:
        if n is not None or seed is not None:
            raise InvalidRequest("seeds gives one seed for each item; leave out n and seed.")
        drawn = check_seeds(seeds)
        count = len(drawn)
    else:
        count = _count(n, given)
        _check_size(card, count)
        drawn = item_seeds(draw_seed() if seed is None else check_seed(seed), count)
    return Request(
        card,
        drawn,
        {control.name: _control_array(control, given, count) for control in card.controls},
        _batch_size(card, batch_size),
        _deadline(deadline_s),
    )


def _listed(value: Any) -> Any:
    """Return a value for all items as it is, and values for each item as a list."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if isinstance(value, str | bytes) or not isinstance(value, Iterable) else list(value)


def _count(n: int | None, given: Mapping[str, Any]) -> int:
    if n is None:
        return next((len(value) for value in given.values() if isinstance(value, list) and value), 1)
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InvalidRequest(f"n is {n!r}; give the number of items, a whole number of at least 1.")
    return int(n)


def _check_size(card: ModelCard, n: int) -> None:
    size_bytes = n * math.prod(card.output.shape) * np.dtype(card.output.dtype).itemsize
    if size_bytes > MAX_CONTENT_BYTES:
        raise InvalidRequest(
            f"{n} items of {card.name} are {size_bytes / 2**30:.1f} GiB; one request makes at most"
            f" {MAX_CONTENT_BYTES / 2**30:.0f} GiB. Ask for fewer, several times."
        )


def _control_array(control: Control, given: Mapping[str, Any], n: int) -> Array:
    value = given.get(control.name, control.default)
    if not isinstance(value, list):
        return np.full(n, _control_value(control, value, control.name), control.dtype)
    if len(value) != n:
        raise InvalidRequest(f"{control.name} has {len(value)} values for {n} items; give one value, or {n}.")
    return np.array([_control_value(control, v, f"{control.name}[{i}]") for i, v in enumerate(value)], control.dtype)


def _control_value(control: Control, value: Any, where: str) -> bool | int | float:
    """Return one value of a control, or raise an error that says what is allowed."""
    if control.kind == "seed":
        return check_seed(value, where)
    if control.kind == "choice" and isinstance(value, str):
        if value not in control.choices:
            raise UnknownName.of(f"choice for {where}", value, control.choices)
        return control.choices.index(value)
    wanted: tuple[type, ...] = {"flag": (bool,), "number": (int, float)}.get(control.kind, (int,))
    low, high = control.range
    if not isinstance(value, wanted) or (isinstance(value, bool) and control.kind != "flag") or not low <= value <= high:
        raise InvalidRequest(f"{where} is {value!r}; {_allowed(control)}.")
    if control.kind == "number" and not abs(value) <= np.finfo(np.float32).max:
        raise InvalidRequest(f"{where} is {value!r}; {_allowed(control)}.")
    return value


def _allowed(control: Control) -> str:
    low, high = control.range
    match control.kind:
        case "choice":
            return f"give one of {', '.join(control.choices)}, its index from 0 to {high:.0f}, or -1 to leave it to the seed"
        case "flag":
            return "give True or False"
        case "integer":
            return f"give a whole number from {low:g} to {high:g}"
    return f"give a number from {low:g} to {high:g}"


def _batch_size(card: ModelCard, batch_size: int | None) -> int:
    if batch_size is None:
        return max(1, min(_BATCH_ITEMS, _BATCH_VALUES // max(1, math.prod(card.output.shape))))
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidRequest(f"batch_size is {batch_size!r}; give a whole number of at least 1.")
    return batch_size


def _deadline(deadline_s: float | None) -> float | None:
    if deadline_s is None:
        return None
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not deadline_s > 0:
        raise InvalidRequest(f"deadline_s is {deadline_s!r}; give seconds above 0, or None for no deadline.")
    return float(deadline_s)
