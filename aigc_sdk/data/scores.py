"""One score: MusicXML by music21, or a tune of ABC by our own parser, as notes, key, metre and tempo."""

import warnings
from typing import Any

import numpy as np

from aigc_sdk.contents.events import TICKS, VOICES
from aigc_sdk.contents.keys import MODE_WORDS, MODES
from aigc_sdk.data.abc import Read, read_abc
from aigc_sdk.data.images import Rejected
from aigc_sdk.errors import missing_package, reason

SCORE_SUFFIXES = (".musicxml", ".xml", ".mxl")

_LOUDNESS = 80


def read_score(source: str, is_abc: bool) -> Read | Rejected:
    """Read one tune of ABC, or a MusicXML file by its path: each part is a voice, and what is repeated is read once.

    Of two endings the second is read. Grace notes, chord symbols and percussion without a pitch are left
    out, and instruments that transpose are read as they sound. Voices of ABC may take turns.

    Raises:
        MissingPackage: it is MusicXML, and music21 is not installed.
    """
    if is_abc:
        return read_abc(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own insides
            import music21
    except ImportError as error:
        raise missing_package("Reading MusicXML", "music21", "music") from error

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # It would take what it keeps of files, as pickles, from a folder that all users of a machine may write to.
            parsed: Any = music21.converter.parseFile(source, forceSource=True, storePickle=False)
            return _of_score(parsed.toSoundingPitch())
    except Exception as error:  # noqa: BLE001 - music21 has many errors, and a broken file may end in any
        return Rejected("unreadable", reason(error))


def _of_score(score: Any) -> Read | Rejected:
    parts = [[*part.getElementsByClass("Measure")] or [part] for part in score.parts]
    meters = [*score.recurse().getElementsByClass("TimeSignature")]
    meter = f"{meters[0].numerator}/{meters[0].denominator}" if meters else ""
    if not meters:
        return Rejected("a metre that is none", "none is written")
    if not parts or not meters[0].numerator:
        return np.zeros((0, 6), np.int64), None, meter, None
    bar = float(meters[0].barDuration.quarterLength)

    # Where each bar begins, in quarter notes: a first one that is too short ends at a bar line.
    skipped = {id(measure) for part in score.parts for measure in _first_endings(part)}
    count = max(map(len, parts))
    barred = [part for part in parts if len(part) > 1] or parts  # of few bar lines music21 makes no bars
    lengths = [max(float(part[i].duration.quarterLength) for part in barred if i < len(part)) for i in range(count)]
    kept = [all(id(part[i]) not in skipped for part in parts if i < len(part)) for i in range(count)]
    begins = np.cumsum([max(0.0, bar - lengths[0]) if count > 1 else 0.0, *np.multiply(lengths, kept)])

    rows = list[tuple[int, ...]]()
    for voice, (part, measures) in enumerate(zip(score.parts, parts, strict=True)):
        program = part.getInstrument(returnDefault=True).midiProgram or 0
        tied = dict[int, int]()  # pitch -> row of the note that goes on
        for i, measure in enumerate(measures):
            for element in measure.recurse().notes if kept[i] else ():
                length = float(element.duration.quarterLength)
                if length <= 0 or "Harmony" in element.classes:
                    continue
                begin = begins[i] + float(element.getOffsetInHierarchy(measure))
                onset, end = round(TICKS * begin), round(TICKS * (begin + length))
                for each in element.notes if hasattr(element, "notes") else (element,):
                    if not hasattr(each, "pitch"):
                        continue
                    pitch, tie = each.pitch.midi, each.tie and each.tie.type
                    loudness = each.volume.velocity or _LOUDNESS
                    if tie in ("stop", "continue") and pitch in tied:
                        begun = rows[tied[pitch]]
                        rows[tied[pitch]] = (*begun[:3], end - begun[2], *begun[4:])
                    else:
                        rows.append((pitch, loudness, onset, max(1, end - onset), voice % VOICES, program))
                        tied[pitch] = len(rows) - 1
                    if tie not in ("start", "continue"):
                        tied.pop(pitch, None)
    keys = [*score.recurse().getElementsByClass("Key")]
    key = _key_of_score(keys[0]) if keys else None
    marks = [*score.recurse().getElementsByClass("MetronomeMark")]
    tempo = _tempo_of_score(marks[0]) if marks else None
    return np.array(rows, np.int64).reshape(-1, 6), key, meter, tempo


def _first_endings(part: Any) -> list[Any]:
    """Return the bars of all endings that take turns with a later one."""
    brackets = [*part.getElementsByClass("RepeatBracket")]
    numbers = [min(bracket.numberRange or [1]) for bracket in brackets]
    taken = [bracket for bracket, number, later in zip(brackets, numbers, numbers[1:], strict=False) if later > number]
    return [measure for bracket in taken for measure in bracket.getSpannedElements()]


def _tempo_of_score(mark: Any) -> float | None:
    if mark.number == 0:  # by which music21 would divide
        return 0.0
    tempo = mark.getQuarterBPM()
    return None if tempo is None else float(tempo)


def _key_of_score(key: Any) -> int | None:
    mode = MODE_WORDS.get(key.mode)
    return None if mode is None else 12 * list(MODES).index(mode) + key.tonic.pitchClass
