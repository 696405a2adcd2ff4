"""Music as events: the one vocabulary that models of music read and make, and its exact inverse.

A piece is notes, int64 (n, 6): pitch, velocity, onset and duration in ticks, voice, program; in the order of onset,
pitch and voice. Events are int32 codes, read from left to right with a clock that begins at 0:

    NOTE + pitch          a note of the present duration, after which the clock moves on by it
    HELD + pitch          a note of the present duration; the clock stays
    TIME + ticks          the clock moves on
    DURATION + ticks      the present duration; several in a row add up
    VELOCITY + class      the present velocity: 16 times the class, at most 127
    INSTRUMENT + 129 voice + program        the present voice and program, 128 for drums

So a melody in even notes is one event a note. At the beginning a note takes an eighth and sounds at 80, by voice 0 and
program 0.
"""

import numpy as np
from numpy.typing import NDArray

# Of a quarter note: what divides by 2, 3, 4, 6, 8, 12 and 16 is exact.
TICKS = 48

NOTE, HELD, VELOCITY, INSTRUMENT, DURATION, TIME = 0, 128, 256, 1024, 4096, 8192

# The most ticks of one event; what is longer takes several.
MOST_TICKS = 20 * TICKS
VOICES, PROGRAMS, DRUMS = 16, 129, 128
# No note is longer, in ticks.
LONGEST = 2**14 - 1
# Which part of a whole note a beat of a metre may be.
METER_UNITS = (1, 2, 4, 8, 16, 32)
FIRST_DURATION, FIRST_VELOCITY = TICKS // 2, 5

_BEGINS = {"note": NOTE, "held": HELD, "velocity": VELOCITY, "instrument": INSTRUMENT, "duration": DURATION}
_BEGINS["time"] = TIME

Notes = NDArray[np.int64]


def bar_ticks(meter: str) -> int:
    """Return the ticks of a bar.

    Example:
        >>> bar_ticks("6/8"), bar_ticks("4/4")
        (144, 192)
    """
    beats, unit = map(int, meter.split("/"))
    return beats * 4 * TICKS // unit


def in_order(notes: Notes) -> Notes:
    """Return notes in the order of onset, pitch and voice."""
    return notes[np.lexsort((notes[:, 4], notes[:, 0], notes[:, 2]))]


def encode(notes: Notes) -> NDArray[np.int32]:
    """Return the events of notes, int64 (n, 6) in order; a velocity becomes the nearest of its eight classes.

    Example:
        >>> encode(np.array([[62, 80, 0, 24, 0, 0], [64, 80, 24, 48, 0, 0]])).tolist()
        [62, 4144, 64]
    """
    events = list[int]()
    clock, duration, velocity, instrument = 0, FIRST_DURATION, FIRST_VELOCITY, 0
    begins = [*notes[1:, 2].tolist(), -1][: len(notes)]
    for (pitch, loudness, onset, ticks, voice, program), following in zip(notes.tolist(), begins, strict=True):
        events += _spread(TIME, onset - clock)
        clock = onset
        if ticks != duration:
            events += _spread(DURATION, ticks)
            duration = ticks
        if (level := min(max(round(loudness / 16), 1), 8)) != velocity:
            events.append(VELOCITY + level)
            velocity = level
        if (played_by := PROGRAMS * voice + program) != instrument:
            events.append(INSTRUMENT + played_by)
            instrument = played_by
        moves_on = following in (clock + ticks, -1)
        events.append((NOTE if moves_on else HELD) + pitch)
        clock += ticks * moves_on
    return np.array(events, np.int32)


def _spread(kind: int, ticks: int) -> list[int]:
    whole, rest = divmod(ticks, MOST_TICKS)
    return [kind + MOST_TICKS] * whole + [kind + rest] * (rest > 0)


def decode(events: NDArray[np.int32]) -> Notes:
    """Return the notes of events, int64 (n, 6), in the order in which they stand there; undoes `encode`.

    Example:
        >>> decode(np.array([62, 4144, 64], np.int32)).tolist()
        [[62, 80, 0, 24, 0, 0], [64, 80, 24, 48, 0, 0]]
    """
    notes = list[tuple[int, ...]]()
    clock, duration, velocity, instrument, adds = 0, FIRST_DURATION, FIRST_VELOCITY, 0, False
    for event in events.tolist():
        if event < VELOCITY:
            notes.append((event % HELD, min(16 * velocity, 127), clock, duration, *divmod(instrument, PROGRAMS)))
            clock += duration * (event < HELD)
        elif event < INSTRUMENT:
            velocity = event - VELOCITY
        elif event < DURATION:
            instrument = event - INSTRUMENT
        elif event < TIME:
            duration = event - DURATION + duration * adds
        else:
            clock += event - TIME
        adds = DURATION <= event < TIME
    return np.array(notes, np.int64).reshape(-1, 6)


def event_name(event: int) -> str:
    """Return an event in words.

    Example:
        >>> event_name(62), event_name(4120), event_code("duration 24")
        ('note 62', 'duration 24', 4120)
    """
    kind = [kind for kind, begin in _BEGINS.items() if begin <= event][-1] if event >= 0 else "note"
    return f"{kind} {event - _BEGINS[kind]}"


def event_code(name: str) -> int:
    """Return the code of an event by its name, as `event_name` gives it; raises ValueError for any other text."""
    kind, _, value = name.partition(" ")
    code = _BEGINS[kind] + int(value) if kind in _BEGINS and value.isdecimal() else -1
    if code < 0 or event_name(code) != name:
        raise ValueError(f"{name!r} is no event")
    return code


def transposed(events: NDArray[np.int32], semitones: int) -> NDArray[np.int32]:
    """Return events with every pitch so many semitones higher; drums stay.

    A pitch that would leave MIDI's 0 to 127 comes back by an octave.
    """
    moves = events < VELOCITY
    instrument = np.where((events >= INSTRUMENT) & (events < DURATION), events - INSTRUMENT, 0)
    if instrument.any():  # which pitches are drums'
        last = np.maximum.accumulate(np.where((events >= INSTRUMENT) & (events < DURATION), np.arange(len(events)), -1))
        moves &= ~((last >= 0) & (instrument[last] % PROGRAMS == DRUMS))
    pitch = events % HELD + semitones
    pitch += 12 * (pitch < 0) - 12 * (pitch >= HELD)
    return np.where(moves, events - events % HELD + pitch, events).astype(np.int32)


def to_words(events: NDArray[np.int32]) -> str:
    """Return events up to the first -1 in words.

    Example:
        >>> to_words(np.array([4144, 62, -1], np.int32)), from_words("duration 48, note 62").tolist()
        ('duration 48, note 62', [4144, 62])
    """
    end = np.flatnonzero(events == -1)
    return ", ".join(map(event_name, events[: end[0] if len(end) else None].tolist()))


def from_words(words: str) -> NDArray[np.int32]:
    """Return the events of words that `to_words` made; raises ValueError where a word names no event."""
    return np.array([event_code(word.strip()) for word in words.split(",") if word.strip()], np.int32)
