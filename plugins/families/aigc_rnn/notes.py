"""Events of music read in torch: where the clock is at each of them, and the notes that they are.

The same reading as `aigc_music.events.decode`, once for whole sequences and once a step at a time.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aigc_music.events import (
    DRUMS,
    DURATION,
    FIRST_DURATION,
    FIRST_VELOCITY,
    HELD,
    INSTRUMENT,
    LONGEST,
    NOTE,
    PROGRAMS,
    TICKS,
    TIME,
    VELOCITY,
    VOICES,
    bar_ticks,
)
from aigc_music.keys import tonic_offset

# The network is told where in a bar it is in steps of so many ticks, which bar of a phrase it is, and which phrase, of
# which all from the last one of these on are the same.
_PHRASE_BITS, _PHRASES, _PLACE_BITS = 3, 8, 2
_PHRASE_BARS, _PLACE_TICKS = 1 << _PHRASE_BITS, 1 << _PLACE_BITS

# It is also told which note began at this place of earlier bars (Waite 2016, "Lookback RNN"): so many bars before. Of a
# note that is its pitch and, in steps of ticks, its duration.
_BARS_BACK = (1, 2, 4, 8)
_BACK_BITS, _BACK_DURATIONS = 14, 64

# And of some how many bars are left, of which all from this one on are the same.
_BARS_LEFT = 32

# While the loop runs an event is kept as one number, from the lowest bit on: whether it is a note, its pitch, velocity,
# instrument, duration and onset.
_PITCH, _VELOCITY, _INSTRUMENT, _DURATION, _ONSET = 1, 8, 12, 24, 38
_LATEST = 1 << 63 - _ONSET

# Bars are counted by a product and a shift, as exporters round quotients of whole numbers through floats: that is exact
# for bars of 6 to 2^14 ticks, up to the latest onset.
_SHARE_BITS = 39

# Where bars have to be full each token has an amount, which is at most a sum of these: the room in the bar, the present
# duration, that to which one is added, what is left of the piece, and how far it is from where it may end.
_NOTES, _DURATIONS, _OTHERS, _END = (1, -1, 0, 0, 0), (1, 0, -1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, -1)

# Added where a token is no note, so that the maximum with what is carried is what was.
_NEVER = -(1 << 62)

State = dict[str, Tensor]


class Timed(NamedTuple):
    """Events of whole sequences in time: int64 (n, t) each; codes below 0 are none."""

    clock: Tensor  # after each event, in ticks
    lasts: Tensor  # the duration of notes after it, in ticks
    adds: Tensor  # bool: whether it is a duration, to which one that comes next is added
    is_note: Tensor  # bool


def timed(codes: Tensor) -> Timed:
    """Read events, int64 or int32 (n, t)."""
    codes = codes.to(torch.int64)
    is_duration, is_note = (codes >= DURATION) & (codes < TIME), (codes >= NOTE) & (codes < VELOCITY)
    given = torch.where(is_duration, codes - DURATION, 0)
    summed = given.cumsum(1)
    begins = is_duration.clone()  # where durations in a row begin to add up
    begins[:, 1:] &= ~is_duration[:, :-1]
    at = torch.where(begins, torch.arange(codes.shape[1], device=codes.device), -1).cummax(1).values
    before = torch.where(at >= 0, (summed - given).gather(1, at.clamp(min=0)), -FIRST_DURATION)
    lasts = summed - before
    moves = torch.where(is_note & (codes < HELD), lasts, 0)
    clock = (moves + torch.where(codes >= TIME, codes - TIME, 0)).cumsum(1)
    return Timed(clock, lasts, is_duration, is_note)


class Before(NamedTuple):
    """What is known before each event of sequences, and before the end."""

    place: Tensor | None  # what the network is told of the time, int64 (n, t + 1, k)
    barred: Tensor | None  # the tokens that would break a bar, bool (n, t + 1, tokens)


class Bars(NamedTuple):
    """What follows from the metre, in ticks; it stays as it is while a piece is made."""

    ticks: Tensor  # int64 (n, 1)
    share: Tensor  # of a bar that one tick is, in units of 2^-39, (n, 1)
    turn: Tensor  # how many places to go on in the ring of them, to where each of the bars back was, (n, k)
    least: Tensor  # how long the piece has to be when it ends, (n, 1)
    whole: Tensor  # of the piece, from its first note on, (n, 1); where bars are not counted more than there can be
    left: Tensor  # of so many bars that are left, (n, k)


class Clock(nn.Module):
    """Reads events, a step at a time or whole sequences, and says where in the bar they are.

    Args:
        codes: the event of each token, -1 for those that stand for none.
        keys: the keys that the network is told of, () where it is told of none; indices in KEYS.
        meters: the same of metres: beats and their unit. Their labels come after those of keys.
        end: the token of the end, where bars have to be full (`aigc_music.data.in_full_bars`); else None.
        counts_bars: whether it is known how many bars a piece is to have, where they have to be full.
        is_relative: whether the codes are those of pieces that were moved so that their tonic is C.
    """

    keys: Tensor
    offsets: Tensor
    meters: Tensor
    bars: Tensor
    shares: Tensor
    backs: Tensor
    is_back: Tensor
    limits: Tensor
    amount: Tensor
    order: Tensor
    voice: Tensor
    looked_up: Tensor

    def __init__(
        self,
        codes: Sequence[int],
        keys: Sequence[int],
        meters: Sequence[tuple[int, int]],
        end: int | None = None,
        counts_bars: bool = False,
        is_relative: bool = False,
    ) -> None:
        super().__init__()
        events = torch.tensor(codes, dtype=torch.int64)
        bars = [bar_ticks(f"{beats}/{unit}") for beats, unit in meters]
        is_note = (events >= 0) & (events < VELOCITY)
        self.has_velocities = bool(((events >= VELOCITY) & (events < INSTRUMENT)).any())
        self.has_instruments = bool(((events >= INSTRUMENT) & (events < DURATION)).any())
        self.is_polyphonic = bool(((events >= HELD) & (events < VELOCITY)).any())
        self.fills_bars = end is not None and bool(bars)
        self.counts_bars = counts_bars and self.fills_bars
        self.is_relative = is_relative
        pitch = events % HELD
        self.lowest, self.pitches = _range_of(pitch[is_note])

        # The places of a bar, bars of a phrase, phrases, for each of the bars back the pitch and the duration, and the
        # bars left.
        sizes = [-(-max(bars, default=0) // _PLACE_TICKS), _PHRASE_BARS, _PHRASES]
        sizes += [1 + self.pitches] * len(_BARS_BACK) + [_BACK_DURATIONS] * len(_BARS_BACK)
        sizes += [1 + _BARS_LEFT] * self.counts_bars
        self.places = tuple(sizes) if bars else ()
        # What began is kept by its place, in a ring that is longer than all those bars.
        self.ring = 1 << (max(_BARS_BACK) * sizes[0]).bit_length()

        is_duration = (events >= DURATION) & (events < TIME)
        lasts = torch.where(is_duration, events - DURATION, 0)
        # Of notes at one time each has to be above the one before, or as high in a later voice.
        order = torch.where(is_note, pitch * VOICES, HELD * VOICES)
        # A velocity that is never told is a part of each note.
        word = 1 + (pitch << _PITCH) + (0 if self.has_velocities else FIRST_VELOCITY << _VELOCITY)
        is_held = is_note & (events >= HELD)
        time = torch.where(events >= TIME, events - TIME, 0)
        is_end = torch.arange(len(events)) == (-1 if end is None else end)
        kinds = zip(is_note.tolist(), is_duration.tolist(), is_end.tolist(), strict=True)
        limits = [_NOTES if note else _DURATIONS if given else _END if ends else _OTHERS for note, given, ends in kinds]
        # A rest has to end before all does.
        amount = lasts + torch.where(is_note | is_duration | is_end, 0, time + 1)
        # More than a place of the ring that is still empty.
        kept = (self.ring << _BACK_BITS) + (pitch - self.lowest + 1) * _BACK_DURATIONS
        looked_up = {
            "given": is_duration.to(torch.int64),
            "stays": (~is_duration).to(torch.int64),
            "lasts": lasts,
            "moves": (is_note & (events < HELD)).to(torch.int64),
            "time": time,
            "word": torch.where(is_note, word, 0),
        }
        looked_up |= {"unless": torch.where(is_note, 0, _NEVER)} if self.fills_bars else {}
        looked_up |= {"kept": torch.where(is_note, kept, _NEVER)} if self.places else {}
        looked_up |= {"velocity": _present(events, VELOCITY, INSTRUMENT)} if self.has_velocities else {}
        looked_up |= {"instrument": _present(events, INSTRUMENT, DURATION)} if self.has_instruments else {}
        looked_up |= {"held": torch.where(is_held, order + 1, 0)} if self.is_polyphonic else {}
        looked_up |= {"is_held": is_held.to(torch.int64)} if self.is_polyphonic and self.has_instruments else {}
        self.columns = tuple(looked_up)
        tables = {
            "keys": torch.tensor(keys, dtype=torch.int64),
            "offsets": torch.tensor([tonic_offset(key) for key in keys], dtype=torch.int64),
            "meters": torch.tensor(meters, dtype=torch.int64).view(-1, 2),
            "bars": torch.tensor(bars, dtype=torch.int64),
            "shares": torch.tensor([-(-(1 << _SHARE_BITS) // ticks) for ticks in bars], dtype=torch.int64),
            "backs": torch.tensor(_BARS_BACK),
            "is_back": torch.tensor([3 <= i < 3 + 2 * len(_BARS_BACK) for i in range(len(self.places))]),
            "limits": torch.tensor(limits).T,
            "amount": amount,
            "order": order,
            "voice": torch.arange(VOICES * PROGRAMS) // PROGRAMS,
            "looked_up": torch.stack([*looked_up.values()], 1),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    @property
    def place_names(self) -> tuple[str, ...]:
        """What each of the places is, one after the other as the network has them."""
        if not self.places:
            return ()
        pitches = ("none", *range(self.lowest, self.lowest + self.pitches))
        kinds: list[tuple[str, Iterable[object]]] = [
            ("place in the bar", range(self.places[0])),
            ("bar of the phrase", range(_PHRASE_BARS)),
            ("phrase", range(_PHRASES)),
            *((f"pitch {back} bars back", pitches) for back in _BARS_BACK),
            *((f"duration {back} bars back", range(_BACK_DURATIONS)) for back in _BARS_BACK),
            *([("bars left", range(1 + _BARS_LEFT))] if self.counts_bars else []),
        ]
        return tuple(f"{kind} {each}" for kind, values in kinds for each in values)

    @property
    def parts(self) -> dict[str, int]:
        """What is carried as one number, int64 (n, 1) each, and what that is before the first event.

        That is where the clock is, the present duration, and whether one was just given; of some vocabularies the
        present velocity, the instrument, and the order of the last note held, plus one; where bars have to be full,
        where the last note ends, and where the first began.
        """
        found = {"clock": 0, "duration": FIRST_DURATION, "adds": 0}
        found |= {"velocity": FIRST_VELOCITY} if self.has_velocities else {}
        found |= {"instrument": 0} if self.has_instruments else {}
        found |= {"last": 0} if self.is_polyphonic else {}
        return found | ({"end": 0, "begin": _LATEST} if self.fills_bars else {})

    def start(self, n: int) -> State:
        """Return a state before the first event of n pieces.

        That is how much more than before the first event each part is, int64 (n,), and (n, ring) what began.
        """
        parts = dict.fromkeys(self.parts, torch.zeros(n, dtype=torch.int64))
        return parts | ({"began": torch.zeros(n, self.ring, dtype=torch.int64)} if self.places else {})

    def offset_of(self, label: Tensor | None) -> Tensor | None:
        """Return how many semitones higher than its codes each piece is, int64 (n, 1), of labels (n, k)."""
        if label is None or not self.is_relative:
            return None
        return self.offsets.index_select(0, label[:, 0])[:, None]

    def bars_of(self, label: Tensor | None, whole: Tensor | None = None) -> Bars | None:
        """Return what follows from labels (n, k), of which the last is the metre; None if there is none.

        Args:
            label: as for the network.
            whole: how many bars the piece is to have, int64 (n,), where they are counted.
        """
        if label is None or not len(self.bars):
            return None
        meter = label[:, -1] - len(self.keys)
        ticks = self.bars.index_select(0, meter)[:, None]
        return Bars(
            ticks,
            self.shares.index_select(0, meter)[:, None],
            self.ring - ((ticks * self.backs) >> _PLACE_BITS).clamp(min=1),
            ticks * 0 + 1 if whole is None else ticks * (whole[:, None] - 1) + 1,
            ticks * 0 + 2 * _LATEST if whole is None else ticks * whole[:, None],
            ticks * torch.arange(_BARS_LEFT if self.counts_bars else 0).to(ticks.device),
        )

    def before(self, codes: Tensor, bars: Bars | None) -> Before:
        """Read whole sequences, int32 (n, t), below 0 behind the end."""
        if bars is None:
            return Before(None, None)
        events = timed(codes)
        clock = F.pad(events.clock, (1, 0))
        onset, is_note = clock[:, :-1], events.is_note
        rank = (codes.to(torch.int64) % HELD - self.lowest).clamp(0, self.pitches - 1) + 1
        began = torch.where(is_note, rank * _BACK_DURATIONS + _steps(events.lasts), 0)
        at = onset >> _PLACE_BITS
        kept = torch.zeros(len(at), int(at.max()) + 1, dtype=torch.int64, device=at.device)
        kept = kept.scatter_reduce(1, at, began, "amax")
        bars = Bars(*(part[:, None] for part in bars))  # for all events of a piece
        wanted = (clock >> _PLACE_BITS)[:, :, None] + bars.turn - self.ring
        found = kept.gather(1, wanted.clamp(0, kept.shape[1] - 1).flatten(1)).view(wanted.shape)
        found = torch.where((wanted >= 0) & (wanted < kept.shape[1]), found, 0)
        barred, parts = None, {"clock": clock}
        if self.fills_bars:
            ends = F.pad(torch.where(is_note, onset + events.lasts, 0).cummax(1).values, (1, 0))
            begin = F.pad(torch.where(is_note, onset, _LATEST).cummin(1).values, (1, 0), value=_LATEST)
            lasts, adds = F.pad(events.lasts, (1, 0), value=FIRST_DURATION), F.pad(events.adds, (1, 0))
            parts |= {"duration": lasts, "adds": adds, "end": ends, "begin": begin}
            since = (ends - begin)[:, -1:, None]
            if self.counts_bars:  # each has as many as it has
                whole = -(-since // bars.ticks) * bars.ticks
                bars = bars._replace(whole=whole, least=whole - bars.ticks + 1)
        before = {name: part[:, :, None] for name, part in parts.items()}
        if self.fills_bars:
            barred = self._barred(before, bars)
        return Before(torch.cat(self._places(before, bars, found), -1), barred)

    def place(self, before: State, bars: Bars) -> list[Tensor]:
        """Return what the network is told, int64 (n, k) each, of what is carried."""
        at = (before["clock"] >> _PLACE_BITS) + bars.turn
        # What was kept in an earlier turn of the ring is less than what is kept of that place.
        found = torch.gather(before["began"], 1, at & (self.ring - 1)) - (at << _BACK_BITS)
        return self._places(before, bars, found.clamp(min=0))

    def left_out(self, before: State, bars: Bars | None) -> Tensor | None:
        """Return the tokens that may not come next, bool (n, tokens); None if all may.

        They are notes out of order, and where bars have to be full, what would break one or come after the last.
        """
        disorders = self.disorders(before) if self.is_polyphonic else None
        if bars is None or not self.fills_bars:
            return disorders
        barred = self._barred(before, bars)
        return barred if disorders is None else barred | disorders

    def _places(self, before: State, bars: Bars, found: Tensor) -> list[Tensor]:
        """Return the places, int64 (..., k) each, of what is carried (..., 1), and what began in the bars back."""
        clock = before["clock"]
        bar = (clock * bars.share) >> _SHARE_BITS
        columns = [
            (clock % bars.ticks) >> _PLACE_BITS,
            bar & (_PHRASE_BARS - 1),
            (bar >> _PHRASE_BITS).clamp(max=_PHRASES - 1),
            found >> _BACK_DURATIONS.bit_length() - 1,
            found & (_BACK_DURATIONS - 1),
        ]
        if self.counts_bars:
            left = torch.minimum(self._left(before, bars), bars.whole)
            columns.append((left > bars.left).to(torch.int64).sum(-1, keepdim=True))
        return columns

    def _left(self, before: State, bars: Bars) -> Tensor:
        """Return how many ticks of the piece are left, (..., 1); before its first note very many."""
        return bars.whole + before["begin"] - before["clock"]

    def _barred(self, before: State, bars: Bars) -> Tensor:
        """Return the tokens that would break a bar, or the number of bars, bool (..., tokens) of (..., 1)."""
        end, lasts, left = before["end"], before["duration"], self._left(before, bars)
        room = torch.minimum(bars.ticks - before["clock"] % bars.ticks, left)
        # The last note may end at a bar line, or as long before one as the upbeat is.
        since = end - before["begin"]
        short = torch.maximum((end % bars.ticks) * (since % bars.ticks), bars.least - since)
        limits = torch.cat([room, lasts, lasts * before["adds"], left, short], -1)
        return self.amount > product(limits, self.limits, in_doubles=limits.device.type != "mps")  # which has none

    def disorders(self, before: State) -> Tensor:
        """Return which tokens would be a note out of order, bool (n, tokens)."""
        order = self.order + self.voice[before["instrument"]] if self.has_instruments else self.order
        return order < before["last"]

    def read(self, token: Tensor, before: State) -> tuple[Tensor, State]:
        """Return the event as one number, int64 (n, 1), and what is carried after a token (n, 1)."""
        clock = before["clock"]
        # One look for all that is known of a token, as each takes its time.
        columns = torch.chunk(F.embedding(token[:, 0], self.looked_up), len(self.columns), 1)
        known = dict(zip(self.columns, columns, strict=True))
        # Of durations in a row the first one takes the place of what was before.
        stays = before["duration"] * torch.maximum(before["adds"], known["stays"])
        lasts = (stays + known["lasts"]).clamp(max=LONGEST)
        row = known["word"] + (lasts << _DURATION) + (clock << _ONSET)
        moved = known["time"] + known["moves"] * lasts
        after = {"clock": clock + moved, "duration": lasts, "adds": known["given"]}
        if self.has_velocities:
            after["velocity"] = torch.where(known["velocity"] < 0, before["velocity"], known["velocity"])
            row = row + (after["velocity"] << _VELOCITY)
        if self.has_instruments:
            after["instrument"] = torch.where(known["instrument"] < 0, before["instrument"], known["instrument"])
            row = row + (after["instrument"] << _INSTRUMENT)
        if self.places:
            at = clock >> _PLACE_BITS
            kept = (at << _BACK_BITS) + known["kept"] + _steps(lasts)
            slot = at & (self.ring - 1)
            # Of several notes at a time the highest is kept.
            highest = torch.maximum(torch.gather(before["began"], 1, slot), kept)
            after["began"] = before["began"].scatter(1, slot, highest)
        if self.fills_bars:
            after["end"] = torch.maximum(before["end"], clock + lasts + known["unless"])
            after["begin"] = torch.minimum(before["begin"], clock - known["unless"])
        if self.is_polyphonic:
            held = known["held"]
            held = held + known["is_held"] * self.voice[after["instrument"]] if self.has_instruments else held
            after["last"] = torch.maximum(held, torch.where(moved > 0, 0, before["last"]))
        return row, after

    def written(self, label: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the metre, int64 (n, 2), and the key, int64 (n,), of labels (n, k); 0 and -1 where none is told."""
        meter, key = torch.zeros_like(like)[:, None].expand(-1, 2) * 1, torch.zeros_like(like) - 1
        if label is not None and len(self.meters):
            meter = self.meters.index_select(0, label[:, -1] - len(self.keys))
        if label is not None and len(self.keys):
            key = self.keys.index_select(0, label[:, 0])
        return meter, key

    def notes(self, made: Tensor, tempo: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the notes of events as one number each, int64 (n, t), 0 for none.

        Args:
            made: the events.
            tempo: quarter notes a minute, float32 (n,).
            offset: how many semitones higher they are to be, int64 (n, 1); drums stay.

        Returns:
            float32 (n, t, 6), how many notes there are, int64 (n,), and the tempo.
        """
        is_note, width = made & 1, made.shape[1]
        # Notes move up to where the other events were; these go to one place behind the last.
        to = torch.where(is_note > 0, is_note.cumsum(1) - 1, width)
        notes = torch.zeros(made.shape[0], width + 1, dtype=torch.int64).scatter(1, to, made)[:, :width]

        def field(begin: int, end: int) -> Tensor:
            return (notes >> begin) & ((1 << end - begin) - 1)

        instrument = field(_INSTRUMENT, _DURATION)
        voice = self.voice[instrument]
        program = instrument - voice * PROGRAMS
        pitch = field(_PITCH, _VELOCITY)
        if offset is not None:
            pitch = wrapped(pitch + offset * (notes & 1) * (program != DRUMS).to(torch.int64))
        seconds = (60 / TICKS) / tempo[:, None]
        columns = [
            pitch.float(),
            (field(_VELOCITY, _INSTRUMENT) << 4).clamp(max=127).float(),
            (notes >> _ONSET).float() * seconds,
            field(_DURATION, _ONSET).float() * seconds,
            voice.float(),
            program.float(),
        ]
        return torch.stack(columns, 2), is_note.sum(1), tempo * 1.0  # no input of the graph is an output of it


def wrapped(pitch: Tensor) -> Tensor:
    """Bring pitches that left MIDI's 0 to 127 by less than an octave back by one."""
    return pitch + 12 * ((pitch < 0).to(torch.int64) - (pitch >= HELD).to(torch.int64))


def moved(codes: Tensor, semitones: Tensor) -> Tensor:
    """Return events, int32 (n, t), whose pitches are so many semitones (n, 1) higher, those of drums too."""
    is_note = (codes >= NOTE) & (codes < VELOCITY)
    pitch = codes.to(torch.int64) % HELD
    return torch.where(is_note, codes + (wrapped(pitch + semitones) - pitch).to(codes.dtype), codes)


def are_drums(codes: Tensor) -> Tensor:
    """Return whether a note at each place of events, int32 (n, t), would be a drum's, bool (n, t)."""
    is_instrument = (codes >= INSTRUMENT) & (codes < DURATION)
    last = torch.where(is_instrument, torch.arange(codes.shape[1], device=codes.device), -1).cummax(1).values
    instrument = codes.gather(1, last.clamp(min=0)) - INSTRUMENT
    return (last >= 0) & (instrument % PROGRAMS == DRUMS)


def product(limits: Tensor, table: Tensor, *, in_doubles: bool) -> Tensor:
    """Return limits (..., k) times a table (k, tokens), whole numbers of int64: as doubles, or as they are.

    Doubles are quick in all runtimes, and mixed precision leaves them as they are.
    """
    return limits.double() @ table.double() if in_doubles else (limits[..., None] * table).sum(-2)


def _range_of(pitches: Tensor) -> tuple[int, int]:
    """Return the lowest pitch, and how many there are from it to the highest."""
    lowest = int(pitches.min()) if len(pitches) else 0
    return lowest, int(pitches.max()) - lowest + 1 if len(pitches) else 1


def _present(events: Tensor, first: int, end: int) -> Tensor:
    """Return what events of a kind set, and -1 for others."""
    return torch.where((events >= first) & (events < end), events - first, -1)


def _steps(ticks: Tensor) -> Tensor:
    """Return how many places a note lasts, as far as they are told apart."""
    return (ticks >> _PLACE_BITS).clamp(max=_BACK_DURATIONS - 1)
