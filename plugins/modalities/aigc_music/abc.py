"""One tune of ABC 2.1, as tune books use it: a line is a field, a directive or music, and music is read token by token.

What cannot be read right is left out by name, never guessed: see `docs/music.md`. The standard is at
abcnotation.com/wiki/abc:standard:v2.1; its sections are named where a rule is not plain.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from aigc_music.abc_fields import ACCIDENTALS, STEPS, NotRead, read_details, read_key, read_meter, read_tempo, read_unit
from aigc_music.events import TICKS, VOICES, Notes
from aigc_sdk.data.dataset import Rejected

# Notes, key as an index in KEYS, metre and tempo, of which key and tempo may not be written.
Read = tuple[Notes, int | None, str, float | None]

_LOUDNESS = 80
_ONE = Fraction(1)
# Bounds on what hostile text can ask for: digits of a length, whole notes and notes of a voice, and how fine times are.
_MOST_DIGITS, _LONGEST_TUNE, _MOST_NOTES, _FINEST = 4, 10**5, 50_000, 10**9

_FIELDS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZmrsw")
_FIELD = re.compile(r"[ \t]*([A-Zmrsw]):(?![|:])(.*)")
_BLOCK = re.compile(r"%%[ \t]*begin([a-z]+)")
# All up to a % that is not in a string; the last quote of a line may be open.
_CODE = re.compile(r'(?:[^"%\\]|\\.?|"[^"]*"|"(?![^"]*"))*')

# Fields, strings, decorations and comments of a book; and a line with a bar line and a note, and of letters only those
# of notes, rests and decorations.
_NO_MUSIC = re.compile(r"^[A-Zmrsw+]:(?![|:]).*|\[[A-Za-z]:[^\]\n]*\]|\"[^\"\n]*\"|![^!\s]*!|%.*", re.M)
_BARS = r"^(?=.*\|)(?=.*[A-Ga-g])[A-Ga-gxyzXZHLMOPSTuv\d,'/^_=\[\](){}<>|:.~&$*\\ \t-]+$"

_LENGTH = r"(\d*)(/*)(\d*)"
_NUMBERS = r"\d+(?:[,-]\d+)*"
_BAR = r"(?:[|:\]]|\[(?=[|\]]))*"
_TOKENS = {
    # Reserved characters have no meaning yet (section 8.1); line breaks of the score and staccato dots do not sound.
    "blank": r"[\s`$*;?@#\\~.]+",
    "note": rf"(\^\^?|__?|=)?([A-Ga-g])([,']*){_LENGTH}",
    "rest": rf"[zx]{_LENGTH}",
    "bars_rest": r"[ZX](\d*)",
    "spacer": r"y[\d/]*",
    "text": r'"[^"]*"',
    "grace": r"\{([^{}|\":]*)\}",
    "inline": r"\[([A-Za-z]):([^\]]*)\]",
    "ending": rf'\[({_NUMBERS})|\["[ \t]*(\d+)[^"]*"(?![^\]|]{{0,200}}\])',
    "bar": rf"({_BAR}[|:]{_BAR})({_NUMBERS})?",  # of any shape (section 4.8)
    "chord": r"\[",
    "chord_end": rf"\]{_LENGTH}",
    "tuplet": r"\((\d+)(?::(\d*)(?::(\d*))?)?",
    "slur": r"[()]",
    "broken": r"(>+|<+)",
    "tie": r"-",
    "symbol": r"([H-Wh-w])(?!:[^|:])(?=([^\s|])?)",  # P:B within a line is no field, nor notes
    "bang": r"!(?:([^!]*)!)?",
    "plus": r"\+([^+]*)\+",
    "overlay": r"&",
    "microtone": r"[\^_=]+[\d/]+[A-Ga-g]",
}
_TOKEN = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _TOKENS.items()))
_CHORD_END = re.compile(f"(?P<chord_end>{_TOKENS['chord_end']})")
_GROUPS = {name: re.compile(pattern).groups for name, pattern in _TOKENS.items()}
_IN_CHORDS = ("blank", "note", "rest", "tie", "text", "slur", "symbol", "bang", "plus", "chord_end")
_GRACE = re.compile(r"(\^\^?|__?|=)([A-Ga-g])([,']*)")

# Directives that make other notes of those that are written, each in its own way.
_MOVING = frozenset(("propagate-accidentals", "abc-include", "transpose", "octave"))
_MOVING_MIDI = frozenset(("transpose", "rtranspose", "c"))

# Letters that stand for decorations without a `U:` (section 4.16); and those of programs and books of old, which stand
# right before what they decorate, else they are words.
_SYMBOLS, _OLD_SYMBOLS = frozenset("HLMOPSTuv"), frozenset("JKRUVk")
_DYNAMICS = "p pp ppp pppp f ff fff ffff mp mf sfz"
# Names of decorations that could as well be notes, or that have blanks in the wild.
_DECORATIONS = frozenset(
    f"{_DYNAMICS} D.C. D.S. D.C.alcoda D.C.alfine D.S.alcoda D.S.alfine 0 1 2 3 4 5 < > <( <) >( >) / // /// + . x"
    " dacapo dacoda fine".split()
)
_OCTAVE_MARKS = re.compile(r"(8va|8vb|15ma|15mb)\(")
# What music may consist of, by which `!` is told to be a line break of old, and `+` a chord of old.
_MUSIC = re.compile(r"[A-Ga-gxyzXZ\d,'/^_=\[\]|:(){}<>.~\s-]*")


def read_abc(tune: str) -> Read | Rejected:
    r"""Read a tune of ABC: each `V:` is a voice, what is repeated is read once, and of endings the last.

    Grace notes, chord symbols, decorations and words are left out, and instruments that transpose are read as they
    sound.

    Args:
        tune: its text from `X:` on; it ends at a blank line.

    Returns:
        Notes, int64 (n, 6), the index of the key in KEYS, the metre and the tempo, of which key and tempo may be
        None; or why it cannot be read.

    Example:
        >>> notes, key, meter, tempo = read_abc("X:1\nM:4/4\nL:1/4\nK:D\nF ^G G c|")
        >>> notes[:, 0].tolist(), notes[:, 2].tolist(), key, meter, tempo
        ([66, 68, 68, 73], [0, 48, 96, 144], 2, '4/4', None)
    """
    try:
        return _Tune().read(tune)
    except NotRead as error:
        return Rejected(*error.args)


def is_music(text: str) -> bool:
    r"""Whether lines of a book are music, not words between tunes: one has notes and a bar line, or follows a key.

    Example:
        >>> is_music("ABcd|"), is_music("T:Title\nK:D\nd"), is_music("Collected by Fred | 1901"), is_music("K:D")
        (True, True, False, False)
    """
    notes = re.sub(_NO_MUSIC, "", text).strip()
    return bool(re.search(_BARS, notes, re.M) or (notes and re.search(r"^K:[ \t]*[A-G]", text, re.M)))


@dataclass(frozen=True)
class _Setting:
    """How the notes of a voice are to be taken; lengths are in whole notes.

    Attributes:
        signature: semitones by letter.
        unit: the length of a note without a number; 0 until the head ends.
        meter: its name, and the length of its bar.
        octaves, clef_octaves, semitones: by how much it sounds higher than written.
        spread: how far an accidental goes within its bar: "not" at all, its "octave", or all of its "pitch" (11.3).
    """

    signature: dict[str, int] = field(default_factory=dict)
    unit: Fraction = Fraction(0)
    meter: tuple[str, Fraction] | None = None
    octaves: int = 0
    clef_octaves: int = 0
    semitones: int = 0
    spread: str = "pitch"

    @property
    def moved(self) -> int:
        """Semitones by which it sounds higher than written."""
        return 12 * (self.octaves + self.clef_octaves) + self.semitones


class _Written(NamedTuple):
    """A note as it is written, but for its length."""

    letter: str
    octave: int
    accidental: int | None
    is_tied: bool = False


@dataclass
class _Sound:
    """A note that sounds: the row that it became or goes on in, and what a tie needs."""

    row: list[Any]  # pitch, begin, end; the last two Fractions
    place: tuple[str, int]
    alteration: int
    is_tied: bool


@dataclass
class _Event:
    """A note, a chord or a rest of a voice: when it begins, how long it is, and what sounds."""

    begin: Fraction
    length: Fraction
    sounds: list[_Sound]


@dataclass
class _Ending:
    """A variant ending: its first number, and from when to when it lasts."""

    number: int
    begin: Fraction
    end: Fraction | None = None


@dataclass
class _Voice:
    """A voice while it is read: where it is, what goes on, and what it has been so far."""

    setting: _Setting
    time: Fraction = Fraction(0)
    accidentals: dict[tuple[str, int | None], int] = field(default_factory=dict)
    graces: dict[tuple[str, int | None], int] = field(default_factory=dict)
    is_rekeyed: bool = False  # since the last event
    last: _Event | None = None
    # Whether the last event may be made longer or shorter, or tied on: no bar line or new field is between.
    is_open: bool = False
    # What a broken rhythm makes of the next event, and how long the last one is without one.
    broken: Fraction | None = None
    unbroken: Fraction = Fraction(0)
    tuplet: Fraction = Fraction(1)
    tuplet_left: int = 0
    before_endings: _Event | None = None
    rows: list[list[Any]] = field(default_factory=list)
    bars: list[Fraction] = field(default_factory=list)
    endings: list[_Ending] = field(default_factory=list)

    def play(self, notes: list[_Written], length: Fraction) -> None:
        """Go on by an event: a note, a chord, or a rest, which has no notes; `length` is in unit lengths."""
        length = length * self.setting.unit
        if self.tuplet_left:
            length *= self.tuplet
            self.tuplet_left -= 1
        self.unbroken, unbroken = length, self.unbroken
        if self.broken:
            if length != unbroken:
                raise NotRead("a broken rhythm of unequal notes", "the standard leaves open what it is (section 4.4)")
            length *= self.broken
        begin, tied = self.time, [sound for sound in self.last.sounds if sound.is_tied] if self.last else []
        self._move_to(begin + length)
        sounds = [self._sound(note, begin, tied) for note in notes]
        self.last, self.is_open, self.broken, self.is_rekeyed = _Event(begin, length, sounds), True, None, False

    def _move_to(self, time: Fraction) -> None:
        if time.numerator > _LONGEST_TUNE * time.denominator or time.denominator > _FINEST:
            raise NotRead("no valid length", f"a time of {time} whole notes")
        self.time = time

    def _sound(self, note: _Written, begin: Fraction, tied: list[_Sound]) -> _Sound:
        """Return what a note sounds as until now; one that is tied to goes on in the row of the other."""
        alteration = self._alteration(note, tied)
        pitch = 60 + 12 * note.octave + STEPS[note.letter] + alteration + self.setting.moved
        if not 0 <= pitch <= 127:
            raise NotRead("a note that MIDI does not have", f"pitch {pitch}")
        before = next((sound for sound in tied if sound.row[0] == pitch), None)
        if before:
            tied.remove(before)
            before.row[2] = self.time
        elif len(self.rows) == _MOST_NOTES:
            raise NotRead("a tune that is too long", f"more than {_MOST_NOTES:,} notes")
        else:
            self.rows.append([pitch, begin, self.time])
        row = before.row if before else self.rows[-1]
        return _Sound(row, (note.letter, note.octave), alteration, note.is_tied)

    def _alteration(self, note: _Written, tied: list[_Sound]) -> int:
        """Return the semitones of a note: its own accidental, that of a tie, of its bar, or of the signature."""
        if note.accidental is not None:
            self.alter(note.letter, note.octave, note.accidental)
            return note.accidental
        usual = self._usual(note.letter, note.octave, self.accidentals)
        for sound in tied:
            if sound.place == (note.letter, note.octave):
                if self.is_rekeyed and sound.alteration != usual:
                    raise NotRead("a tie into another key", f"{note.letter} is another note in it")
                return sound.alteration
        if self.graces and self._usual(note.letter, note.octave, self.graces | self.accidentals) != usual:
            raise NotRead("an accidental of a grace note that may hold", f"write whether {note.letter} has it too")
        return usual

    def _usual(self, letter: str, octave: int, accidentals: dict[tuple[str, int | None], int]) -> int:
        at = octave if self.setting.spread == "octave" else None
        return accidentals.get((letter, at), self.setting.signature.get(letter, 0))

    def alter(self, letter: str, octave: int, semitones: int, *, is_grace: bool = False) -> None:
        """Let an accidental hold for the rest of the bar; of one of a grace note the standard does not say."""
        if self.setting.spread != "not":
            place = letter, octave if self.setting.spread == "octave" else None
            (self.graces if is_grace else self.accidentals)[place] = semitones
            if not is_grace:
                self.graces.pop(place, None)

    def rekey(self) -> None:
        """Let a new signature hold from here on."""
        self.accidentals.clear()
        self.graces.clear()
        self.is_rekeyed = True

    def rest_bars(self, count: int) -> None:
        """Rest for whole bars."""
        if not self.setting.meter:
            raise NotRead("a rest of whole bars without a metre", "write it with z")
        if self.broken or self.tuplet_left:
            raise NotRead("a rest of whole bars in a tuplet or a broken rhythm", "write it with z")
        self.last, self.is_open = _Event(self.time, Fraction(0), []), False
        self._move_to(self.time + count * self.setting.meter[1])

    def tie(self) -> None:
        """Tie all notes of the last event."""
        if not self.is_open or not self.last:
            raise NotRead("a tie that begins at no note", "a - stands right behind a note")
        for sound in self.last.sounds:
            sound.is_tied = True

    def break_rhythm(self, marks: str) -> None:
        """Make the last event longer and the next shorter, or the other way round (section 4.4)."""
        if not self.is_open or not self.last or self.broken or len(marks) > 3:
            raise NotRead("a broken rhythm without two notes", f"{marks} stands between two notes")
        short = Fraction(1, 2 ** len(marks))
        if self.last.length != self.unbroken:
            raise NotRead("a broken rhythm of unequal notes", "one note stands between two signs")
        first, self.broken = (2 - short, short) if marks[0] == ">" else (short, 2 - short)
        self.last.length *= first
        self._move_to(self.last.begin + self.last.length)
        for sound in self.last.sounds:
            sound.row[2] = self.time

    def start_tuplet(self, p: int, q: int | None, r: int | None) -> None:
        """Let the next r events take q/p of their time (section 4.13)."""
        beats = int(self.setting.meter[0].partition("/")[0]) if self.setting.meter else 4
        most = 64 if q else 9  # without the time that they take only those have a meaning
        usual = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(p, 3 if beats > 3 and beats % 3 == 0 else 2)
        q, r = q or usual, r or p
        if self.tuplet_left:
            raise NotRead("a tuplet in a tuplet", "write it in lengths")
        if not (2 <= p <= most and q <= 64 and r <= 64):
            raise NotRead("no valid tuplet", f"{r} notes, {p} in the time of {q}")
        self.tuplet, self.tuplet_left = Fraction(q, p), r

    def bar(self, signs: str) -> None:
        """End a bar, with its accidentals, and what lasts no longer than it."""
        self.end_broken()
        self.is_open = False
        self.accidentals.clear()
        self.graces.clear()
        if self.time and self.bars[-1:] != [self.time]:
            self.bars.append(self.time)
        if re.search(r"\|\||:\||\|\]|\[\||::", signs) and self.endings and self.endings[-1].end is None:
            self.endings[-1].end = self.time  # section 4.10

    def begin_ending(self, number: int) -> None:
        """Begin a variant ending, which goes on from what is before the first of its kind."""
        self.bar("||")
        if self.endings and number > self.endings[-1].number:
            self.last = self.before_endings
        else:
            self.before_endings = self.last
        self.endings.append(_Ending(number, self.time))

    def end_broken(self) -> None:
        if self.broken:
            raise NotRead("a broken rhythm without two notes", "> and < stand between two notes of a bar")

    def end(self) -> None:
        """End the voice.

        Raises:
            NotRead: something has begun and does not end.
        """
        self.end_broken()
        if self.tuplet_left:
            raise NotRead("a tuplet without its notes", f"{self.tuplet_left} are missing at the end")
        if self.endings and self.endings[-1].end is None:
            self.endings[-1].end = self.time


def _lines(tune: str) -> Iterator[str]:
    """Yield the lines of a tune, up to a blank one, without comments and blocks of text; `+:` goes on in one line."""
    before, block = "", ""
    for line in re.split(r"\r\n?|\n", tune.lstrip("\ufeff")):
        if block:
            block = "" if re.match(rf"%%[ \t]*end{block}|end{block}[ \t]*$", line) else block
        elif found := _BLOCK.match(line):
            block = found[1]
        elif line.startswith("%%"):
            yield before
            before = line
        elif line.startswith("+:") and _FIELD.match(before):
            before += f" {_uncommented(line[2:])}"
        elif line.strip():
            if not line.startswith("%"):
                yield before
                before = _uncommented(line)
        elif before:
            break
    if block:
        raise NotRead("a text without its end", f"%%end{block} is missing")
    yield before


def _uncommented(line: str) -> str:
    found = _CODE.match(line)
    return found[0].rstrip() if found else line


class _Tune:
    """The state of reading a tune; its methods `_on_...` take the tokens of that name."""

    def __init__(self) -> None:
        self.shared = _Setting()
        self.properties = dict[str, dict[str, Any]]()  # of the voices that the head names, in order
        self.voices = dict[str, _Voice]()
        self.voice: _Voice | None = None
        self.symbols = set(_SYMBOLS)
        self.has_key = False
        self.key: int | None = None
        self.meter: str | None = None
        self.tempos = list[str]()
        self.unit = Fraction(0)  # of the first note
        self.chord: list[_Written] | None = None
        self.chord_length: Fraction | None = None
        self.breaks_lines = False
        self.handlers = {name: getattr(self, f"_on_{name}") for name in _TOKENS}

    def read(self, tune: str) -> Read:
        """Read the lines, and put the voices together."""
        for line in _lines(tune):
            if line.startswith("%%"):
                self._directive(line[2:])
            elif found := _FIELD.match(line):
                self._field(found[1], found[2].strip())
            elif self.has_key:  # in the head a line without a field goes on with the one before
                if re.match(r"[ \t]*[a-z]:(?![|:])", line):
                    raise NotRead("broken ABC", f"{line[:20]!r} is no field that is known")
                self._music(line)
        if not self.has_key:
            raise NotRead("a key that is not read", "no line begins with K:")
        return self._together()

    @property
    def is_begun(self) -> bool:
        """Whether there has been a note or a rest."""
        return self.unit > 0

    def _field(self, letter: str, value: str) -> None:
        if letter == "K":
            self._key(value)
        elif letter == "M":
            meter = read_meter(value)
            if self.meter is None or not self.is_begun:
                self.meter = meter[0] if meter else ""
            self._set(meter=meter)
        elif letter == "L":
            self._set(unit=read_unit(value))
        elif letter == "Q":
            self.tempos.append(value)
        elif letter == "V":
            self._turn_to(value)
        elif letter == "U":
            self.symbols.update(value[:1])
        elif letter == "I":
            self._directive(value)
        elif letter == "m":
            raise NotRead("a macro", value)

    def _set(self, **changes: Any) -> None:
        """Change the setting of the voice that is on; before any is, of all."""
        if self.voice:
            self.voice.setting = replace(self.voice.setting, **changes)
        else:
            self.shared = replace(self.shared, **changes)

    def _key(self, value: str) -> None:
        key = read_key(value)
        self._set(**key.changes)
        if key.signature is not None:
            self._set(signature=key.signature)
            if self.voice:
                self.voice.rekey()
        if not self.is_begun and (key.signature is not None or not self.has_key):
            self.key = key.index
        if not self.has_key:
            self.has_key, meter = True, self.shared.meter
            if self.shared.unit == 0:  # by the metre of the head, whatever the metre is later (section 3.1.7)
                self._set(unit=Fraction(1, 16 if meter and meter[1] < Fraction(3, 4) else 8))

    def _turn_to(self, value: str) -> None:
        """Go on with a voice, or, in the head, tell of it."""
        name, rest = re.match(r"(\S*)(.*)", value).groups()  # type: ignore[union-attr]  # it matches all
        if name == "*":
            raise NotRead("a voice that is not read", f"V:{value}; write it for each voice")
        changes = read_details(rest, "voice").changes
        if not self.has_key:
            self.properties.setdefault(name, {}).update(changes)
            return
        if name not in self.voices:
            self.voices[name] = _Voice(replace(self.shared, **self.properties.get(name, {})))
        self.voice = self.voices[name]
        self._set(**changes)

    def _on(self) -> _Voice:
        """Return the voice that is on; music before any `V:` is of the first that the head names."""
        if not self.voice:
            self._turn_to(next(iter(self.properties), "1"))
        assert self.voice
        return self.voice

    def _directive(self, text: str) -> None:
        """Obey what concerns how notes sound; the rest concerns how a score looks."""
        name, *values = [*text.replace("=", " ").lower().split(), ""]
        if name == "propagate-accidentals" and values[0] in ("not", "octave", "pitch"):
            self._set(spread=values[0])
        elif name == "linebreak":
            self.breaks_lines = "!" in values
        elif name == "midi" and values[0] in ("nobarlines", "barlines"):
            self._set(spread="not" if values[0] == "nobarlines" else "pitch")
        elif name == "midi" and values[:2] == ["channel", "10"]:
            raise NotRead("percussion", "its notes are no pitches")
        elif name in _MOVING or (name == "midi" and values[0] in _MOVING_MIDI):
            raise NotRead("a directive that is not read", text.strip())

    def _music(self, line: str) -> None:
        at = 0
        while at < len(line):
            if self.chord is not None and line[at] == "]":
                name, found = "chord_end", _CHORD_END.match(line, at)
            else:
                found = _TOKEN.match(line, at)
                name = found.lastgroup or "" if found else ""
            if not found or (self.chord is not None and name not in _IN_CHORDS):
                raise NotRead("broken ABC", f"{line[at : at + 20]!r} is no music")
            begin = found.re.groupindex[name]
            goes_on = self.handlers[name](*found.groups()[begin : begin + _GROUPS[name]])
            at = at + 1 if goes_on else found.end()
        if self.chord is not None:
            raise NotRead("broken ABC", "a [ has no ]")

    def _on_blank(self) -> None:
        pass

    _on_spacer = _on_text = _on_slur = _on_blank

    def _play(self, notes: list[_Written], length: Fraction) -> None:
        voice = self._on()
        if not self.is_begun:
            self.unit = voice.setting.unit
        voice.play(notes, length)

    def _on_note(self, sign: str | None, letter: str, marks: str, *length: str) -> None:
        octave = letter.islower() + marks.count("'") - marks.count(",")
        self._add([_Written(letter.upper(), octave, ACCIDENTALS[sign] if sign else None)], _length(*length))

    def _on_rest(self, *length: str) -> None:
        self._add([], _length(*length))

    def _add(self, notes: list[_Written], length: Fraction) -> None:
        """Play a note or a rest, or add it to the chord that is open."""
        if self.chord is None:
            self._play(notes, length)
        elif self.chord_length not in (None, length):
            raise NotRead("a chord of unequal lengths", "whether its notes last as long as the first is not clear")
        else:
            self.chord += notes
            self.chord_length = length

    def _on_bars_rest(self, count: str) -> None:
        self._on().rest_bars(int(_length(count, "", "")))

    def _on_chord(self) -> None:
        self.chord, self.chord_length = [], None

    def _on_chord_end(self, *length: str) -> None:
        if self.chord is None or self.chord_length is None:
            raise NotRead("broken ABC", "a ] without a chord")
        notes, self.chord = self.chord, None
        self._play(notes, self.chord_length * _length(*length))  # lengths multiply (section 4.17)

    def _on_tie(self) -> None:
        if self.chord is None:
            self._on().tie()
        elif self.chord:
            self.chord[-1] = self.chord[-1]._replace(is_tied=True)
        else:
            raise NotRead("a tie that begins at no note", "a - stands right behind a note")

    def _on_grace(self, notes: str) -> None:
        """Leave out grace notes, but for their accidentals."""
        for sign, letter, marks in _GRACE.findall(notes):
            octave = letter.islower() + marks.count("'") - marks.count(",")
            self._on().alter(letter.upper(), octave, ACCIDENTALS[sign], is_grace=True)

    def _on_inline(self, letter: str, value: str) -> None:
        if letter not in _FIELDS:
            raise NotRead("broken ABC", f"[{letter}:{value}] is no field")
        self._field(letter, value.strip())
        if self.voice:
            self.voice.is_open = False

    def _on_bar(self, signs: str, numbers: str | None) -> None:
        self._on().bar(signs)
        if numbers:
            self._on_ending(numbers, None)

    def _on_ending(self, numbers: str | None, in_quotes: str | None) -> None:
        first = re.match(rf"[1-9]\d{{0,{_MOST_DIGITS - 1}}}(?!\d)", numbers or in_quotes or "")
        if not first:
            raise NotRead("broken ABC", f"{numbers or in_quotes} is no number of an ending")
        self._on().begin_ending(int(first[0]))

    def _on_tuplet(self, *numbers: str | None) -> None:
        p, q, r = (int(each[:_MOST_DIGITS]) if each else None for each in numbers)
        self._on().start_tuplet(p or 0, q, r)

    def _on_broken(self, marks: str) -> None:
        self._on().break_rhythm(marks)

    def _on_symbol(self, letter: str, following: str | None) -> None:
        if letter not in self.symbols and not (letter in _OLD_SYMBOLS and following):
            raise NotRead("words for notes", f"{letter} is no note, and no sign without a U:")

    def _on_bang(self, name: str | None) -> bool:
        """Pass over a decoration, and return whether `!` is a line break instead, behind which music goes on."""
        if name is None or self.breaks_lines:
            return True
        if self._is_decoration(name, "!"):
            return False
        if re.search(r"[\s|]", name) and _MUSIC.fullmatch(name):
            return True
        raise NotRead("an exclamation mark that may be two things", f"!{name}!")

    def _on_plus(self, name: str) -> None:
        if not self._is_decoration(name, "+"):
            raise NotRead("a chord of old", f"+{name}+; write it in brackets")

    def _is_decoration(self, name: str, sign: str) -> bool:
        if _OCTAVE_MARKS.match(name):
            raise NotRead("an octave mark", f"{sign}{name}{sign}")
        is_word = bool(re.fullmatch(r"[^\s|\"]+", name)) and not _MUSIC.fullmatch(name)
        return is_word or name.replace(" ", "") in _DECORATIONS

    def _on_overlay(self) -> None:
        raise NotRead("an overlay", "what follows & is to be a voice of its own")

    def _on_microtone(self) -> None:
        raise NotRead("a microtone", "pitches are semitones")

    def _together(self) -> Read:
        """Return the notes of all voices, in ticks."""
        voices = [voice for voice in self.voices.values() if voice.last]
        for voice in voices:
            voice.end()
        if not self.meter:
            raise NotRead("no valid metre", "none is written")
        cuts = _Cuts(voices)
        _check_bars(voices)
        begin = _upbeat(voices, cuts, Fraction(self.meter))
        rows = list[tuple[int, ...]]()
        for number, voice in enumerate(voices):
            for pitch, onset, end in voice.rows:
                if not cuts.hold(onset):
                    tick, last_tick = (_tick(begin + cuts.moved(each)) for each in (onset, end))
                    rows.append((pitch, _LOUDNESS, tick, max(1, last_tick - tick), number % VOICES, 0))
        tempos = (read_tempo(text, self.unit or Fraction(1, 8)) for text in self.tempos)
        tempo = next((each for each in tempos if each is not None), None)
        notes = np.array(rows, np.int64).reshape(-1, 6)
        return notes, self._sounding_key(voices), self.meter, tempo

    def _sounding_key(self, voices: list[_Voice]) -> int | None:
        if self.key is None or not voices:
            return self.key
        mode, tonic = divmod(self.key, 12)
        return 12 * mode + (tonic + voices[0].setting.semitones) % 12


def _length(number: str, slashes: str, divisor: str) -> Fraction:
    """Return the length of a note in unit lengths: "3", "3/2", "/", "//" (section 4.3)."""
    if not (number or slashes):
        return _ONE
    above, below = int(number[:_MOST_DIGITS] or 1), int(divisor[:_MOST_DIGITS] or 2)
    is_sound = max(len(number), len(divisor), len(slashes)) <= _MOST_DIGITS and (len(slashes) <= 1 or not divisor)
    if not (is_sound and above and below):
        raise NotRead("no valid length", f"{number}{slashes}{divisor}"[:20])
    return Fraction(above, below ** (len(slashes) if slashes else 0))


class _Cuts:
    """The times of all endings that take turns with a later one, which are cut out."""

    def __init__(self, voices: list[_Voice]) -> None:
        times = {
            (ending.begin, ending.end or ending.begin)
            for voice in voices
            for ending, later in pairwise(voice.endings)
            if later.number > ending.number
        }
        cuts = sorted(times)
        if any(first[1] > second[0] for first, second in pairwise(cuts)):
            raise NotRead("voices that do not keep together", "their endings are of different bars")
        self.begins, self.ends = [begin for begin, _ in cuts], [end for _, end in cuts]
        self.before = [Fraction(0), *accumulate(end - begin for begin, end in cuts)]

    def moved(self, time: Fraction) -> Fraction:
        """Return when a time is, without what is cut out before it."""
        number = bisect_left(self.begins, time)
        return time - self.before[number] + max(self.ends[number - 1] - time, Fraction(0)) if number else time

    def hold(self, time: Fraction) -> bool:
        """Whether what begins at a time is cut out."""
        number = bisect_right(self.begins, time)
        return number > 0 and time < self.ends[number - 1]


def _tick(time: Fraction) -> int:
    """Return round(4 * TICKS * time), as fast as it gets."""
    ticks, rest = divmod(4 * TICKS * time.numerator, time.denominator)
    return ticks + (2 * rest > time.denominator or (2 * rest == time.denominator and ticks % 2))


def _check_bars(voices: list[_Voice]) -> None:
    """See that voices keep together: as long as both go on, the bar lines of each are some of the busiest one's."""
    busiest = max(voices, key=lambda voice: len(voice.bars), default=_Voice(_Setting()))
    for voice in voices:
        end = min(voice.time, busiest.time)
        some, all_bars = ({bar for bar in each.bars if bar < end} for each in (voice, busiest))
        if not some <= all_bars:
            raise NotRead("voices that do not keep together", "their bars are of different lengths")


def _upbeat(voices: list[_Voice], cuts: _Cuts, bar: Fraction) -> Fraction:
    """Return when the music begins, in whole notes: a first bar that is too short ends at a bar line."""
    firsts = [next((bar for bar in map(cuts.moved, voice.bars) if bar), voice.time) for voice in voices]
    lengths = [first for first, voice in zip(firsts, voices, strict=True) if first < cuts.moved(voice.time)]
    return max(bar - max(lengths), Fraction(0)) if lengths else Fraction(0)
