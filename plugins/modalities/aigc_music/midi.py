"""MIDI files as notes with key, metre and tempo, by a reader of our own: one bad event costs itself, not the piece.

The Standard MIDI File, of type 0 or 1, alone or inside of RIFF (.rmi). Notes, programs, tempos, metres and key
signatures are read, and the sustain pedal where that is asked for; no other controllers, and no pitch bend.
"""

import struct
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aigc_music.events import DRUMS, METER_UNITS, TICKS, VOICES, Notes, bar_ticks
from aigc_music.item import DRUMS_CHANNEL
from aigc_music.keys import MODES
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.errors import reason

MIDI_SUFFIXES = (".mid", ".midi", ".rmi")

_OFF, _ON, _CONTROL, _PROGRAM, _META = 0x80, 0x90, 0xB0, 0xC0, 0xFF
_END, _TEMPO, _METER, _KEY = 0x2F, 0x51, 0x58, 0x59
_PEDAL = 64
# How many bytes follow a status; those of a channel by their upper half.
_SIZES = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}
_SYSTEM_SIZES = {0xF1: 1, 0xF2: 2, 0xF3: 1}
# Microseconds of a quarter note: before the first tempo, and the least, which is 1,000 quarter notes a minute.
_FIRST_TEMPO, _LEAST_TEMPO = 500_000, 60_000
_MINOR = list(MODES).index("m")


class MidiRead(NamedTuple):
    """What a MIDI file says.

    Attributes:
        notes: int64 (n, 6), see `aigc_music.events`; time 0 is a bar line.
        key: index in KEYS, or None.
        meter: for example "6/8".
        tempo: quarter notes a minute, or None.
        flaws: what of it was not read although the rest was, in words.
    """

    notes: Notes
    key: int | None
    meter: str
    tempo: float | None
    flaws: tuple[str, ...] = ()


class _Event(NamedTuple):
    tick: int
    track: int
    status: int  # of a meta event 0xFF
    data: bytes  # of a meta event its type and what it holds


class _Sounding(NamedTuple):
    tick: int
    velocity: int
    program: int


def read_midi(path: str, pedal: bool = False) -> MidiRead | Rejected:
    """Read a MIDI file: each channel of a track is a voice, with programs of its own.

    A note ends at the first note-off of its pitch behind the tick that it began at; of several that sound, the oldest
    does. What of an event makes no sense is left out and told in `flaws`.

    Args:
        path: of the file.
        pedal: whether the sustain pedal prolongs notes.
    """
    try:
        data = _unpacked(Path(path).read_bytes())
        if data[:4] != b"MThd" or len(data) < 14:
            return Rejected("unreadable", "it does not begin as MIDI does")
        size, kind, count, division = struct.unpack(">LHHH", data[4:14])
        if kind == 2:
            return Rejected("MIDI of type 2", "its tracks are songs of their own; save each as a file")
        if division >= 0x8000 or not division:
            return Rejected("MIDI in film frames", "its times are no parts of a quarter note")
        tracks, flaws = _tracks(data, 8 + size, count)
        events = [each for i, track in enumerate(tracks) for each in _events(track, i)]
    except (OSError, ValueError) as error:
        return Rejected("unreadable", reason(error))
    return _piece(events, division, pedal, flaws)


def _unpacked(data: bytes) -> bytes:
    """Return the MIDI file inside of RIFF, or what is none as it is."""
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise ValueError("its RIFF holds no MIDI")


def _tracks(data: bytes, at: int, count: int) -> tuple[list[bytes], list[str]]:
    """Return what each track holds, and what is wrong; chunks of other kinds are passed over, as the standard wants."""
    found = list[bytes]()
    while len(found) < count and at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        if data[at : at + 4] == b"MTrk":
            if at + 8 + size > len(data):
                raise ValueError(f"track {len(found)} is cut off: {len(data) - at - 8:,} of {size:,} bytes")
            found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    if len(found) < count:
        raise ValueError(f"it has {len(found)} tracks and says {count}")
    return found, [f"tracks behind the {count} that it says it has"] * (data[at : at + 4] == b"MTrk")


