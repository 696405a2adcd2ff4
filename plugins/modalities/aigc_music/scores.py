"""One score: MusicXML by music21, or a tune of ABC by our own parser, as notes, key, metre and tempo."""

import warnings
import zipfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from aigc_music.abc import Read, read_abc
from aigc_music.events import DRUMS, TICKS, VOICES, Notes
from aigc_music.item import DRUMS_CHANNEL
from aigc_music.keys import MODE_WORDS, MODES
from aigc_music.tonality import find_key
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.errors import missing_package, reason

SCORE_SUFFIXES = (".musicxml", ".xml", ".mxl")

_LOUDNESS = 80


def read_score(source: str, is_abc: bool) -> Read | Rejected:
    """Read one tune of ABC, or a MusicXML file by its path: each part is a voice, and what is repeated is read once.

    Of two endings the second is read. Grace and cue notes, chord symbols and percussion without a pitch are left
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
            # Of files it would keep pickles in a folder that all users of a machine may write to.
            parsed: Any = music21.converter.parseData(_partwise(source), format="musicxml")
            return _of_score(parsed.toSoundingPitch())
    except Exception as error:  # noqa: BLE001 - music21 has many errors, and a broken file may end in any
        return Rejected("unreadable", reason(error))


def _partwise(path: str) -> str:
    """Return a MusicXML file as music21 reads it right: unpacked, part by part, and with plain bars."""
    data = Path(path).read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            data = archive.read(_root_of(archive))
    root = ElementTree.fromstring(data)  # noqa: S314 - expat bounds entities, and music21 reads with it too
    if root.tag == "score-timewise":
        root.tag = "score-partwise"
        measures = root.findall("measure")
        parts = {part.get("id", ""): part for measure in measures for part in measure.findall("part")}
        for measure in measures:
            root.remove(measure)
        for name in parts:
            whole = ElementTree.SubElement(root, "part", id=name)
            for measure in measures:
                bar = ElementTree.SubElement(whole, "measure", measure.attrib)
                bar.extend(each for part in measure.findall("part") if part.get("id") == name for each in part)
    for bar in root.iter("measure"):
        bar[:] = _plain(bar)
    for transpose in root.iter("transpose"):  # of which the diatonic part may be missing
        octave, chromatic = transpose.find("octave-change"), transpose.find("chromatic")
        if transpose.find("diatonic") is None and octave is not None and chromatic is not None:
            chromatic.text = str(int(chromatic.text or 0) + 12 * int(octave.text or 0))
            transpose.remove(octave)
    return ElementTree.tostring(root, encoding="unicode")


def _plain(bar: ElementTree.Element) -> list[ElementTree.Element]:
    """Return what is in a bar, without what music21 takes for something else.

    Notes of a chord stand one by one, as each may be a cue or have a length of its own; what is silent, or skipped by
    a forward, is a rest, as it fills the bar; of a tempo that is written and one that is to sound the latter is left.
    """
    plain, head = list[ElementTree.Element](), Decimal(0)
    for each in bar:
        if each.tag == "note" and each.find("grace") is not None:
            continue
        plain.append(each)
        if each.tag == "forward":
            _silence(each)
        elif each.tag == "direction" and any(s.get("tempo", "").strip("0.") for s in each.findall("sound")):
            for kind in [kind for kind in each.findall("direction-type") if kind.find("metronome") is not None]:
                each.remove(kind)
        elif each.tag == "note":
            dynamics, chord = each.get("dynamics"), each.find("chord")
            if each.find("cue") is not None or (dynamics and not dynamics.strip("0.")):
                _silence(each)
            length = Decimal(each.findtext("duration", "0"))
            if chord is None:
                head = length
                continue
            each.remove(chord)
            plain.insert(-1, _moving("backup", head))
            if length > head:
                plain.append(_moving("backup", length - head))
            elif length < head:
                plain.append(_moving("forward", head - length))
                _silence(plain[-1])
    return plain


def _moving(tag: str, length: Decimal) -> ElementTree.Element:
    element = ElementTree.Element(tag)
    ElementTree.SubElement(element, "duration").text = str(length)
    return element


def _root_of(archive: zipfile.ZipFile) -> str:
    """Return the name of the score in a packed file: what its container says, or else the first one."""
    names = archive.namelist()
    if "META-INF/container.xml" in names:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))  # noqa: S314 - as above
        for each in container.iter():
            kind = each.get("media-type", "application/vnd.recordare.musicxml+xml")
            if each.tag.rpartition("}")[2] == "rootfile" and "musicxml" in kind and each.get("full-path") in names:
                return each.attrib["full-path"]
    return next(name for name in names if not name.startswith("META-INF/") and name.endswith((".xml", ".musicxml")))


def _silence(note: ElementTree.Element) -> None:
    """Make a rest of a note, or of a forward."""
    note.tag = "note"
    for tag in ("cue", "pitch", "unpitched", "tie", "notations", "beam", "lyric"):
        for each in note.findall(tag):
            note.remove(each)
    if note.find("rest") is None:
        note.insert(0, ElementTree.Element("rest"))


def _of_score(score: Any) -> Read | Rejected:
    parts = [[*part.getElementsByClass("Measure")] or [part] for part in score.parts]
    meters = [*score.recurse().getElementsByClass("TimeSignature")]
    meter = f"{meters[0].numerator}/{meters[0].denominator}" if meters else ""
    if not meters:
        return Rejected("no valid metre", "none is written")
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
        instrument = part.getInstrument(returnDefault=True)
        program = DRUMS if instrument.midiChannel == DRUMS_CHANNEL else instrument.midiProgram or 0
        tied = defaultdict[tuple[int, int], list[int]](list)  # pitch and end -> rows of notes that go on
        for i, measure in enumerate(measures):
            for element in measure.recurse().notes if kept[i] else ():
                length = float(element.duration.quarterLength)
                if length <= 0 or "Harmony" in element.classes or not hasattr(element, "pitch"):
                    continue
                if element.pitch.ps % 1:
                    return Rejected("a microtone", "pitches are semitones")
                begin = begins[i] + float(element.getOffsetInHierarchy(measure))
                onset, end = round(TICKS * begin), round(TICKS * (begin + length))
                pitch, tie = element.pitch.midi, element.tie and element.tie.type
                # Times are rounded, so that one note may seem to end a tick before the other begins.
                ends = [(pitch, onset + by) for by in (0, -1, 1) if tied.get((pitch, onset + by))]
                row = len(rows)
                if tie in ("stop", "continue") and ends:
                    row = tied[ends[0]].pop()
                    rows[row] = (*rows[row][:3], end - rows[row][2], *rows[row][4:])
                else:
                    loudness = element.volume.velocity or _LOUDNESS
                    rows.append((pitch, loudness, onset, max(1, end - onset), voice % VOICES, program))
                if tie in ("start", "continue"):
                    tied[pitch, end].append(row)
    notes = np.array(rows, np.int64).reshape(-1, 6)
    keys = [*score.recurse().getElementsByClass("KeySignature")]
    return notes, _key_of_score(keys[0], notes) if keys else None, meter, _tempo_of_score(parts, kept, begins)


def _first_endings(part: Any) -> list[Any]:
    """Return the bars of all endings that take turns with a later one."""
    brackets = [*part.getElementsByClass("RepeatBracket")]
    numbers = [min(bracket.numberRange or [1]) for bracket in brackets]
    taken = [bracket for bracket, number, later in zip(brackets, numbers, numbers[1:], strict=False) if later > number]
    return [measure for bracket in taken for measure in bracket.getSpannedElements()]


def _tempo_of_score(parts: list[list[Any]], kept: list[bool], begins: NDArray[np.float64]) -> float | None:
    """Return quarter notes a minute over the whole piece, whichever part says them; 0 where one is 0."""
    tempos = dict[float, float]()
    for measures in parts:
        for i, measure in enumerate(measures):
            for mark in measure.recurse().getElementsByClass("MetronomeMark") if kept[i] else ():
                # By 0 music21 would divide.
                tempo = 0.0 if 0 in (mark.number, mark.numberSounding) else mark.getQuarterBPM()
                if tempo is not None:
                    tempos[float(begins[i]) + float(mark.getOffsetInHierarchy(measure))] = float(tempo)
    end = float(begins[-1])
    times = [time for time in sorted(tempos) if time < end or time == min(tempos)]
    if not times or not all(tempos[time] > 0 for time in times):
        return 0.0 if times else None
    spans = np.maximum(np.diff([min(float(begins[0]), times[0]), *times[1:], max(end, times[-1] + 1e-6)]), 0)
    return float(spans.sum() / (spans / [tempos[time] for time in times]).sum())


def _key_of_score(key: Any, notes: Notes) -> int | None:
    """Return the key; of a signature without a mode the major key or the relative minor one, by the notes."""
    mode = MODE_WORDS.get(getattr(key, "mode", None) or "")
    if mode is not None:
        return 12 * list(MODES).index(mode) + int(key.tonic.pitchClass)
    if hasattr(key, "tonic") or key.sharps is None or not len(notes):
        return None
    major = 7 * int(key.sharps) % 12
    return find_key(notes, (major, 12 + (major + 9) % 12))
