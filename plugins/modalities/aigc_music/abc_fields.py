"""Fields of ABC 2.1 that say how notes sound: key, clef, metre, unit length and tempo."""

import re
from dataclasses import dataclass, field
from fractions import Fraction

from aigc_music.keys import MAJOR, MODE_WORDS, MODES

# Semitones of a letter above C, and of an accidental.
STEPS = dict(zip("CDEFGAB", MAJOR, strict=True))
ACCIDENTALS = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}
# In which order sharps come into a signature, and how many a major key on each letter has.
_FIFTHS = "FCGDAEB"
# What a mode takes from the sharps of the major key on its tonic.
_FLATTER = {"": 0, "m": 3, "dor": 2, "mix": 1, "phr": 4, "lyd": -1, "loc": 5}

# Numbers of more digits are no lengths, metres or tempos.
NUMBER = r"\d{1,4}"

_MODE = "(?:maj|min|ion|dor|phr|lyd|mix|aeo|loc)[A-Za-z]*"
# A small letter is a tonic where a mode follows; "g" alone is not.
_TONIC = re.compile(rf"([A-G])([#b♯♭]?)[ \t]*([A-Za-z]*)|([a-g])([#b♯♭]?)[ \t]*((?i:{_MODE})|m)(?![A-Za-z])")
# What the highland pipes play, whether it stands in a signature (K:Hp) or not (K:HP), see section 3.1.14.
_PIPES = {"F": 1, "C": 1}
_CLEF = re.compile(
    r"(?:treble|alto|tenor|bass|perc|none|soprano|mezzosoprano|baritone|[GCF](?=[\d+-]))\d?([+-](?:8|15))?"
)
_DETAIL = re.compile(
    r"[\s,]*(?:(\^\^?|__?|=)([A-Ga-g])(?![A-Za-z])|([A-Za-z][A-Za-z:-]*)=(\"[^\"]*\"|[^\s\"]*)|([^\s^_=,]+)|.)"
)
_BEATS = re.compile(rf"({NUMBER})[ \t]*/[ \t]*({NUMBER})")


class NotRead(Exception):
    """Why a tune is left out: its arguments are those of `Rejected`."""


@dataclass(frozen=True)
class Details:
    """What stands in a `K:` or `V:` field behind the key or the name.

    Attributes:
        accidentals: semitones by letter.
        changes: octaves, clef_octaves and semitones, of those that are named.
        is_explicit: whether "exp" is there: no accidentals but those.
    """

    accidentals: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    is_explicit: bool = False


def read_details(text: str, what: str) -> Details:
    """Read accidentals, clef, octave and transposition; what says only how the score looks is passed over.

    Raises:
        NotRead: a clef of percussion, a number that is not valid, or words of a key that have no meaning.
    """
    accidentals, changes, is_explicit = dict[str, int](), dict[str, int](), False
    for found in _DETAIL.finditer(text.rstrip()):
        sign, letter, name, value, word = found.groups()
        if sign:
            accidentals[letter.upper()] = ACCIDENTALS[sign]
        elif name:
            changes |= _change(name.lower(), value.strip('"'), what)
        elif word == "exp":
            is_explicit = True
        elif word and (clef := _clef(word)) is not None:
            changes["clef_octaves"] = clef
        elif what == "key":
            raise NotRead(f"a {what} that is not read", text.strip())
    return Details(accidentals, changes, is_explicit)


def _change(name: str, value: str, what: str) -> dict[str, int]:
    """Return what a named detail changes."""
    if name == "clef":
        return {"clef_octaves": _clef(value) or 0}
    # Of ABC 2.2 and programs, which do not agree on them; an instrument may be a word, too.
    if name in ("sound", "shift") or (name == "instrument" and re.fullmatch(r"[A-Ga-g^_=#,'/]+", value)):
        raise NotRead("a transposition that is not read", f"{name}={value}; write it as transpose=")
    unit = {"octave": "octaves", "transpose": "semitones", "t": "semitones"}.get(name)
    if unit is None:  # name, middle, stafflines, stems, and what programs have of their own
        return {}
    if not re.fullmatch(r"[+-]?\d{1,2}", value):
        raise NotRead(f"a {what} that is not read", f"{name}={value}")
    return {unit: int(value)}


def _clef(word: str) -> int | None:
    """Return by how many octaves a clef moves what is played, or None where it is no clef that is known."""
    found = _CLEF.fullmatch(word)
    if word.startswith("perc"):
        raise NotRead("percussion", "its notes are no pitches")
    return {"8": 1, "15": 2}[found[1][1:]] * (-1 if found[1][0] == "-" else 1) if found and found[1] else found and 0


@dataclass(frozen=True)
class Key:
    """A `K:` field: a signature, semitones by letter (None: as before), an index in KEYS or None, and details."""

    signature: dict[str, int] | None
    index: int | None
    changes: dict[str, int]