def _events(track: bytes, number: int) -> Iterator[_Event]:
    """Yield the events of a track up to its end; raises ValueError where it breaks off or makes no sense."""
    at = tick = running = 0
    try:
        while at < len(track):
            wait, at = _number(track, at)
            tick += wait
            status = track[at]
            if status >= 0x80:
                at += 1
            else:
                status = running
            if status in (_META, 0xF0, 0xF7):
                first = at
                size, at = _number(track, at + (status == _META))
                held, at = track[at : at + size], at + size
                if at > len(track):
                    raise IndexError
                if status == _META:
                    yield _Event(tick, number, _META, track[first : first + 1] + held)
                    if track[first] == _END:
                        return
                continue
            size = _SYSTEM_SIZES.get(status, 0) if status >= 0xF0 else _SIZES.get(status & 0xF0, -1)
            if size < 0:
                raise ValueError(f"track {number}, byte {at}: data without a status")
            held, at = track[at : at + size], at + size
            if at > len(track):
                raise IndexError
            if max(held, default=0) > 127:
                raise ValueError(f"track {number}, byte {at}: {max(held)} where at most 127 may stand")
            if status < 0xF0:
                running = status
                yield _Event(tick, number, status, held)
    except IndexError:
        raise ValueError(f"track {number} ends in the middle of an event") from None


