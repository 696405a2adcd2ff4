"""Requests: what a caller asks for, checked against the model's card and turned into arrays."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidRequest, UnknownName, shown
from aigc_sdk.kinds import kind_of, listed
from aigc_sdk.modality import find_modality
from aigc_sdk.seeds import MAX_INDEX, check_seed, check_seeds, draw_seed, item_seeds

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import Control, ModelCard

# A request for more than this is refused: of content, and of items, which take some hundred bytes each besides.
MAX_CONTENT_BYTES = 2**32
MAX_ITEMS = 2**22

# A deadline farther off than this, some 30 years, is none: threads cannot wait as long as a float can say.
_MAX_DEADLINE_S = 1e9

# Values of content that one run makes at most, unless a single item has more: bounds the memory of a run.
_BATCH_VALUES = 2**18
_BATCH_ITEMS = 256

Array = NDArray[Any]


@dataclass(frozen=True)
class Request:
    """A request for n items, complete: every control of the card is there, as an array (n, *shape) of its dtype."""

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
    one = build_requests(
        card, n, seed=seed, seeds=seeds, batch_size=batch_size, deadline_s=deadline_s, controls=controls, is_whole=True
    )
    return next(one)


def build_requests(
    card: ModelCard,
    n: int | None,
    *,
    seed: int | None,
    seeds: Iterable[int] | None,
    batch_size: int | None,
    deadline_s: float | None,
    controls: Mapping[str, Any],
    is_whole: bool = False,
) -> Iterator[Request]:
    """Check what the caller asked for, and return a request for each batch of it, made when it is its turn.

    Together they are the one that `build_request` makes, which is what comes with `is_whole`; but n may be as large
    as an item's index, and the deadline is that of each.

    Raises:
        UnknownName, InvalidRequest: as `build_request`, and now, not when the iteration starts.
    """
    check_names(card, controls)
    most = _most_items(card) if is_whole else MAX_ITEMS
    given = {
        control.name: kind_of(control).split(control, controls[control.name], most)
        for control in card.controls
        if control.name in controls
    }
    if seeds is None:
        count = _count(n, given, most if is_whole else MAX_INDEX)
        first = draw_seed() if seed is None else check_seed(seed)
    elif n is not None or seed is not None:
        raise InvalidRequest("seeds gives one seed for each item; leave out n and seed.")
    else:
        each = check_seeds(listed(seeds, "seeds", most))
        count = len(each)
    given = _with_implied(card, _respelled(card, given), count)
    size, deadline = _batch_size(card, batch_size), _deadline(deadline_s)
    span = count if is_whole else min(size, count)
    per_item = {control.name: isinstance(given.get(control.name), list) for control in card.controls}
    arrays = {c.name: _control_array(c, given, count if per_item[c.name] else span) for c in card.controls}

    def part(start: int) -> Request:
        rows = slice(start, min(start + span, count))
        drawn = item_seeds(first, rows.stop - start, start) if seeds is None else each[rows]
        fed = {name: a[rows] if per_item[name] else a[: len(drawn)] for name, a in arrays.items()}
        return Request(card, drawn, fed, size, deadline)

    return map(part, range(0, count, span))


def check_names(card: ModelCard, controls: Iterable[str]) -> None:
    """Raise UnknownName for a name that is no control of the model's."""
    for name in controls:
        _control(card, name)


def _most_items(card: ModelCard) -> int:
    item_bytes = math.prod(card.output.shape) * np.dtype(card.output.dtype).itemsize
    return min(MAX_ITEMS, MAX_CONTENT_BYTES // max(1, item_bytes))


def _count(n: int | None, given: Mapping[str, Any], most: int) -> int:
    if n is None:
        return next((len(value) for value in given.values() if isinstance(value, list) and value), 1)
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= most:
        raise InvalidRequest(f"n is {shown(n)}; give the number of items, a whole number from 1 to {most}.")
    return int(n)


def _with_implied(card: ModelCard, given: dict[str, Any], n: int) -> dict[str, Any]:
    """Return what was given, with what its values say of controls that were not given; a piece says its key."""
    implied: dict[str, Any] = {}
    for name, value in given.items():
        kind, is_per_item = kind_of(_control(card, name)), isinstance(value, list)
        if not kind.implies or (is_per_item and len(value) != n):  # which is an error about this control alone
            continue
        told = [kind.implied(each) for each in (value if is_per_item else [value])]
        for other in card.controls:
            if other.name in kind.implies:
                values = [_or_default(other, each[other.name]) for each in told]
                implied[other.name] = values if is_per_item else values[0]
    return implied | given


def _respelled(card: ModelCard, given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given, with choices under the names that the card has for them; people spell keys otherwise."""
    modality = find_modality(card.modality)

    def named(control: Control, value: Any) -> Any:
        is_other = isinstance(value, str) and control.choices and value not in control.choices
        return other if is_other and (other := modality.respelled(value)) in control.choices else value

    def all_named(control: Control, value: Any) -> Any:
        return [named(control, each) for each in value] if isinstance(value, list) else named(control, value)

    return {name: all_named(_control(card, name), value) for name, value in given.items()}


def _or_default(control: Control, value: Any) -> Any:
    return value if value in control.choices or control.accepts(value) else control.default


def _control(card: ModelCard, name: str) -> Control:
    """Return the control of that name, or raise UnknownName."""
    if control := card.control(name):
        return control
    raise UnknownName.of(f"control of {card.name}", name, [control.name for control in card.controls])


def _control_array(control: Control, given: Mapping[str, Any], n: int) -> Array:
    value, kind = given.get(control.name, control.default), kind_of(control)
    if isinstance(value, list):
        if len(value) != n:
            raise InvalidRequest(f"{control.name} has {len(value)} values for {n} items; give one value, or {n}.")
        return kind.stack(control, [kind.decode(control, v, f"{control.name}[{i}]") for i, v in enumerate(value)])
    one = kind.stack(control, [kind.decode(control, value, control.name)])
    # One array for all items takes no more memory than one.
    return np.broadcast_to(one, (n, *one.shape[1:])) if kind.is_array else np.repeat(one, n)


def _batch_size(card: ModelCard, batch_size: int | None) -> int:
    if batch_size is None:
        return max(1, min(_BATCH_ITEMS, _BATCH_VALUES // max(1, math.prod(card.output.shape))))
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InvalidRequest(f"batch_size is {shown(batch_size)}; give a whole number of at least 1.")
    return int(batch_size)


def ends_at(deadline_s: float | None) -> float | None:
    """Return when a call that begins now has to have ended, in seconds of `time.monotonic`; None for never.

    Raises:
        InvalidRequest: deadline_s is no number of seconds above 0.
    """
    seconds = _deadline(deadline_s)
    return None if seconds is None else time.monotonic() + seconds


def _deadline(deadline_s: float | None) -> float | None:
    if deadline_s is None:
        return None
    is_number = isinstance(deadline_s, int | float | np.integer | np.floating) and not isinstance(deadline_s, bool)
    if not is_number or not deadline_s > 0:
        raise InvalidRequest(f"deadline_s is {shown(deadline_s)}; give seconds above 0, or None for no deadline.")
    return float(deadline_s) if deadline_s <= _MAX_DEADLINE_S else None
