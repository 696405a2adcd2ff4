"""How fast tunes are made: the whole loop in one file, against loops of torch and of Python around the same network.

    python benchmarks/music_speed.py

What `text_speed` does of texts: an LSTM of 2 layers of 192 units over about as many events as `folk-tunes` has, of
random weights, makes 200 of them, in full bars, given the key, the metre, the notes that began in earlier bars, and
how many bars are left. The other loops make the very same notes; what their network is told of the bars, and what would
break one, they work out in numpy, for all tunes at once.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_music.data import Piece, bar_ticks
from aigc_music.events import (
    DURATION,
    FIRST_DURATION,
    FIRST_VELOCITY,
    HELD,
    TICKS,
    TIME,
    VELOCITY,
    event_code,
)
from aigc_music.keys import KEYS, tonic_offset
from aigc_rnn.sampler import BEGIN, END, SPECIAL, UNKNOWN
from aigc_sdk.training import Run
from text_speed import STEPS, Array, compare, first_chunk
from timing import Report

METERS = ("2/2", "6/8", "2/4", "4/4", "3/4", "9/8")
PITCHES, LENGTHS = np.arange(55, 92), np.array([2, 4, 6, 8, 12, 16, 18, 24, 36, 48, 72, 96, 144])
PROMPT = ("duration 24", "note 62", "note 66", "note 69", "note 66")

# Ticks of a place in a bar; bits of a note that began there, and of its duration among them; bars of a phrase, phrases;
# bars left.
PLACE, WORD, LASTS, BARS, PHRASES, LEFT = 4, 14, 6, 8, 8, 32
# Bars of the longest tune, which is not over after so many events.
MOST_BARS = 200
NEVER = 10**6


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    report = Report("torch", "onnxruntime", "numpy")
    with TemporaryDirectory() as folder:
        run = untrained(Path(folder) / "run")
        report.figure("events", len(run.family().codes))
        compare(report, run, Events)
        first_chunk(report, run, ", ".join(PROMPT), [*map(event_code, PROMPT)])
    return report.exit_code


def untrained(folder: Path) -> Run:
    """Return a run of one step on random tunes."""
    rng = np.random.default_rng(0)
    tunes = [random_tune(rng, meter, key, 8) for key in (0, 2, 7, 9) for meter in METERS for _ in range(4)]
    tunes.append(random_tune(rng, "2/4", 0, MOST_BARS))
    options = {"width": 192, "layers": 2, "max_length": STEPS, "min_count": 1, "full_bars": True, "transpose": 0}
    options["conditions"] = "key,meter,bars"
    return sdk.train("music-rnn", tunes, out=folder, steps=1, validation_fraction=0, **options)


def random_tune(rng: np.random.Generator, meter: str, key: int, bars: int) -> Piece:
    """Return bars of notes and chords of two, some of which are followed by a rest as long as they are."""
    bar, clock = bar_ticks(meter), 0
    notes = list[tuple[int, ...]]()
    while clock < bars * bar:
        room = bar - clock % bar
        ticks = int(rng.choice(LENGTHS[room >= LENGTHS]))
        rests = clock + ticks < bars * bar and rng.random() < 0.2
        pitches = sorted(rng.choice(PITCHES, rng.integers(1, 3), replace=False).tolist())
        notes += [(pitch, 80, clock, ticks // 2 if rests else ticks, 0, 0) for pitch in pitches]
        clock += ticks
    return Piece(f"{KEYS[key]} {meter}", np.array(notes), key=key, meter=meter)


class Events:
    """Reads events of tunes in one voice, in numpy, as `aigc_rnn.notes.Clock` does in the graph."""

    def __init__(self, family: Any, fed: dict[str, Array]) -> None:
        clock, n = family.clock, len(fed["key"])
        self._label = np.stack([fed["key"], len(family.keys) + fed["meter"]], 1)
        self._bar, self._tempo = clock.bars.numpy()[fed["meter"]], fed["tempo"]
        self._whole = self._bar * fed["bars"]
        # The network reads and makes every tune as if its tonic were C.
        self._offset = np.array([tonic_offset(KEYS.index(family.keys[key])) for key in fed["key"].tolist()])
        self._places, self._lowest, self._ring = len(clock.places), clock.lowest, clock.ring
        self._back = np.maximum(self._bar[:, None] * clock.backs.numpy() // PLACE, 1)

        events = np.array([-1] * SPECIAL + family.codes.tolist())
        self._is_note = (events >= 0) & (events < VELOCITY)
        self._moves, self._holds = self._is_note & (events < HELD), self._is_note & (events >= HELD)
        self._pitch = np.where(self._is_note, events % HELD, HELD)
        self._is_duration = (events >= DURATION) & (events < TIME)
        self._lasts = np.where(self._is_duration, events - DURATION, 0)
        self._time = np.where(events >= TIME, events - TIME, 0)
        # The room in a bar that a token needs besides what a duration before it does.
        self._needs = np.where(self._is_duration, self._lasts, -NEVER)
        self._needs[[BEGIN, UNKNOWN]] = NEVER

        self._rows, self._made = np.arange(n)[:, None], list[tuple[Array, ...]]()
        self._clock, self._added, self._end = (np.zeros(n, np.int64) for _ in range(3))
        self._held, self._begin = np.full(n, -1), np.full(n, -1)
        self._duration = np.full(n, FIRST_DURATION)
        self._began = np.zeros((n, self._ring), np.int64)

    def told(self) -> dict[str, NDArray[np.int64]]:
        """Return key and metre, the place in bar, phrase and tune, which notes began before, and the bars left."""
        wanted = (self._clock // PLACE)[:, None] - self._back
        kept = self._began[self._rows, wanted & (self._ring - 1)]
        found = np.where(kept >> WORD == wanted, kept & ((1 << WORD) - 1), 0)
        place = np.empty((len(found), self._places), np.int64)
        place[:, 0] = self._clock % self._bar // PLACE
        bars = self._clock // self._bar
        place[:, 1], place[:, 2] = bars % BARS, np.minimum(bars // BARS, PHRASES - 1)
        place[:, 3:7], place[:, 7:11] = found >> LASTS, found & ((1 << LASTS) - 1)
        place[:, 11] = np.clip(-(-self._left() // self._bar), 0, LEFT)
        return {"label": self._label, "place": place}

    def barred(self) -> NDArray[np.bool_]:
        """Return what would go over a bar line or the last bar, end before, or put a chord out of order."""
        left = self._left()
        room = np.minimum(self._bar - self._clock % self._bar, left)[:, None]
        barred = self._is_note & (self._duration[:, None] > room)
        barred |= self._needs + self._added[:, None] > room
        barred |= self._pitch <= self._held[:, None]
        barred |= (self._time >= left[:, None]) & (self._begin >= 0)[:, None]
        is_whole = (self._end % self._bar == 0) | ((self._end - self._begin) % self._bar == 0)
        is_last = self._end - self._begin > self._whole - self._bar
        barred[:, END] = (self._begin < 0) | ~is_whole | ~is_last
        return barred

    def _left(self) -> NDArray[np.int64]:
        return self._whole - np.where(self._begin < 0, 0, self._clock - self._begin)

    def read(self, token: NDArray[np.int64]) -> None:
        """Go on by an event of each tune."""
        is_note, is_duration, pitch = self._is_note[token], self._is_duration[token], self._pitch[token]
        self._duration = np.where(is_duration, self._lasts[token] + self._added, self._duration)
        self._added = self._duration * is_duration
        self._made.append((is_note, pitch, self._clock, self._duration))

        at = self._clock // PLACE
        word = (at << WORD) + (pitch - self._lowest + 1 << LASTS)
        word += np.minimum(self._duration // PLACE, (1 << LASTS) - 1)
        rows, slot = self._rows[:, 0], at & (self._ring - 1)
        self._began[rows, slot] = np.maximum(self._began[rows, slot], word * is_note)

        self._end = np.maximum(self._end, (self._clock + self._duration) * is_note)
        self._begin = np.where(is_note & (self._begin < 0), self._clock, self._begin)
        moved = self._time[token] + self._moves[token] * self._duration
        self._held = np.where(self._holds[token], pitch, np.where(moved > 0, -1, self._held))
        self._clock = self._clock + moved

    def content(self) -> NDArray[np.float32]:
        """Return notes, float32 (n, t, 6)."""
        is_note, pitch, onset, lasts = (np.stack(parts, 1) for parts in zip(*self._made, strict=True))
        seconds = np.float32(60 / TICKS) / self._tempo[:, None]
        pitch = pitch + self._offset[:, None]
        columns = [pitch, np.full_like(pitch, 16 * FIRST_VELOCITY), onset * seconds, lasts * seconds]
        rows, steps = np.nonzero(is_note)
        content = np.zeros((*is_note.shape, 6), np.float32)
        place = (is_note.cumsum(1) - 1)[rows, steps]
        content[rows, place, :4] = np.stack(columns, 2)[rows, steps]
        return content


if __name__ == "__main__":
    sys.exit(main())