def _number(track: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length and where it ends."""
    value = 0
    for size in range(4):
        byte = track[at + size]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + size + 1
    raise ValueError("a number of more than four bytes")


def _piece(events: list[_Event], division: int, pedal: bool, flaws: list[str]) -> MidiRead:
    rows, of_notes = _notes(events, pedal)
    flaws += of_notes
    end = max((row[3] for row in rows), default=0)
    changes: dict[int, dict[int, bytes]] = {_TEMPO: {}, _METER: {}, _KEY: {}}
    for event in sorted(events, key=lambda each: each.tick):  # which keeps the order of tracks
        kind = event.data[0] if event.status == _META else 0
        if kind in changes:
            if flaw := _flaw(kind, event.data[1:]):
                flaws.append(f"{flaw}, at tick {event.tick}")
            else:
                changes[kind][event.tick] = event.data[1:]  # of several at one tick the last
    meter, line = _meter(changes[_METER], end)
    notes = np.array(rows, np.float64).reshape(-1, 6)
    notes[:, 2:4] = np.rint(notes[:, 2:4] / division * TICKS)
    notes[:, 3] = np.maximum(notes[:, 3] - notes[:, 2], 1)
    notes[:, 2] += -round(line / division * TICKS) % bar_ticks(meter)
    keys = changes[_KEY]
    key = _key(keys[min(keys)]) if keys else None
    return MidiRead(notes.astype(np.int64), key, meter, _tempo(changes[_TEMPO], end), tuple(flaws))


def _notes(events: list[_Event], pedal: bool) -> tuple[list[list[int]], list[str]]:
    """Return pitch, velocity, begin, end (in ticks of the file), voice and program of all notes, and what is wrong."""
    rows, voices = list[list[int]](), dict[tuple[int, int], int]()
    programs, ends = defaultdict[tuple[int, int], int](int), dict[int, int]()
    sounding = defaultdict[tuple[int, int, int], deque[_Sounding]](deque)
    pedals = defaultdict[tuple[int, int], list[tuple[int, bool]]](list)
    no_length = 0
    for tick, track, status, data in events:
        ends[track] = tick
        place = (track, status & 0x0F)
        match status & 0xF0:
            case 0xC0:
                programs[place] = data[0]
            case 0xB0 if data[0] == _PEDAL:
                pedals[place].append((tick, data[1] >= 64))
            case 0x90 if data[1]:
                voices.setdefault(place, len(voices) % VOICES)
                program = DRUMS if place[1] == DRUMS_CHANNEL else programs[place]
                sounding[*place, data[0]].append(_Sounding(tick, data[1], program))
            case 0x80 | 0x90:
                notes = sounding[*place, data[0]]
                if notes and notes[0].tick < tick:  # the oldest
                    note, before = notes.popleft(), len(pedals[place])
                    rows.append([data[0], note.velocity, note.tick, tick, voices[place], note.program, *place, before])
                else:
                    no_length += len(notes)
                    notes.clear()
    endless = sum(map(len, sounding.values()))
    if pedal:
        _prolong(rows, pedals, ends)
    flaws = [f"{endless:,} notes that never end"] * (endless > 0) + [f"{no_length:,} notes of no length"] * (
        no_length > 0
    )
    silent = set(programs) - set(voices)
    if any(channel == playing for _, channel in silent for _, playing in voices):
        flaws.append("programs of channels that another track plays: each track has its own")
    return [row[:6] for row in rows], flaws


def _prolong(
    rows: list[list[int]], pedals: dict[tuple[int, int], list[tuple[int, bool]]], ends: dict[int, int]
) -> None:
    """Let notes last while the pedal is down, but none beyond the next of its pitch.

    Behind its track and channel a row holds how many changes of the pedal come before the end of its note.
    """
    begins = defaultdict[tuple[int, ...], list[int]](list)
    for row in sorted(rows, key=lambda row: row[2]):
        begins[row[6], row[7], row[0]].append(row[2])
    lifts = {place: [i for i, (_, is_down) in enumerate(changes) if not is_down] for place, changes in pedals.items()}
    for row in rows:
        place, before = (row[6], row[7]), row[8]
        if not before or not pedals[place][before - 1][1]:
            continue
        lift = bisect_left(lifts[place], before)
        released = pedals[place][lifts[place][lift]][0] if lift < len(lifts[place]) else ends[row[6]]
        of_pitch = begins[row[6], row[7], row[0]]
        again = bisect_right(of_pitch, row[2])
        row[3] = max(row[3], min(released, of_pitch[again] if again < len(of_pitch) else released))


def _flaw(kind: int, data: bytes) -> str:
    """Return what is wrong with a meta event, or nothing."""
    if kind == _TEMPO:
        tempo = int.from_bytes(data, "big")
        if len(data) != 3 or tempo < _LEAST_TEMPO:
            return f"no valid tempo ({data.hex(' ') or 'empty'})"
    elif kind == _METER:
        if len(data) < 2 or not 1 <= data[0] <= 64 or data[1] > 8 or 2 ** data[1] not in METER_UNITS:
            return f"no valid metre ({data.hex(' ') or 'empty'})"
    elif len(data) != 2 or not -7 <= _signed(data[0]) <= 7 or data[1] > 1:
        return f"no valid key signature ({data.hex(' ') or 'empty'})"
    return ""


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _key(data: bytes) -> int:
    tonic = 7 * _signed(data[0]) % 12
    return 12 * _MINOR + (tonic + 9) % 12 if data[1] else tonic


def _meter(changes: dict[int, bytes], end: int) -> tuple[str, int]:
    """Return the metre that holds longest, and the tick where its longest stretch begins, which is a bar line."""
    names = {0: "4/4"} | {tick: f"{data[0]}/{2 ** data[1]}" for tick, data in sorted(changes.items())}
    held, stretches = defaultdict[str, int](int), list[tuple[str, int, int]]()
    ticks = [*names, max(end, *names)]
    for (begin, name), until in zip(names.items(), ticks[1:], strict=True):
        length = max(0, min(until, max(end, 1)) - begin)
        if stretches and stretches[-1][0] == name:  # said again
            _, begin, before = stretches.pop()
            length += before
            held[name] -= before
        held[name] += length
        stretches.append((name, begin, length))
    meter = max(held, key=lambda name: held[name])
    return meter, max((each for each in stretches if each[0] == meter), key=lambda each: each[2])[1]


def _tempo(changes: dict[int, bytes], end: int) -> float | None:
    """Return quarter notes a minute over the piece: those before the first tempo are at 120."""
    tempos = {tick: int.from_bytes(data, "big") for tick, data in sorted(changes.items()) if tick < max(end, 1)}
    if not tempos:
        return None
    tempos = {0: _FIRST_TEMPO} | tempos
    spans = np.diff([*tempos, max(end, 1)])
    return 6e7 * float(spans.sum()) / float(spans @ list(tempos.values()))
