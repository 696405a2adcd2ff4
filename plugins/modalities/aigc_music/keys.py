"""Keys: a tonic and a mode, named as musicians and ABC do ("D", "Em", "Ador"), and the scale of each."""

import re

import numpy as np
from numpy.typing import NDArray

# What follows the tonic in a key's name, and which degree of a major scale the mode begins on, in semitones.
MODES = {"": 0, "m": 9, "dor": 2, "mix": 7, "phr": 4, "lyd": 5, "loc": 11}
MODE_NAMES = ("major", "minor", "dorian", "mixolydian", "phrygian", "lydian", "locrian")
MODE_WORDS = dict(zip(MODE_NAMES, MODES, strict=True)) | {"ionian": "", "aeolian": "m"}
MAJOR = (0, 2, 4, 5, 7, 9, 11)

_SHARP = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_FLAT = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
# Sharps of the major key on each of the twelve, flats where negative.
_SHARPS = (0, -5, 2, -3, 4, -1, 6, 1, -4, 3, -2, 5)


def key_name(tonic: int, mode: str) -> str:
    """Return the name of a key, spelled as its signature is, with sharps or with flats.

    Args:
        tonic: semitones above C, 0 to 11.
        mode: one of MODES.

    Example:
        >>> key_name(9, "dor"), key_name(3, ""), key_name(1, "m")
        ('Ador', 'Eb', 'C#m')
    """
    return (_FLAT if _sharps(tonic, mode) < 0 else _SHARP)[tonic] + mode


def _sharps(tonic: int, mode: str) -> int:
    return _SHARPS[(tonic - MODES[mode]) % 12]


# The name of each key, by mode and then by tonic, so that a semitone up is the next one of its twelve.
KEYS = tuple(key_name(tonic, mode) for mode in MODES for tonic in range(12))


def respelled(name: str) -> str:
    """Return the name that KEYS has for a key, however it is written; what names none comes back as it is.

    Example:
        >>> respelled("Gb"), respelled("Ebm"), respelled("e minor"), respelled("Dmaj"), respelled("H")
        ('F#', 'D#m', 'Em', 'D', 'H')
    """
    found = re.fullmatch(r"\s*([A-Ga-g])([#b♯♭]?)\s*([A-Za-z]*)\s*", name)
    if not found or (found[1].islower() and not found[3]):  # major or minor?
        return name
    word = found[3].lower()
    modes = [mode for full, mode in MODE_WORDS.items() if len(word) >= 3 and full.startswith(word)]
    if not modes and found[3] not in ("", "m"):
        return name
    tonic = "C D EF G A B".index(found[1].upper()) + {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(found[2], 0)
    return key_name(tonic % 12, (modes or [found[3]])[0])


def tonic_offset(key: int) -> int:
    """Return how many semitones the tonic of a key, an index in KEYS, is above the nearest C, -5 to 6.

    Example:
        >>> [tonic_offset(KEYS.index(name)) for name in ("C", "D", "F#", "G", "Am")]
        [0, 2, 6, -5, -3]
    """
    return (key % 12 + 5) % 12 - 5


def key_sharps(name: str) -> int:
    """Return the sharps of a key's signature, flats where negative.

    Example:
        >>> key_sharps("D"), key_sharps("Ador"), key_sharps("Eb")
        (2, 1, -3)
    """
    mode, tonic = divmod(KEYS.index(name), 12)
    return _sharps(tonic, list(MODES)[mode])


def note_name(pitch: int, sharps: int) -> str:
    """Return the name of a pitch (MIDI) where so many sharps are the signature, or flats if negative.

    The seven notes of the scale keep to it; others are those that are the fewest fifths away, rather raised ones.

    Example:
        >>> note_name(68, 0), note_name(68, -3), note_name(70, -3), note_name(60, 6)
        ('G#4', 'Ab4', 'Bb4', 'B#3')
    """
    lowest = sharps - 3  # of twelve fifths in a row, as counted from C
    fifths = (7 * pitch - lowest) % 12 + lowest
    raised, letter = divmod(fifths + 1, 7)
    return f"{'FCGDAEB'[letter]}{'#' * raised}{'b' * -raised}{(pitch - raised) // 12 - 1}"


def scale(name: str) -> NDArray[np.int64]:
    """Return the seven pitch classes of a key, int64 (7,), from its tonic on; C is 0.

    Example:
        >>> scale("D").tolist()
        [2, 4, 6, 7, 9, 11, 1]
    """
    mode, tonic = divmod(KEYS.index(name), 12)
    begin = list(MODES.values())[mode]
    degrees = np.array(MAJOR)
    return (np.roll(degrees, -int(np.searchsorted(degrees, begin))) - begin + tonic) % 12
