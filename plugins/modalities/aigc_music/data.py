"""Pieces of music: read from MIDI, ABC and MusicXML, as events, and what a family is told of them."""

import codecs
import hashlib
import itertools
import json
import operator
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aigc_music.abc import is_music
from aigc_music.events import (
    DRUMS,
    LONGEST,
    METER_UNITS,
    PROGRAMS,
    TICKS,
    VOICES,
    Notes,
    bar_ticks,
    decode,
    encode,
    in_order,
    transposed,
)
from aigc_music.keys import KEYS, tonic_offset
from aigc_music.midi import MIDI_SUFFIXES, read_midi
from aigc_music.scores import SCORE_SUFFIXES, read_score
from aigc_music.tonality import find_key
from aigc_sdk.card import checked as as_checked
from aigc_sdk.data.dataset import DataReport, DataSpec, Rejected, Sequences, split_by_digest
from aigc_sdk.data.encodings import read_text
from aigc_sdk.data.folders import walk
from aigc_sdk.data.workers import WorkerLost, Workers, available_workers
from aigc_sdk.errors import AigcError, InvalidData, printable, shown
from aigc_sdk.files import as_path, storage_error
from aigc_sdk.modality import ModalityData

SUFFIXES = (*MIDI_SUFFIXES, *SCORE_SUFFIXES, ".abc")

# What lasts longer is left out: it is a recording session, or a broken file.
MOST_SECONDS = 3600
MOST_BYTES = 2**23

# A longer piece becomes several, cut at bar lines.
_SECTION_NOTES = 600

_DEFAULT_TEMPO = 120.0

# Pitch, velocity, onset, duration, voice and program.
_LEAST_NOTE, _MOST_NOTE = (0, 0, 0, 1, 0, 0), (127, 127, 2**31, 2**31, VOICES - 1, PROGRAMS - 1)

# How MIDI is read where the pedal counts.
_PEDALLED = "midi with its pedal"

# How many of the parts that were not read, of pieces that are kept, the report names.
_FLAWS = 5

# Tunes of a book that one call of a worker reads.
_TUNES = 32
_BLANK = re.compile(r"\n[ \t]*\n")
# What the head of a book may say for all its tunes, and up to where the fields of a tune are those of its head.
_FIELD = re.compile(r"[MLQIUm]:|%%(?![ \t]*(?:begin|end))")
_HEAD = re.compile(r"(?:(?s:.*?)^K:.*\n?(?:(?:[A-Za-z+]:(?![|:])|%).*\n?)*)?", re.MULTILINE)


class Piece(NamedTuple):
    """A piece as it was read.

    Attributes:
        name: where it came from.
        notes: int64 (n, 6), see `aigc_music.events`; time 0 is a bar line.
        key: index in `aigc_music.keys.KEYS`, or None where none is written.
        meter: for example "6/8".
        tempo: quarter notes a minute, or None.
    """

    name: str
    notes: Notes
    key: int | None = None
    meter: str = "4/4"
    tempo: float | None = None


