"""One file or tune of music: MIDI by mido, ABC and MusicXML by music21, as notes with key, metre and tempo."""

import re
import warnings
from collections import defaultdict
from itertools import accumulate
from typing import Any

import numpy as np

from aigc_sdk.contents.events import DRUMS, TICKS, VOICES, Notes
from aigc_sdk.contents.keys import KEYS, MODE_WORDS, MODES, respelled
from aigc_sdk.contents.music import DRUMS_CHANNEL
from aigc_sdk.data.images import Rejected
from aigc_sdk.errors import missing_package, reason

MIDI_SUFFIXES = (".mid", ".midi")
SCORE_SUFFIXES = (".musicxml", ".xml", ".mxl")

# Notes, key as an index in KEYS, metre and tempo, of which key and tempo may not be written.
Read = tuple[Notes, int | None, str, float | None]

_LOUDNESS = 80

# A field of ABC, on a line of its own or in brackets; in "A:|" the letter is a note.
_FIELD = r"^[A-Zmrsw+]:(?![|:]).*|\[[A-Za-z]:[^\]\n]*\]"
# Strings, decorations and comments, which may hold any character.
_SILENT = r'"[^"\n]*"|![^!\s]*!|%.*'
# Up to its key and the fields behind it a tune is of all voices.
_HEAD = r"\A((?:(?s:.*?)^K:.*\n?)?(?:(?:[A-UW-Z]:(?![|:])|%).*\n)*)"
_VOICE = r"^V:[ \t]*(\S*).*|\[V:[ \t]*([^\s\]]*)[^\]\n]*\]"
_MODE = "(?:ion|dor|phr|lyd|mix|aeo|maj|min|exp)[a-z]*|m"
_KEY = rf"^K:[ \t]*(?i:(HP|none|[A-G][#b]?(?:[ \t]*(?:{_MODE})(?![a-z]))?|(?=%|$)))(?=[\s^_=%]|$).*"
# Of the letters of a tune so many are notes or rests. Of longer bars music21 would look for the metre for hours.
_LEAST_NOTES, _MOST_IN_BAR = 0.4, 256
# A line with a bar line and a note, and of letters only those of notes, rests and decorations.
_BARS = r"^(?=.*\|)(?=.*[A-Ga-g])[A-Ga-gxyzXZHLMOPSTuv\d,'/^_=\[\](){}<>|:.~&$*\\ \t-]+$"


def read_midi(path: str) -> Read | Rejected:
    """Read a MIDI file: each channel of a track is a voice, and a note ends where its pitch begins again.

    Raises:
        MissingPackage: mido is not installed.
    """
    try:
        import mido
    except ImportError as error:
        raise missing_package("Reading MIDI", "mido", "music") from error

    try:
        file = mido.MidiFile(path, clip=True)
    except Exception as error:  # noqa: BLE001 - a broken file may end in anything
        return Rejected("unreadable", reason(error))
    if file.type == 2:
        return Rejected("MIDI of type 2", "its tracks are songs of their own; save each as a file")
    if file.ticks_per_beat <= 0 or file.ticks_per_beat >= 0x8000:
        return Rejected("MIDI in film frames", "its times are no parts of a quarter note")
    timed, voices = list[tuple[int, int, Any]](), dict[tuple[int, int], int]()  # when, of which track, what
    for number, track in enumerate(file.tracks):
        times = accumulate(message.time for message in track)
        timed += [(now, number, message) for now, message in zip(times, track, strict=True)]
        for channel in [message.channel for message in track if message.type == "note_on" and message.velocity]:
            voices.setdefault((number, channel), len(voices) % VOICES)
    timed.sort(key=lambda each: each[0])
    rows, tempos, meters, keys = list[list[int]](), list[tuple[int, int]](), list[str](), list[str]()
    open_notes = dict[tuple[int, int, int], list[int]]()
    programs, ends = defaultdict[int, int](int), defaultdict[int, int](int)
    for now, number, message in timed:
        ends[number] = now
        if message.type == "set_tempo":
            tempos.append((now, message.tempo))
        elif message.type == "time_signature":
            meters.append(f"{message.numerator}/{message.denominator}")
        elif message.type == "key_signature":
            keys.append(message.key)
        elif message.type == "program_change":  # of a channel, in whichever track
            programs[message.channel] = message.program
        elif message.type in ("note_on", "note_off"):
            place = (number, message.channel, message.note)
            if place in open_notes:
                open_notes.pop(place)[3] = now
            if message.type == "note_on" and message.velocity:
                program = DRUMS if message.channel == DRUMS_CHANNEL else programs[message.channel]
                rows.append([message.note, message.velocity, now, now, voices[place[:2]], program])
                open_notes[place] = rows[-1]
    for (number, _, _), left in open_notes.items():  # of a track that ends before they do
        left[3] = ends[number]
    end = max(ends.values(), default=0)
    notes = np.array(rows, np.float64).reshape(-1, 6)
    notes[:, 2:4] = np.rint(notes[:, 2:4] / file.ticks_per_beat * TICKS)
    notes[:, 3] = np.maximum(notes[:, 3] - notes[:, 2], 1)
    key = KEYS.index(respelled(keys[0])) if keys else None
    return notes.astype(np.int64), key, meters[0] if meters else "4/4", _mean_tempo(tempos, end)