def read_key(text: str) -> Key:
    """Read a key.

    Raises:
        NotRead: it is no key that is known.

    Example:
        >>> read_key("Ddor ^c"), read_key("bass").signature
        (Key(signature={'F': 0, 'C': 1, 'G': 0, 'D': 0, 'A': 0, 'E': 0, 'B': 0}, index=26, changes={}), None)
    """
    text = text.strip()
    if found := re.match(r"(none|H[Pp])(?![A-Za-z])", text, re.IGNORECASE if text[:1] in "nN" else 0):
        details = read_details(text[found.end() :], "key")
        is_pipes = text[0] == "H" and not details.is_explicit
        return Key((_PIPES if is_pipes else {}) | details.accidentals, None, details.changes)
    tonic = _TONIC.match(text)
    if not tonic:
        details = read_details(text, "key")
        is_signature = details.is_explicit or details.accidentals or not text
        return Key(details.accidentals if is_signature else None, None, details.changes)
    letter, sign, word = tonic.groups()[:3] if tonic[1] else tonic.groups()[3:]
    mode, end = _mode(word, tonic, text)
    details = read_details(text[end:], "key")
    if details.is_explicit:
        return Key(details.accidentals, None, details.changes)
    sharp = {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(sign, 0)
    fifths = _FIFTHS.index(letter.upper()) - 1 + 7 * sharp - _FLATTER[mode]
    signature = {each: (fifths - 1 - place) // 7 + 1 for place, each in enumerate(_FIFTHS)}
    index = 12 * list(MODES).index(mode) + (STEPS[letter.upper()] + sharp) % 12
    return Key(signature | details.accidentals, index, details.changes)


def _mode(word: str, tonic: re.Match[str], text: str) -> tuple[str, int]:
    """Return the mode of a key and where the details behind it begin."""
    if re.fullmatch(_MODE, word.lower()):
        return next(mode for full, mode in MODE_WORDS.items() if full.startswith(word[:3].lower())), tonic.end()
    if word == "m":
        return "m", tonic.end()
    begin = tonic.end() - len(word)
    if word and word != "exp" and not text[begin - 1].isspace():
        raise NotRead("a key that is not read", text)
    return "", begin


def read_meter(text: str) -> tuple[str, Fraction] | None:
    """Read a metre: its name and the length of its bar in whole notes, or None where there is none.

    Raises:
        NotRead: it is no metre.

    Example:
        >>> read_meter("C|"), read_meter("(2+3)/8"), read_meter("none")
        (('2/2', Fraction(1, 1)), ('5/8', Fraction(5, 8)), None)
    """
    text = re.sub(r"\s", "", text)
    if text.lower() in ("", "none"):
        return None
    text = {"C": "4/4", "C|": "2/2"}.get(text, text)
    found = re.fullmatch(rf"\(?({NUMBER}(?:\+{NUMBER}){{0,20}})\)?/({NUMBER})", text)
    beats, unit = (sum(map(int, found[1].split("+"))), int(found[2])) if found else (0, 0)
    if not beats or not unit:
        raise NotRead("no valid metre", text)
    return f"{beats}/{unit}", Fraction(beats, unit)


def read_unit(text: str) -> Fraction:
    """Read the length of a note without a number, in whole notes.

    Raises:
        NotRead: it is none.
    """
    found = re.fullmatch(rf"({NUMBER})(?:[ \t]*/[ \t]*({NUMBER}))?", text.strip())
    if not found or not int(found[1]) or not int(found[2] or 1):
        raise NotRead("a unit length that is not read", text.strip())
    return Fraction(int(found[1]), int(found[2] or 1))


def read_tempo(text: str, unit: Fraction) -> float | None:
    """Read how many quarter notes a minute has, or None where words alone say it.

    Args:
        text: what stands in `Q:`.
        unit: the unit length; an old tempo, "120" or "C3=40", counts in it.

    Example:
        >>> read_tempo('"Allegro" 3/8=80', Fraction(1, 8)), read_tempo("120", Fraction(1, 8)), read_tempo('"Slow"', 1)
        (120.0, 60.0, None)
    """
    text = re.sub(r'"[^"]*"', "", text).strip()
    beats, _, rate = text.rpartition("=")
    found = re.match(r"[ \t]*(\d{1,9}(?:\.\d{1,4})?)", rate)
    if not found:
        return None
    old = re.fullmatch(rf"(?:[A-Ga-gL]({NUMBER})?(?:/({NUMBER}))?)?", beats.strip())
    lengths = [(int(a), int(b)) for a, b in _BEATS.findall(beats)]
    if old:
        lengths = [(int(old[1] or 1), int(old[2] or 1))]
    if not lengths or not all(b for _, b in lengths):
        return None
    return float(4 * (unit if old else 1) * sum(Fraction(a, b) for a, b in lengths) * Fraction(found[1]))