@dataclass(frozen=True)
class MusicDetails:
    """What a family needs to know of pieces of music besides.

    Attributes:
        events: how often each event occurs in the training part, by the characters of their codes.
        keys: how often each key occurs in the training part, by its name; 0 for those that pieces are only moved to.
        meters: the same of metres.
        tempo: what most pieces are played at, quarter notes a minute.
        bars: how often pieces have so many bars; one that is begun counts.
        relative: how often each event occurs in the training part if every piece is moved so that its tonic is C
            (`aigc_music.keys.tonic_offset`).
    """

    events: Mapping[str, int]
    keys: Mapping[str, float]
    meters: Mapping[str, float]
    tempo: float
    bars: Mapping[int, float] = field(default_factory=dict)
    relative: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MusicDataset(Sequences):
    """Pieces of music; the codes are events.

    Attributes:
        keys: int64 (n,), indices in KEYS.
        meters: int64 (n,), indices in meter_names.
        meter_names: the metres that occur.
        tempo: what most pieces are played at, quarter notes a minute; 120 where most do not say.
        transpose: pieces are moved by at most so many semitones up and down when they are trained on.
        report: what reading them found.
        pieces: int64 (n,), which one each is a part of, where long ones are cut; None if each is one.
    """

    keys: NDArray[np.int64]
    meters: NDArray[np.int64]
    meter_names: tuple[str, ...]
    tempo: float
    transpose: int = 0
    report: DataReport = field(default_factory=DataReport)
    pieces: NDArray[np.int64] | None = None

    labels: ClassVar[None] = None
    label_names: ClassVar[tuple[str, ...]] = ()
    is_stream: ClassVar[bool] = False

    def items(self, rows: NDArray[np.int64]) -> tuple[Piece, ...]:
        """Return the pieces of these rows, not moved to other keys."""
        return tuple(
            Piece(
                f"{self.name}, {row}",
                decode(self.row_codes(row)),
                int(self.keys[row]),
                self.meter_names[self.meters[row]],
                self.tempo,
            )
            for row in rows.tolist()
        )

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """64 bits that tell pieces apart but for their key, uint64 (n,): by them they are split."""

        def digest(codes: NDArray[np.int32]) -> int:
            pitches = _pitches(decode(codes))
            lowest = transposed(codes, -int(pitches.min())) if len(pitches) else codes
            return int.from_bytes(hashlib.blake2b(lowest.tobytes(), digest_size=8).digest(), "big")

        return np.array([digest(self.row_codes(row)) for row in range(self.n)], np.uint64)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the events, where each piece begins, the keys, the metres and the tempo."""
        digest = hashlib.sha256(json.dumps(["music", self.meter_names, self.tempo]).encode())
        digest.update(self.codes.astype("<i4").data)
        for part in (self.starts, self.keys, self.meters):
            digest.update(part.astype("<i8").data)
        if self.pieces is not None and len(np.unique(self.pieces)) < self.n:  # by them it is split
            digest.update(self.pieces.astype("<i8").data)
        return digest.hexdigest()

    def split(self, validation: float, test: float) -> dict[str, NDArray[np.int64]]:
        """Split into train, validation and test by what pieces hold, and return the indices of each.

        The parts of a long piece, and pieces that share one in whatever key, stay on one side. Where all are of one
        piece, all are for training.

        Raises:
            InvalidData: nothing is left to train on.
        """
        if self.pieces is not None and len(np.unique(self.pieces)) == 1:
            nobody = np.zeros(0, np.int64)
            return {"train": np.arange(self.n), "validation": nobody, "test": nobody}
        return split_by_digest(self.name, self._places(), validation, test, "pieces")

    def _places(self) -> NDArray[np.uint64]:
        """Return by what each part is split, uint64 (n,): one number for all that belong together."""
        if self.pieces is None or len(np.unique(self.pieces)) == self.n:
            return self.digests
        _, alike = np.unique(self.digests, return_inverse=True)
        _, pieces = np.unique(self.pieces, return_inverse=True)
        least, before = self.digests, np.zeros(0, np.uint64)
        while not np.array_equal(least, before):
            before = least
            for groups in (pieces, alike):
                lowest = np.full(groups.max() + 1, np.iinfo(np.uint64).max, np.uint64)
                np.minimum.at(lowest, groups, least)
                least = lowest[groups]
        # The least of several is small too often, and the test part has the small ones.
        even = {
            each: hashlib.blake2b(int(each).to_bytes(8, "big"), digest_size=8).digest() for each in np.unique(least)
        }
        is_several = np.isin(least, least[least != self.digests])
        return np.where(is_several, np.array([int.from_bytes(even[each], "big") for each in least], np.uint64), least)

    def moves(self, row: int) -> range:
        """Return by how many semitones a piece may be moved: no pitch leaves MIDI's."""
        pitches = _pitches(decode(self.row_codes(row)))
        low, high = (int(pitches.min()), int(pitches.max())) if len(pitches) else (0, 127)
        return range(max(-self.transpose, -low), min(self.transpose, 127 - high) + 1)

    def _bars(self, row: int) -> int:
        """Return how many bars a piece has, from its first note on; one that is begun counts."""
        notes = decode(self.row_codes(row))
        return -int((notes[:, 2].min() - (notes[:, 2] + notes[:, 3]).max()) // self._bar(row))

    def _bar(self, row: int) -> int:
        return bar_ticks(self.meter_names[self.meters[row]])

    def is_in_full_bars(self, row: int) -> bool:
        """Whether the bars of a piece are full, see `in_full_bars`."""
        return in_full_bars(decode(self.row_codes(row)), self._bar(row))

    def spec(self, train: NDArray[np.int64]) -> DataSpec:
        """Describe the data to a family; `train` are the indices of the training part."""
        events, relative, keys = Counter[int](), Counter[int](), np.zeros(len(KEYS))
        for row in train.tolist():
            for move in self.moves(row):
                key, codes = moved_key(int(self.keys[row]), move), transposed(self.row_codes(row), move)
                for counter, each in ((events, codes), (relative, transposed(codes, -tonic_offset(key)))):
                    found, counts = np.unique(each, return_counts=True)
                    counter.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
                keys[key] += 1
        own = np.bincount(self.keys[train], minlength=len(KEYS)) / len(train)
        meters = np.bincount(self.meters[train], minlength=len(self.meter_names))
        bars = Counter(self._bars(row) for row in train.tolist())
        details = MusicDetails(
            _counted(events),
            {KEYS[i]: float(own[i]) for i in np.flatnonzero(keys)},
            dict(zip(self.meter_names, (meters / len(train)).tolist(), strict=True)),
            self.tempo,
            {n: count / len(train) for n, count in sorted(bars.items())},
            _counted(relative),
        )
        longest = int(np.diff(self.starts)[train].max())
        return DataSpec((longest,), (), (), len(train), details)


def _counted(events: Mapping[int, int]) -> dict[str, int]:
    """Return how often each event occurs, in order, by the character of its code."""
    return {chr(code): count for code, count in sorted(events.items())}


def _pitches(notes: Notes) -> NDArray[np.int64]:
    """Return the pitches of all notes but drums."""
    pitches: NDArray[np.int64] = notes[notes[:, 5] != DRUMS, 0]
    return pitches


def moved_key(key: int, semitones: int) -> int:
    """Return the index in KEYS of a key so many semitones higher."""
    mode, tonic = divmod(key, 12)
    return 12 * mode + (tonic + semitones) % 12


def load_music(source: Any, transpose: int = 0, *, full_bars: bool = False, pedal: bool = False) -> MusicDataset:
    """Read pieces of music; what was left out and why is in the report.

    Args:
        source: a `.mid`, `.midi`, `.rmi`, `.abc` (one tune or a book of them), `.musicxml`, `.xml` or `.mxl` file, a
            folder of them, or a list of `Piece`.
        transpose: see `MusicDataset`.
        full_bars: leave out pieces that are not `in_full_bars`.
        pedal: whether the sustain pedal of MIDI prolongs notes.

    Raises:
        InvalidData: it is nothing of this kind, or holds nothing that can be used; says what to do.
        InvalidRequest: an empty path.
        MissingPackage: music21, for MusicXML, is not installed.
        StorageError: it cannot be opened.

    Example:
        >>> up = np.array([[60 + i, 80, 24 * i, 24, 0, 0] for i in range(8)])
        >>> down = np.array([[67 - i, 80, 24 * i, 24, 0, 0] for i in range(8)])
        >>> data = load_music([Piece("up", up), Piece("down", down)])
        >>> data.n, data.row_codes(0).tolist(), KEYS[data.keys[0]]
        (2, [60, 61, 62, 63, 64, 65, 66, 67], 'C')
    """
    if isinstance(source, MusicDataset):
        if full_bars and not all(map(source.is_in_full_bars, range(source.n))):
            raise InvalidData("Not all pieces of this data are in full bars; read it with full_bars=True.")
        return replace(source, transpose=max(transpose, source.transpose))
    report = DataReport(what="piece")
    if isinstance(source, str | os.PathLike):
        path = as_path(source, "data")
        try:
            name, found = path.resolve().name.partition(".")[0], _read_path(path, report, pedal)
        except AigcError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
            raise storage_error("read", path, error) from error
    elif isinstance(source, Sequence) and all(isinstance(piece, Piece) for piece in source):
        name, found = "pieces", list(_usable(source, report))
    else:
        raise InvalidData(f"data is {shown(source)}; give a path, or a list of aigc_music.data.Piece.")
    if full_bars:
        regular = [in_full_bars(piece.notes, bar_ticks(piece.meter)) for piece in found]
        for piece in itertools.compress(found, map(operator.not_, regular)):
            report.skip("bars that do not sum up", piece.name, f"to {piece.meter}")
        found = list(itertools.compress(found, regular))
    return _dataset(name, found, transpose, report)


def _usable(pieces: Sequence[Piece], report: DataReport) -> Iterator[Piece]:
    """Yield pieces that were made in Python, held to what files are held to."""
    for piece in pieces:
        read = checked((piece.notes, piece.key, str(piece.meter), piece.tempo))
        if isinstance(read, Rejected):
            report.skip(read.reason, piece.name, read.detail)
        else:
            yield Piece(piece.name, *read[:4])


def _dataset(name: str, found: list[Piece], transpose: int, report: DataReport) -> MusicDataset:
    """Make a dataset of the pieces that can be used: of copies the first."""
    codes, keys, meters, first = list[NDArray[np.int32]](), list[int](), list[str](), dict[tuple[Any, ...], int]()
    pieces = list[int]()
    guessed = cut = 0
    for number, piece in enumerate(found):
        guessed += piece.key is None
        key = find_key(piece.notes) if piece.key is None else piece.key
        sections = _sections(piece.notes, bar_ticks(piece.meter))
        cut += len(sections) > 1
        for section in sections:
            events = encode(section)
            if (other := first.setdefault((events.tobytes(), key, piece.meter), number)) != number:
                report.skip("copy", piece.name, f"of {found[other].name}")
                continue
            pieces.append(number)
            codes.append(events)
            keys.append(key)
            meters.append(piece.meter)
    report.n = len(codes)
    if len(codes) < 2:
        raise InvalidData(f"{name} has {len(codes)} pieces; give at least two different ones. {report.line}.")
    if cut:
        report.notes.append(f"{cut:,} longer than {_SECTION_NOTES} notes, cut into several at bar lines")
    if guessed:
        report.notes.append(f"{guessed:,} without a key, which was found by their notes (Krumhansl 1990)")
    tempos = [piece.tempo for piece in found if piece.tempo is not None]
    names = [meter for meter, _ in Counter(meters).most_common()]
    report.notes.append(f"{sum(map(len, codes)):,} events; {len(names)} metres, mostly {', '.join(names[:4])}")
    return MusicDataset(
        name,
        np.concatenate(codes),
        np.append(0, np.cumsum([len(each) for each in codes])),
        np.array(keys, np.int64),
        np.array([names.index(meter) for meter in meters], np.int64),
        tuple(names),
        round(float(np.median(tempos)), 2) if 2 * len(tempos) >= len(found) else _DEFAULT_TEMPO,
        transpose,
        report,
        np.array(pieces, np.int64),
    )


def in_full_bars(notes: Notes, bar: int) -> bool:
    """Whether no note goes on over a bar line, and all ends at one, or where a first upbeat fills the last bar.

    Args:
        notes: int64 (n, 6), at least one, in ticks.
        bar: ticks of a bar.

    Example:
        >>> in_full_bars(np.array([[60, 80, 168, 24, 0, 0], [67, 80, 192, 168, 0, 0]]), 192)
        True
    """
    onsets, ends = notes[:, 2], notes[:, 2] + notes[:, 3]
    is_over = onsets // bar != (ends - 1) // bar
    end = int(ends.max())
    return not is_over.any() and (end % bar == 0 or (end - int(onsets.min())) % bar == 0)


def _sections(notes: Notes, bar: int) -> list[Notes]:
    notes, sections = in_order(notes), list[Notes]()
    while len(notes) > _SECTION_NOTES:
        begin = notes[_SECTION_NOTES, 2] // bar * bar
        before = notes[:, 2] < begin
        if not before.any():  # a bar of that many notes
            before, begin = np.arange(len(notes)) < _SECTION_NOTES, notes[_SECTION_NOTES, 2]
        sections.append(notes[before])
        notes = notes[~before] - np.array([0, 0, begin, 0, 0, 0])
    return [*sections, notes]


def _read_path(path: Path, report: DataReport, pedal: bool) -> list[Piece]:
    if not path.exists():
        raise InvalidData(f"There is no data at {path}.")
    if path.is_dir():
        names = sorted(walk(path, report), key=lambda each: Path(each).parts)
    elif path.suffix.lower() in SUFFIXES:
        path, names = path.parent, [path.name]
    else:
        raise InvalidData(f"{path} is of no kind that music is read from; give {', '.join(SUFFIXES)}, or a folder.")
    chunks = [[(how, *piece) for piece in named] for how, named in _calls(path, names, report, pedal)]
    pieces, flaws = list[Piece](), list[tuple[str, str]]()
    with Workers(min(available_workers(), len(chunks)) if len(chunks) > 1 else 0) as workers:
        for chunk, results in workers.map_chunks(_read_some, chunks, _arguments):
            for (_, name, _), result in zip(chunk, results, strict=True):
                if isinstance(result, WorkerLost):
                    report.skip("hangs or crashes", name, str(result))
                elif isinstance(result, Rejected):
                    report.skip(result.reason, name, result.detail)
                else:
                    pieces.append(Piece(name, *result[:4]))
                    flaws += [(name, flaw) for flaw in result[4]]
    if not pieces:
        raise InvalidData(f"{path if len(names) != 1 else path / names[0]} has no music to use. {report.line}.")
    if flaws:
        _tell(flaws, report)
    return pieces


def _tell(flaws: list[tuple[str, str]], report: DataReport) -> None:
    """Say what of pieces that are kept was not read: the first few, and all where all that is left out is listed."""
    words = [printable(f"{name}: {flaw}") for name, flaw in flaws]
    more = ", ..." if len(words) > _FLAWS else ""
    count = len({name for name, _ in flaws})
    report.notes.append(f"{count:,} of which not all was read ({', '.join(words[:_FLAWS])}{more})")
    report.left_out += [f"a part that was not read\t{each}" for each in words]


def _calls(
    folder: Path, names: list[str], report: DataReport, pedal: bool
) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Yield what one call of `_read_some` reads: how, and for each piece its name and its text or path."""
    for name in names:
        path, suffix = folder / name, Path(name).suffix.lower()
        if any(part.startswith(".") for part in Path(name).parts):
            report.skip("hidden", name)
        elif suffix not in SUFFIXES:
            report.skip("no music by its name", name)
        elif (size := _size_of(path)) > MOST_BYTES:
            report.skip("too large", name, f"{size:,} bytes; at most {MOST_BYTES:,} are read")
        elif suffix == ".abc":
            tunes = _tunes(name, _book(path), report)
            if not tunes:
                report.skip("no tune", name, "no line begins with X:")
            for start in range(0, len(tunes), _TUNES):
                yield "abc", tunes[start : start + _TUNES]
        else:
            midi = _PEDALLED if pedal else "midi"
            yield (midi if suffix in MIDI_SUFFIXES else "score"), [(name, str(path))]


def _size_of(path: Path) -> int:
    """Return the bytes of a file, unpacked where it is one that is packed."""
    if path.suffix.lower() != ".mxl":
        return path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:  # its reader says so
        return 0


def _book(path: Path) -> str:
    """Return what a file of ABC holds: UTF-16 where its first bytes say so, else UTF-8 or, of old, Latin-1."""
    with path.open("rb") as file:
        is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return path.read_text("utf-16", errors="replace") if is_utf16 else read_text(path, "latin-1")


def _tunes(name: str, text: str, report: DataReport) -> list[tuple[str, str]]:
    """Return the tunes of a book: a name for each, with its number and title, and its text with the book's fields."""
    head, *tunes = re.split(r"^[ \t]*(?=X:)", text, flags=re.MULTILINE)
    before = _BLANK.split(head)
    fields = [line for block in before if not is_music(block) for line in block.split("\n") if _FIELD.match(line)]
    if tunes:
        _skip_music(f"{name}, before the first X:", before, report)
    named = list[tuple[str, str]]()
    for tune in tunes:
        # A blank line ends it, and its own fields come before those of the book.
        first, *behind = _BLANK.split(tune)
        number, _, rest = first.partition("\n")
        own = re.findall("^[MLQ]:", rest[: _HEAD.match(rest).end()], flags=re.MULTILINE)  # type: ignore[union-attr]  # it matches all
        left = [field for field in fields if field[:2] not in own]
        named.append((f"{name}, {number.strip()}{_title(rest)}", "\n".join([number, *left, rest])))
        _skip_music(f"{name}, behind {number.strip()}", behind, report)
    return named


def _title(tune: str) -> str:
    title = re.search(r"^T:\s*(.*)", tune, flags=re.MULTILINE)
    return f" ({title[1].strip()})" if title else ""


def _skip_music(place: str, blocks: list[str], report: DataReport) -> None:
    """Count the blocks that are music, which belongs to no tune; words between tunes are nothing that is left out."""
    for block in filter(is_music, blocks):
        report.skip("music of no tune", f"{place}{_title(block)}", "a tune begins with X: and ends at a blank line")


def _arguments(_: int, chunk: list[tuple[str, str, Any]]) -> tuple[str, list[tuple[str, Any]]]:
    """Return those of `_read_some` for pieces that are read in one way."""
    return chunk[0][0], [(name, what) for _, name, what in chunk]


def _read_some(how: str, named: list[tuple[str, Any]]) -> list[Any]:
    """Return (notes, key, meter, tempo, flaws) of each piece, or why it has none; made to run in a worker."""
    midi = how.startswith("midi")
    return [checked(read_midi(what, how == _PEDALLED) if midi else read_score(what, how == "abc")) for _, what in named]


def checked(read: Any) -> Any:
    """Return what was read of a piece, its notes in order, or why it cannot be used; `read` may hold anything."""
    if isinstance(read, Rejected):
        return read
    notes, key, meter, tempo, *flaws = read
    beats, _, unit = meter.partition("/")
    is_meter = beats.isdecimal() and unit.isdecimal() and 1 <= int(beats) <= 64 and int(unit) in METER_UNITS
    if not is_meter:
        return Rejected("no valid metre", meter)
    if tempo is not None and not (isinstance(tempo, int | float | np.number) and 1 <= tempo <= 1000):
        told = "0 microseconds for a quarter note" if tempo == np.inf else f"{tempo} quarter notes a minute"
        return Rejected("no valid tempo", f"{told}; 1 to 1,000 quarter notes a minute are one")
    if not _are_notes(notes):
        return Rejected("no valid notes", "give whole numbers (n, 6): pitch, velocity, onset, duration and so on")
    if not len(notes):
        return Rejected("no notes", ", ".join(flaws[0] if flaws else ()))
    if not isinstance(key, int | np.integer | None) or key not in (None, *range(len(KEYS))):
        return Rejected("no valid key", f"{key!r}; an index in aigc_music.keys.KEYS is")
    notes = notes.astype(np.int64)
    if (longest := int(notes[:, 3].max())) > LONGEST:
        return Rejected(
            "a note that is too long", f"{longest // TICKS:,} quarter notes; {LONGEST // TICKS} are the most"
        )
    seconds = int((notes[:, 2] + notes[:, 3]).max()) / TICKS * 60 / (tempo or _DEFAULT_TEMPO)
    if seconds > MOST_SECONDS:
        return Rejected("longer than an hour", f"{seconds / 3600:.1f} hours; cut it into pieces")
    return in_order(notes), key, meter, tempo, *(flaws or [()])


def _are_notes(notes: Any) -> bool:
    is_table = isinstance(notes, np.ndarray) and notes.dtype.kind in "iu" and notes.shape[1:] == (6,)
    return is_table and bool(((notes >= _LEAST_NOTE) & (notes <= _MOST_NOTE)).all())


class MusicData(ModalityData):
    """MIDI, ABC and MusicXML."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> MusicDataset:
        """Read pieces; only a training takes them in other keys too."""
        options = config or {}
        full_bars, pedal = options.get("full_bars", False), options.get("pedal", False)
        return load_music(source, options.get("transpose", 0) if trains else 0, full_bars=full_bars, pedal=pedal)

    def dump(self, details: MusicDetails) -> dict[str, Any]:
        """Return the events where texts have their characters, and the rest."""
        values = asdict(details)
        events = values.pop("events")
        values["bars"] = {str(n): share for n, share in details.bars.items()}
        return {"characters": events, "is_stream": False, "music": values}

    def load(self, values: Mapping[str, Any]) -> MusicDetails:
        """Return what `dump` was given."""
        if not isinstance(music := values.get("music"), Mapping) or values.keys() - {
            "characters",
            "is_stream",
            "music",
        }:
            raise ValueError("these are not the details of music")
        return as_checked(MusicDetails, {"events": values.get("characters"), **music})
