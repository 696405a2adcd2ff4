"""Music: notes float32 (n, 6) with the tempo, the metre and the key that they are written in."""

import html
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aigc_music.events import DRUMS, PROGRAMS, TICKS, VOICES, Notes, in_order
from aigc_music.keys import KEYS, key_sharps
from aigc_sdk.contents import PROVENANCE_KEY, Item, Origin
from aigc_sdk.errors import GenerationFailed, InvalidRequest, missing_package, shown
from aigc_sdk.exhibits import Exhibit
from aigc_sdk.files import as_path, atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_MIDI_TICKS = 480  # of a quarter note
DRUMS_CHANNEL = 9

# The largest value of each column that a note may have.
_MOST = (127, 127, 10**6, 10**6, VOICES - 1, PROGRAMS - 1)

# Seconds of the longest piece that is written as sound, and of what a notebook plays of one.
_MOST_SOUND_S, _PLAYED_S = 3600, 60

# The names that MIDI has for signatures: five flats to six sharps.
_SIGNATURES = ("Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#")


class Music(Item):
    """One generated piece.

    `data` holds its notes, float32 (n, 6), sorted by onset and pitch: pitch (MIDI), velocity (0 to 127), onset and
    duration (seconds), voice, program (128 for drums). `tempo` is in quarter notes a minute; `meter`, such as "6/8",
    and `key`, such as "Em", are None where the model has none.
    """

    __slots__ = ("key", "meter", "tempo")

    suffixes: ClassVar[tuple[str, ...]] = (".mid", ".wav", ".musicxml")
    shown: ClassVar[int] = 4  # each brings its sound

    def __init__(
        self,
        data: NDArray[np.float32],
        seed: int,
        origin: Origin,
        controls: tuple[Any, ...],
        parts: Mapping[str, Any],
    ) -> None:
        super().__init__(data, seed, origin, controls)
        beats, unit = parts["meter"]
        self.tempo = float(parts["tempo"])
        self.meter = f"{beats}/{unit}" if beats else None
        self.key = KEYS[parts["key"]] if parts["key"] >= 0 else None

    def __repr__(self) -> str:
        parts = [self.key, self.meter, f"{self.tempo:g} quarter notes a minute", f"{len(self.data)} notes"]
        return f"<Music {', '.join(part for part in parts if part)}>"

    def to_ticks(self) -> Notes:
        """Return the notes, int64 (n, 6), with onset and duration in 48ths of a quarter note.

        Raises:
            GenerationFailed: a number is none that a note may have.
        """
        notes = self._checked().astype(np.float64)
        notes[:, 2:4] *= self.tempo / 60 * TICKS
        rounded = np.rint(notes).astype(np.int64)
        rounded[:, 3] = np.maximum(rounded[:, 3], 1)
        return in_order(rounded)

    def _checked(self) -> NDArray[np.float32]:
        notes: NDArray[np.float32] = self.data
        if not (np.isfinite(notes).all() and (notes >= 0).all() and (notes <= _MOST).all() and self.tempo > 0):
            raise GenerationFailed("The model made notes of which a pitch, a time or a program is out of range.")
        return notes

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the piece as .mid, with its provenance inside, or as .wav or .musicxml with it in PATH.json.

        Raises:
            InvalidRequest: the suffix is another one, or the sound would be longer than an hour.
            MissingPackage: mido, or for .musicxml music21, is not installed.
            GenerationFailed: a number is none that a note may have.
            StorageError: the file cannot be written.
        """
        target = as_path(path, "path")
        suffix = target.suffix.lower()
        if suffix not in self.suffixes:
            raise InvalidRequest(f"Cannot save music as {shown(target.name)}; use {', '.join(self.suffixes)}.")
        if suffix == ".mid":
            data = self.midi_bytes()
        else:
            from aigc_music.sound import musicxml_bytes

            data = self.wav_bytes() if suffix == ".wav" else musicxml_bytes(self)
        with atomic_write(target) if suffix == ".mid" else self.with_sidecar(target) as temporary:
            temporary.write_bytes(data)
        return target

    def midi_bytes(self) -> bytes:
        """Return the piece as a MIDI file, a track for each voice, with its provenance in a text event."""
        try:
            import mido
        except ImportError as error:
            raise missing_package("Saving MIDI", "mido", "music") from error

        file = mido.MidiFile(ticks_per_beat=_MIDI_TICKS)
        head = mido.MidiTrack()
        head.append(mido.MetaMessage("text", text=f"{PROVENANCE_KEY}={self.provenance_json(ascii_only=True)}"))
        head.append(mido.MetaMessage("set_tempo", tempo=min(round(6e7 / self.tempo), 2**24 - 1)))
        if self.meter:
            beats, unit = map(int, self.meter.split("/"))
            head.append(mido.MetaMessage("time_signature", numerator=beats, denominator=unit))
        if self.key:
            # MIDI knows major and minor; another mode is the major key of its signature.
            signature = self.key if self.key.endswith("m") else _SIGNATURES[5 + key_sharps(self.key)]
            head.append(mido.MetaMessage("key_signature", key=signature))
        file.tracks.append(head)
        notes = self.to_ticks()
        for voice in np.unique(notes[:, 4]).tolist():
            file.tracks.append(mido.MidiTrack(_messages(mido, notes[notes[:, 4] == voice], voice)))
        stream = io.BytesIO()
        file.save(file=stream)
        return stream.getvalue()

    def wav_bytes(self) -> bytes:
        """Return the piece as a WAV file; raises InvalidRequest when it is longer than an hour."""
        from aigc_music.sound import wav_bytes

        notes = self._checked()
        if (end := float(notes[:, 2:4].sum(1).max(initial=0))) > _MOST_SOUND_S:
            raise InvalidRequest(f"The piece lasts {end / 3600:.1f} hours, as sound at most one; save it as .mid.")
        return wav_bytes(notes)

    def to_pil(self) -> "PilImage":
        """Return a piano roll: time to the right, pitch upwards, a colour for each voice, a line for each bar."""
        from aigc_music.sound import piano_roll

        return piano_roll(self.to_ticks(), self.meter)

    def exhibits(self) -> list[Exhibit]:
        """Return the piano roll, and the sound of the first minute."""
        from aigc_music.sound import wav_bytes

        notes = self._checked()
        played = notes[notes[:, 2] < _PLAYED_S].copy()
        played[:, 3] = np.minimum(played[:, 3], _PLAYED_S - played[:, 2])
        roll = io.BytesIO()
        self.to_pil().save(roll, "PNG")
        more = "" if np.array_equal(played, notes) else ", of which the first minute is played"
        return [
            Exhibit("image/png", roll.getvalue(), "piano roll"),
            Exhibit("audio/wav", wav_bytes(played), f"{repr(self)[1:-1]}{more}"),
        ]

    def _repr_html_(self) -> str:
        """Show the piano roll in a notebook, and a player of the first minute."""
        exhibits = self.exhibits()
        return f"{'<br>'.join(each.to_html() for each in exhibits)}<br>{html.escape(exhibits[-1].caption)}"


def _messages(mido: Any, notes: Notes, voice: int) -> list[Any]:
    """Return the messages of one voice, each with the time since the one before; a note ends where its pitch begins."""
    scale = _MIDI_TICKS // TICKS
    timed = list[tuple[int, int, Any]]()
    ends = dict[tuple[int, int], int]()  # (channel, pitch) -> when it is struck again
    for pitch, velocity, onset, duration, _, program in notes[::-1].tolist():
        channel = DRUMS_CHANNEL if program == DRUMS else voice + (voice >= DRUMS_CHANNEL and voice < VOICES - 1)
        end = min(onset + duration, ends.get((channel, pitch), onset + duration))
        if end <= onset:  # two at once sound as one
            continue
        ends[channel, pitch] = onset
        on, off = (mido.Message(f"note_{kind}", channel=channel, note=pitch) for kind in ("on", "off"))
        timed += [(scale * onset, 2, on.copy(velocity=max(velocity, 1))), (scale * end, 0, off)]
        if program != DRUMS:
            timed.append((scale * onset, 1, mido.Message("program_change", channel=channel, program=program)))
    messages, now, last = list[Any](), 0, None
    for time, _, message in sorted(timed, key=lambda each: each[:2]):
        if message.type == "program_change":
            if message.program == last:
                continue
            last = message.program
        messages.append(message.copy(time=time - now))
        now = time
    return messages