def _mean_tempo(tempos: list[tuple[int, int]], end: int) -> float | None:
    """Return quarter notes a minute over the whole file, of (tick, microseconds a quarter)."""
    if not tempos:
        return None
    changes = sorted(tempos)
    if not all(each > 0 for _, each in changes):
        return float("inf")
    spans = np.diff([0, *(tick for tick, _ in changes[1:]), max(end, changes[-1][0], 1)])
    microseconds = float(spans @ [each for _, each in changes])
    return 6e7 * float(spans.sum()) / microseconds


def read_score(source: str, is_abc: bool) -> Read | Rejected:
    """Read one tune of ABC, or a MusicXML file by its path: each part is a voice, and what is repeated is read once.

    Of two endings the second is read. Grace notes, chord symbols and percussion without a pitch are left
    out, and instruments that transpose are read as they sound. Voices of ABC may take turns.

    Raises:
        MissingPackage: music21 is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own insides
            import music21
    except ImportError as error:
        raise missing_package("Reading ABC and MusicXML", "music21", "music") from error

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if is_abc:
                voices = _voices(source)
                if isinstance(voices, Rejected):
                    return voices
                scores: list[Any] = [music21.converter.parseData(voice, format="abc") for voice in voices]
                for part in [part for score in scores[1:] for part in score.parts]:
                    scores[0].insert(0, part)
                return _of_score(scores[0])
            # It would take what it keeps of files, as pickles, from a folder that all users of a machine may write to.
            parsed: Any = music21.converter.parseFile(source, forceSource=True, storePickle=False)
            return _of_score(parsed.toSoundingPitch())
    except Exception as error:  # noqa: BLE001 - music21 has many errors, and a broken file may end in any
        return Rejected("unreadable", reason(error))


def _voices(tune: str) -> list[str] | Rejected:
    """Return a tune of ABC as one tune for each of its voices, in keys that music21 knows.

    It would play a voice that goes on behind another from the beginning, one in brackets as part of the one before,
    and in C what is in a key that it does not know.
    """
    if wrong := [line for line in re.findall("^K:.*", tune, re.M) if not re.match(_KEY, line)]:
        return Rejected("a key that is not read", wrong[0])
    tune = re.sub(_KEY, _plain_key, tune, flags=re.M)
    _, head, body = re.split(_HEAD, tune, maxsplit=1, flags=re.M)
    body = re.sub(_SILENT, "", body)
    music = _without_fields(body)
    if misread := _misread(music):
        return misread
    voices = _joined(re.findall(r"^V:[ \t]*(\S*)", head, re.M), body)
    if len(voices) > 1 and re.search("[XZ]", music):
        return Rejected("rests of whole bars in several voices", "write them bar by bar, with z")
    head = re.sub(r"^V:.*\n?", "", head, flags=re.M)
    return [head + voice for voice in voices] or [tune]


def _misread(music: str) -> Rejected | None:
    """Return what is wrong with notes that music21 would read as others, or for hours."""
    if "&" in music:
        return Rejected("an overlay", "what follows & is to be a voice of its own")
    if len(re.findall("[A-Ga-gz]", music)) < _LEAST_NOTES * len(re.findall("[A-Za-z]", music)):
        return Rejected("words for notes", "most of its letters are no notes, of which music21 would make some")
    bars = [len(re.findall("[A-Ga-gxz]", bar)) for bar in music.split("|")]
    if max(bars) > _MOST_IN_BAR or re.search(r"\d{3}", music):
        return Rejected("a bar that is too long", f"more than {_MOST_IN_BAR} notes, or one of a length of 100 or more")
    return None


def _plain_key(key: re.Match[str]) -> str:
    """Return a key without its clef, for which music21 would transpose; none is what it knows as the Highland pipes."""
    return f"K:{'HP' if key[1].lower() in ('', 'none') else key[1]}"


def _joined(names: list[str], body: str) -> list[str]:
    """Return the music of each voice that has any, in the order of their names, or none where there is no `V:`."""
    first, *turns = re.split(_VOICE, body, flags=re.M)
    if not names and not turns:
        return []
    voices = dict.fromkeys(names, "")
    if _without_fields(first):  # before any V:
        voices[names[0] if names else "1"] = first
    for on_line, in_brackets, music in zip(turns[::3], turns[1::3], turns[2::3], strict=True):
        name = on_line or in_brackets
        voices[name] = f"{voices.get(name, '')}{music}\n"
    # An x is a rest that is not printed; music21 would give it no time.
    audible = [re.sub(f"({_FIELD})|x", lambda each: each[1] or "z", music, flags=re.M) for music in voices.values()]
    return [music for music in audible if _without_fields(music)]


def _without_fields(abc: str) -> str:
    return re.sub(_FIELD, "", abc, flags=re.M).strip()


def is_music(text: str) -> bool:
    r"""Whether lines of a book are music, not words between tunes: one has notes and a bar line, or follows a key.

    Example:
        >>> is_music("ABcd|"), is_music("T:Title\nK:D\nd"), is_music("Collected by Fred | 1901"), is_music("K:D")
        (True, True, False, False)
    """
    notes = _without_fields(re.sub(_SILENT, "", text))
    return bool(re.search(_BARS, notes, re.M) or (notes and re.search(r"^K:[ \t]*[A-G]", text, re.M)))


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
