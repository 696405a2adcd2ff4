"""Events of music read in torch: where the clock is at each of them, and the notes that they are.

The same reading as `aigc_sdk.contents.events.decode`, once for whole sequences and once a step at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aigc_sdk.contents.events import (
    DURATION,
    FIRST_DURATION,
    FIRST_VELOCITY,
    HELD,
    INSTRUMENT,
    NOTE,
    PROGRAMS,
    TICKS,
    TIME,
    VELOCITY,
    VOICES,
)

# The network is told where in a bar it is in steps of so many ticks, and which bar of a phrase it is.
PHRASE_BARS, _PLACE_BITS = 16, 2
PLACE_TICKS = 1 << _PLACE_BITS

# While the loop runs an event is kept as one number, from the lowest bit on: whether it is a note, its pitch, velocity,
# instrument, duration and onset.
_PITCH, _VELOCITY, _INSTRUMENT, _DURATION, _ONSET = 1, 8, 12, 24, 38
_MOST_DURATION = (1 << _ONSET - _DURATION) - 1

State = dict[str, Tensor]


def clocks(codes: Tensor) -> Tensor:
    """Return where the clock is after each event, in ticks, int64 (n, t); codes below 0 are none."""
    codes = codes.to(torch.int64)
    is_duration = (codes >= DURATION) & (codes < TIME)
    lasts = torch.where(is_duration, codes - DURATION, 0)
    summed = lasts.cumsum(1)
    begins = is_duration.clone()  # where durations in a row begin to add up
    begins[:, 1:] &= ~is_duration[:, :-1]
    at = torch.where(begins, torch.arange(codes.shape[1], device=codes.device), -1).cummax(1).values
    before = torch.where(at >= 0, (summed - lasts).gather(1, at.clamp(min=0)), -FIRST_DURATION)
    moves = torch.where((codes >= NOTE) & (codes < HELD), summed - before, 0)
    return (moves + torch.where(codes >= TIME, codes - TIME, 0)).cumsum(1)


def place_steps(bars: Sequence[int]) -> int:
    """Return how many places the longest of bars has."""
    return -(-max(bars, default=0) // PLACE_TICKS)


def places(clock: Tensor, bar: Tensor, steps: int) -> Tensor:
    """Return the place in the bar, and after these the place of the bar in its phrase, int64 (n, t, 2).

    Args:
        clock: in ticks, int64 (n, t).
        bar: ticks of a bar, int64 (n, 1).
        steps: how many places a bar has.
    """
    within = (clock % bar) >> _PLACE_BITS
    # Exporters round quotients of whole numbers through floats, so that bars are counted.
    ends = bar[:, :, None] * torch.arange(1, PHRASE_BARS, device=bar.device)
    whole = ((clock % (bar * PHRASE_BARS))[:, :, None] >= ends).to(torch.int64).sum(2)
    return torch.stack([within, steps + whole], 2)


class Clock(nn.Module):
    """Reads events a step at a time.

    Args:
        codes: the event of each token, -1 for those that stand for none.
        keys: the keys that the network is told of, () where it is told of none; indices in KEYS.
        meters: the same of metres: beats and their unit. Their labels come after those of keys.
    """

    time: Tensor
    moves: Tensor
    lasts: Tensor
    is_duration: Tensor
    word: Tensor
    order: Tensor
    keys: Tensor
    meters: Tensor
    bars: Tensor

    def __init__(self, codes: Sequence[int], keys: Sequence[int], meters: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        events = torch.tensor(codes, dtype=torch.int64)
        self.register_buffer("keys", torch.tensor(keys, dtype=torch.int64))
        self.register_buffer("meters", torch.tensor(meters, dtype=torch.int64).view(-1, 2))
        bars = [beats * 4 * TICKS // unit for beats, unit in meters]
        self.register_buffer("bars", torch.tensor(bars, dtype=torch.int64))
        self.steps = place_steps(bars)

        is_note = (events >= 0) & (events < VELOCITY)
        self.has_velocities = bool(((events >= VELOCITY) & (events < INSTRUMENT)).any())
        self.has_instruments = bool(((events >= INSTRUMENT) & (events < DURATION)).any())
        self.is_polyphonic = bool(((events >= HELD) & (events < VELOCITY)).any())
        pitch = events % HELD
        tables = {
            "time": torch.where(events >= TIME, events - TIME, 0),
            "moves": ((events >= NOTE) & (events < HELD)).to(torch.int64),
            "is_duration": ((events >= DURATION) & (events < TIME)).to(torch.int64),
            "lasts": torch.where((events >= DURATION) & (events < TIME), events - DURATION, 0),
            "word": torch.where(is_note, 1 + (pitch << _PITCH), 0),
            "velocity": _present(events, VELOCITY, INSTRUMENT),
            "instrument": _present(events, INSTRUMENT, DURATION),
            # Of notes at one time each has to be above the one before, or as high in a later voice.
            "order": torch.where(is_note, pitch * VOICES, HELD * VOICES),
            "voice": torch.arange(VOICES * PROGRAMS) // PROGRAMS,
            "is_held": ((events >= HELD) & (events < VELOCITY)).to(torch.int64),
        }
        for name, table in tables.items():
            self.register_buffer(name, table)

    velocity: Tensor
    instrument: Tensor
    is_held: Tensor
    voice: Tensor

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what is carried, int64 (n, 1) each, all zero at the beginning.

        They are where the clock is, the present duration less that at the beginning, and whether one was just given; of
        some vocabularies the present velocity, likewise, the instrument, and the order of the last note held.
        """
        found = ("velocity",) * self.has_velocities + ("instrument",) * self.has_instruments
        return ("clock", "duration", "adds", *found, *(("last",) * self.is_polyphonic))

    def bar_of(self, label: Tensor | None) -> Tensor | None:
        """Return the ticks of a bar, int64 (n, 1), of labels (n, k), of which the last is the metre."""
        if label is None or not len(self.bars):
            return None
        return self.bars.index_select(0, label[:, -1] - len(self.keys))[:, None]

    def place(self, clock: Tensor, bar: Tensor) -> Tensor:
        """Return the places, int64 (n, 2), of clocks (n, 1)."""
        return places(clock, bar, self.steps)[:, 0]

    def disorders(self, before: State) -> Tensor:
        """Return which tokens would be a note out of order, bool (n, tokens)."""
        if not self.has_instruments:
            return self.order[None] < before["last"]
        return self.order[None] + _look(self.voice, before["instrument"]) < before["last"]

    def read(self, token: Tensor, before: State) -> tuple[Tensor, State]:
        """Return the event as one number, int64 (n, 1), and what is carried after a token (n, 1)."""
        clock, duration = before["clock"], before["duration"]
        given = _look(self.is_duration, token)
        # Of durations in a row the first one takes the place of what was before; what is carried is less the first.
        kept = (duration + FIRST_DURATION) * (1 - given * (1 - before["adds"]))
        lasts = (kept + _look(self.lasts, token)).clamp(max=_MOST_DURATION)
        row = _look(self.word, token) + (lasts << _DURATION) + (clock << _ONSET)
        moves = _look(self.moves, token)
        moved = _look(self.time, token) + moves * lasts
        after = {"clock": clock + moved, "duration": lasts - FIRST_DURATION, "adds": given}
        level, instrument = torch.full_like(clock, FIRST_VELOCITY), torch.zeros_like(clock)
        if self.has_velocities:
            found = _look(self.velocity, token)
            after["velocity"] = torch.where(found < 0, before["velocity"], found - FIRST_VELOCITY)
            level = after["velocity"] + FIRST_VELOCITY
        if self.has_instruments:
            found = _look(self.instrument, token)
            after["instrument"] = instrument = torch.where(found < 0, before["instrument"], found)
        if self.is_polyphonic:
            held = _look(self.order, token) + _look(self.voice, instrument) + 1
            after["last"] = torch.where(_look(self.is_held, token) > 0, held, torch.where(moved > 0, 0, before["last"]))
        if self.has_velocities or self.has_instruments:
            row = row + (level << _VELOCITY) + (instrument << _INSTRUMENT)
        else:
            row = row + (FIRST_VELOCITY << _VELOCITY)
        return row, after

    def written(self, label: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the metre, int64 (n, 2), and the key, int64 (n,), of labels (n, k); 0 and -1 where none is told."""
        meter, key = torch.zeros_like(like)[:, None].expand(-1, 2) * 1, torch.zeros_like(like) - 1
        if label is not None and len(self.meters):
            meter = self.meters.index_select(0, label[:, -1] - len(self.keys))
        if label is not None and len(self.keys):
            key = self.keys.index_select(0, label[:, 0])
        return meter, key

    def notes(self, made: Tensor, tempo: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the notes of events as one number each, int64 (n, t), 0 for none.

        Args:
            made: the events.
            tempo: quarter notes a minute, float32 (n,).

        Returns:
            float32 (n, t, 6), how many notes there are, int64 (n,), and the tempo.
        """

        def field(begin: int, end: int) -> Tensor:
            return (made >> begin) & ((1 << end - begin) - 1)

        is_note, instrument = made & 1, field(_INSTRUMENT, _DURATION)
        voice = self.voice[instrument]
        seconds = (60 / TICKS) / tempo[:, None]
        columns = [
            field(_PITCH, _VELOCITY).float(),
            (field(_VELOCITY, _INSTRUMENT) << 4).clamp(max=127).float(),
            (made >> _ONSET).float() * seconds,
            field(_DURATION, _ONSET).float() * seconds,
            voice.float(),
            (instrument - voice * PROGRAMS).float(),
        ]
        width = made.shape[1]
        # Notes move up to where the other events were; these go to one place behind the last.
        to = torch.where(is_note > 0, is_note.cumsum(1) - 1, width)
        content = torch.zeros(made.shape[0], width + 1, len(columns))
        content = content.scatter(1, to[:, :, None].expand(-1, -1, len(columns)), torch.stack(columns, 2))
        return content[:, :width], is_note.sum(1), tempo * 1.0  # no input of the graph is an output of it


def _present(events: Tensor, first: int, end: int) -> Tensor:
    """Return what events of a kind set, and -1 for others."""
    return torch.where((events >= first) & (events < end), events - first, -1)


def _look(table: Tensor, index: Tensor) -> Tensor:
    """Return the values of a table (k,) at an index, int64 (n, 1)."""
    return table.index_select(0, index[:, 0])[:, None]
