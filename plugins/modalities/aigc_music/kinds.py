"""The control kind `music`: a piece that a model goes on from."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aigc_music.events import encode, event_code, from_words, to_words
from aigc_music.item import Music
from aigc_music.keys import KEYS
from aigc_sdk.errors import InvalidRequest, printable, shown
from aigc_sdk.files import as_path
from aigc_sdk.kinds import NAMED, Array, CodedKind, listed

if TYPE_CHECKING:
    from aigc_sdk.card import Control

# Kinds of events that say how a note is played.
_PLAYED_BY = ("velocity", "instrument")
# Numbers of a kind of event that an error lists.
_SHOWN_NUMBERS = 50


@dataclass(frozen=True)
class Opening:
    """What a piece says that is a prompt: its events in words, and key, metre and tempo, or None."""

    words: str
    key: str | None
    meter: str | None
    tempo: float | None


class MusicKind(CodedKind):
    """Events of music, int32 (p,), of the kinds in `choices`; see `aigc_music.events`."""

    name, implies = "music", ("key", "meter", "tempo")

    def is_code(self, choice: str) -> bool:
        """Tell whether it is the name of an event."""
        return event_code(choice) >= 0

    def join(self, choices: Sequence[str]) -> str:
        """Return events in words."""
        return ", ".join(choices)

    def allowed(self, control: "Control") -> str:
        """Return in which forms it may come, and how long it may be."""
        return (
            f"a generated piece, a .mid file, or events such as 'duration 24, note 62', at most"
            f" {self.bounds(control)[1]}, of the {len(control.choices)} kinds that the model knows"
        )

    def accepts(self, control: "Control", value: object) -> bool:
        """Tell whether they are events in words that the model knows."""
        names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else None
        most = self.bounds(control)[1]
        return names is not None and len(names) <= most and not set(names).difference(control.choices)

    def split(self, control: "Control", value: Any, most: int) -> Any:
        """Return pieces and paths of MIDI files as an Opening each, and anything else as it is."""
        given = listed(value, control.name, most)
        if isinstance(given, list):
            return [_opening(each, f"{control.name}[{i}]") for i, each in enumerate(given)]
        return _opening(given, control.name)

    def implied(self, value: Any) -> Mapping[str, Any]:
        """Return the key, metre and tempo of a piece; None where it says none."""
        return dict.fromkeys(self.implies) | (
            {"key": value.key, "meter": value.meter, "tempo": value.tempo} if isinstance(value, Opening) else {}
        )

    def decode(self, control: "Control", value: Any, where: str) -> list[int]:
        """Return the events of a piece, or of their names."""
        by_kind: dict[str, list[str]] = {}
        for choice in control.choices:
            kind, _, number = choice.partition(" ")
            by_kind.setdefault(kind, []).append(number)
        if isinstance(value, Opening):
            # A model of one velocity or one instrument has no events for them.
            left_out = [kind for kind in _PLAYED_BY if kind not in by_kind]
            names = value.words.split(", ")
            value = ", ".join(name for name in names if name.partition(" ")[0] not in left_out)
        if self.accepts(control, value):
            return [*map(int, from_words(value))]
        found = {name.strip() for name in value.split(",") if name.strip()} if isinstance(value, str) else set()
        if others := sorted(found.difference(control.choices)):
            kinds = sorted({name.partition(" ")[0] for name in others} & by_kind.keys())
            known = [f"{kind} {', '.join(sorted(by_kind[kind], key=int)[:_SHOWN_NUMBERS])}" for kind in kinds]
            raise InvalidRequest(
                f"{where} has {printable(', '.join(others[:NAMED]))}, which the model does not know; give"
                f" {self.allowed(control)}: {'; '.join(known) or ', '.join(by_kind)}."
            )
        given = f"{value.count(',') + 1:,} events" if found else shown(value)
        raise InvalidRequest(f"{where} is {given}; give {self.allowed(control)}.")

    def record(self, row: Array) -> str:
        """Return the events in words."""
        return to_words(row)

    def wrong(self, control: "Control") -> list[Any]:
        """Return what is no piece, too long, or of events that there are not."""
        too_long = self.join([control.choices[0]] * (int(self.bounds(control)[1]) + 1))
        return [{}, 7, None, too_long, "note 128", "x", "no.mid"]


def _opening(value: Any, where: str) -> Any:
    """Read a piece or the path of a MIDI file; return anything else as it is."""
    if isinstance(value, Music):
        if not len(value.data):
            raise InvalidRequest(f"{where} is a piece without notes; give one with some, or leave {where} out.")
        return Opening(to_words(encode(value.to_ticks())), value.key, value.meter, value.tempo)
    if not isinstance(value, os.PathLike) and not (
        isinstance(value, str) and value.lower().endswith((".mid", ".midi", ".rmi"))
    ):
        return value
    from aigc_music.data import checked
    from aigc_music.midi import read_midi
    from aigc_sdk.data.dataset import Rejected

    path = as_path(value, where)
    if not os.path.isfile(path):
        raise InvalidRequest(f"{where} is {path}, and there is no such file.")
    read = checked(read_midi(str(path)))
    if isinstance(read, Rejected):
        raise InvalidRequest(f"{where} is {path}, which cannot be used: {': '.join(filter(None, read))}.")
    notes, key, meter, tempo, flaws = read
    if flaws:
        warnings.warn(f"{where}: not all of {path} was read: {'; '.join(flaws)}.", stacklevel=2)
    return Opening(to_words(encode(notes)), None if key is None else KEYS[key], meter, tempo)
