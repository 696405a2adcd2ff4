"""Requests: what a caller asks for, checked against the model's card and turned into arrays."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.contents import Contents, Image, Music, read_pixels
from aigc_sdk.contents.codes import encode
from aigc_sdk.contents.events import encode as encode_notes
from aigc_sdk.contents.events import from_words, to_words
from aigc_sdk.contents.keys import KEYS, respelled
from aigc_sdk.errors import InvalidRequest, UnknownName, printable, shown
from aigc_sdk.files import as_path
from aigc_sdk.names import composed
from aigc_sdk.seeds import MAX_INDEX, check_seed, check_seeds, draw_seed, item_seeds

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import Control, ModelCard

# A request for more than this is refused: of content, and of items, which take some hundred bytes each besides.
MAX_CONTENT_BYTES = 2**32
MAX_ITEMS = 2**22

# Characters that an error names.
_EXAMPLES = 5

# Kinds of events that say how a note is played.
_PLAYED_BY = ("velocity", "instrument")
# Numbers of a kind of event that an error lists.
_SHOWN_NUMBERS = 50

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
        control.name: _pixels(controls[control.name], control, most)
        if control.is_pixels
        else _listed(controls[control.name], control.name, most)
        for control in card.controls
        if control.name in controls
    }
    if seeds is None:
        count = _count(n, given, most if is_whole else MAX_INDEX)
        first = draw_seed() if seed is None else check_seed(seed)
    elif n is not None or seed is not None:
        raise InvalidRequest("seeds gives one seed for each item; leave out n and seed.")
    else:
        listed = check_seeds(_listed(seeds, "seeds", most))
        count = len(listed)
    given = _with_openings(card, given, count)
    size, deadline = _batch_size(card, batch_size), _deadline(deadline_s)
    span = count if is_whole else min(size, count)
    per_item = {control.name: _is_per_item(given.get(control.name)) for control in card.controls}
    arrays = {c.name: _control_array(c, given, count if per_item[c.name] else span) for c in card.controls}

    def part(start: int) -> Request:
        rows = slice(start, min(start + span, count))
        drawn = item_seeds(first, rows.stop - start, start) if seeds is None else listed[rows]
        fed = {name: a[rows] if per_item[name] else a[: len(drawn)] for name, a in arrays.items()}
        return Request(card, drawn, fed, size, deadline)

    return map(part, range(0, count, span))


def check_names(card: ModelCard, controls: Iterable[str]) -> None:
    """Raise UnknownName for a name that is no control of the model's."""
    for name in controls:
        if card.control(name) is None:
            raise UnknownName.of(f"control of {card.name}", name, [control.name for control in card.controls])


def _most_items(card: ModelCard) -> int:
    item_bytes = math.prod(card.output.shape) * np.dtype(card.output.dtype).itemsize
    return min(MAX_ITEMS, MAX_CONTENT_BYTES // max(1, item_bytes))


def _listed(value: Any, name: str, most: int) -> Any:
    """Return a value for all items as it is, and values for each item as a list, without numpy's types."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    is_one = isinstance(value, str | bytes | bytearray | memoryview | Mapping | Set)
    if is_one or not isinstance(value, Iterable):
        return value
    values = list(islice(value, most + 1))
    if len(values) > most:
        raise InvalidRequest(f"{name} has more than {most} values, the most that one request can make.")
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _pixels(value: Any, control: Control, most: int) -> Array:
    """Return uint8 (height, width, channels), or (n, height, width, channels) where there is one for each item.

    Raises:
        InvalidRequest: it is nothing that pixels can be had from, or of another size.
    """
    if isinstance(value, Contents | list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 4):
        if not 1 <= len(value) <= most:
            raise InvalidRequest(f"{control.name} has {len(value)} values; give 1 to {most}.")
        return np.stack([_pixels_of_one(each, control, f"{control.name}[{i}]") for i, each in enumerate(value)])
    return _pixels_of_one(value, control, control.name)


def _pixels_of_one(value: Any, control: Control, where: str) -> Array:
    if isinstance(value, np.ndarray):
        pixels: Array = value
    else:
        pixels = value.data if isinstance(value, Image) else read_pixels(value, control.shape[2], where)
    if pixels.dtype == np.bool_:
        pixels = np.where(pixels, np.uint8(255), np.uint8(0))
    if pixels.ndim == 2 and control.shape[2] == 1:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.shape != control.shape:
        raise InvalidRequest(f"{where} is {pixels.dtype} {pixels.shape}; give {control.allowed}.")
    return pixels


def _count(n: int | None, given: Mapping[str, Any], most: int) -> int:
    if n is None:
        return next((len(value) for value in given.values() if _is_per_item(value) and len(value)), 1)
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= most:
        raise InvalidRequest(f"n is {shown(n)}; give the number of items, a whole number from 1 to {most}.")
    return int(n)


def _is_per_item(value: Any) -> bool:
    """Whether a listed value or an array of pixels is one for each item."""
    return isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim == 4)


def _control_array(control: Control, given: Mapping[str, Any], n: int) -> Array:
    value = given.get(control.name, control.default)
    if value is None and control.is_pixels:
        raise InvalidRequest(f"{control.name} is missing; give {control.allowed}.")
    if _is_per_item(value) and len(value) != n:
        raise InvalidRequest(f"{control.name} has {len(value)} values for {n} items; give one value, or {n}.")
    if control.is_coded:
        texts = value if isinstance(value, list) else [value]
        places = [f"{control.name}[{i}]" if isinstance(value, list) else control.name for i in range(len(texts))]
        known = _known_text if control.kind == "text" else _known_events
        codes = encode([known(control, text, where) for text, where in zip(texts, places, strict=True)])
        return np.broadcast_to(codes, (n, codes.shape[1]))
    if control.is_pixels:  # one for all items takes no more memory than one
        return np.broadcast_to(np.asarray(value, control.dtype), (n, *control.shape))
    if not isinstance(value, list):
        return np.full(n, _control_value(control, value, control.name), control.dtype)
    return np.array([_control_value(control, v, f"{control.name}[{i}]") for i, v in enumerate(value)], control.dtype)


def _control_value(control: Control, value: Any, where: str) -> bool | int | float:
    """Return one value of a control, or raise an error that says what is allowed."""
    if control.kind == "choice" and isinstance(value, str):
        return _choice(control, value, where)
    if not control.accepts(value):
        raise InvalidRequest(f"{where} is {shown(value)}; give {control.allowed}.")
    return value  # type: ignore[no-any-return]  # accepts() has looked at its type


def _choice(control: Control, value: str, where: str) -> int:
    """Return the index of a choice; a key may be spelled in another way, and an accent be part of its letter or not."""
    if value in control.choices:
        return control.choices.index(value)
    names = [composed(name) for name in control.choices]  # cards of before may have them in another form
    for name in (composed(value), respelled(value)):
        if name in names:
            return names.index(name)
    raise UnknownName.of(f"choice for {where}", value, control.choices)


def _known_text(control: Control, value: Any, where: str) -> str:
    """Return a text that a model can be fed, or raise an error that names the characters that it does not know."""
    if isinstance(value, str) and len(value) <= control.range[1]:
        if not (unknown := sorted(set(value).difference(control.choices))):
            return value
        some = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:_EXAMPLES])
        more = f" and {len(unknown) - _EXAMPLES} more" if len(unknown) > _EXAMPLES else ""
        raise InvalidRequest(f"{where} has characters that the model does not know: {printable(some)}{more}.")
    found = f"a text of {len(value)} characters" if isinstance(value, str) else shown(value)
    raise InvalidRequest(f"{where} is {found}; give {control.allowed}.")


@dataclass(frozen=True)
class _Opening:
    """What a piece says that is a prompt: its events in words, and key, metre and tempo, or None."""

    words: str
    key: str | None
    meter: str | None
    tempo: float | None


def _with_openings(card: ModelCard, given: dict[str, Any], n: int) -> dict[str, Any]:
    """Return what was given with the pieces in it read; they say key, metre and tempo where nothing else does."""
    name = next((control.name for control in card.controls if control.kind == "music"), "")
    if name not in given:
        return given
    told = [control for control in card.controls if control.name in ("key", "meter", "tempo")]
    if isinstance(value := given[name], list):
        if len(value) != n:  # an error, which is about this control and no other
            return given
        read = [_opening(each, f"{name}[{i}]") for i, each in enumerate(value)]
        return {control.name: [_told(each, control) for each in read] for control in told} | given | {name: read}
    one = _opening(value, name)
    return {control.name: _told(one, control) for control in told} | given | {name: one}


def _told(opening: Any, control: Control) -> Any:
    value = getattr(opening, control.name, None)
    return value if value in control.choices or control.accepts(value) else control.default


def _opening(value: Any, where: str) -> Any:
    """Read a piece or the path of a MIDI file; return anything else as it is."""
    if isinstance(value, Music):
        if not len(value.data):
            raise InvalidRequest(f"{where} is a piece without notes; give one with some, or leave {where} out.")
        return _Opening(to_words(encode_notes(value.to_ticks())), value.key, value.meter, value.tempo)
    if not isinstance(value, os.PathLike) and not (
        isinstance(value, str) and value.lower().endswith((".mid", ".midi", ".rmi"))
    ):
        return value
    from aigc_sdk.data.images import Rejected
    from aigc_sdk.data.midi import read_midi
    from aigc_sdk.data.music import checked

    path = as_path(value, where)
    if not os.path.isfile(path):
        raise InvalidRequest(f"{where} is {path}, and there is no such file.")
    read = checked(read_midi(str(path)))
    if isinstance(read, Rejected):
        raise InvalidRequest(f"{where} is {path}, which cannot be used: {': '.join(filter(None, read))}.")
    notes, key, meter, tempo, flaws = read
    if flaws:
        warnings.warn(f"{where}: not all of {path} was read: {'; '.join(flaws)}.", stacklevel=2)
    return _Opening(to_words(encode_notes(notes)), None if key is None else KEYS[key], meter, tempo)


def _known_events(control: Control, value: Any, where: str) -> list[int]:
    """Return the events of a piece, or of their names, that a model can be fed."""
    by_kind: dict[str, list[str]] = {}
    for choice in control.choices:
        kind, _, number = choice.partition(" ")
        by_kind.setdefault(kind, []).append(number)
    if isinstance(value, _Opening):
        # A model of one velocity or one instrument has no events for them.
        left_out = [kind for kind in _PLAYED_BY if kind not in by_kind]
        names = value.words.split(", ")
        value = ", ".join(name for name in names if name.partition(" ")[0] not in left_out)
    if control.accepts(value):
        return [*map(int, from_words(value))]
    found = {name.strip() for name in value.split(",") if name.strip()} if isinstance(value, str) else set()
    if unknown := sorted(found.difference(control.choices)):
        kinds = sorted({name.partition(" ")[0] for name in unknown} & by_kind.keys())
        known = [f"{kind} {', '.join(sorted(by_kind[kind], key=int)[:_SHOWN_NUMBERS])}" for kind in kinds]
        raise InvalidRequest(
            f"{where} has {printable(', '.join(unknown[:_EXAMPLES]))}, which the model does not know; give"
            f" {control.allowed}: {'; '.join(known) or ', '.join(by_kind)}."
        )
    given = f"{value.count(',') + 1:,} events" if found else shown(value)
    raise InvalidRequest(f"{where} is {given}; give {control.allowed}.")


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
