"""How good the ready-made model of tunes is, and whether events lose nothing.

    python benchmarks/music.py [events] [tunes] [copying] [examples]

`events`: 1,000 tunes of the book become events and notes again; where music21, which reads less of ABC, finds the same
notes, their onsets are held against its.
`tunes`: 1,000 tunes in every metre and in the keys of the book, each saved as MIDI and opened by mido and by music21;
their bars are summed up, and their scales held against those of the tunes trained on. `copying`: which of them hold a
run of 24 notes of those, in any key; the same of tunes that were not trained on is printed beside. `examples`, only if
it is asked for: writes those of docs/music.md.
"""

import argparse
import json
import math
import re
import sys
import warnings
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mido
import music21
import numpy as np

import aigc_sdk as sdk
from aigc_metrics.music import RUN as RUN_OF_NOTES
from aigc_metrics.music import longest_runs, scale_consistency, steps
from aigc_music.abc import read_abc
from aigc_music.data import MusicDataset, bar_ticks, in_full_bars
from aigc_music.events import TICKS, Notes, decode, encode
from aigc_music.item import Music
from aigc_music.keys import KEYS
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.generation import load, model_file
from aigc_sdk.training import Run
from datasets import fetch
from timing import Report

NAME, TUNES = "folk-tunes", 1000
RUN = Path(__file__).parent / "runs" / NAME
DOCS = Path(__file__).parent.parent / "docs" / "images"

MOST_MB, MOST_ONSET_ERROR, LEAST_IN_METER, LEAST_IN_KEY, MOST_COPIED = 4, 1 / 96, 0.9, 0.9, 0.05
LEAST_ON_TONIC = 0.65
# A key that less of the tunes trained on are in is not asked for.
_LEAST_SHARE_OF_KEY = 0.01


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="events, tunes, copying, examples; or the first three")
    parts = parser.parse_args().parts or ["events", "tunes", "copying"]
    report = Report("aigc-sdk", "torch", "onnxruntime", "mido", "music21")
    warnings.simplefilter("ignore")  # of music21's own insides
    checks = {"events": check_events, "tunes": check_tunes, "copying": check_copying, "examples": write_examples}
    for part in parts:
        checks[part](report)
    return report.exit_code


def check_events(report: Report) -> None:
    """Encode and decode 1,000 tunes, and hold their onsets against those that music21 has without us."""
    book = fetch(NAME).read_text(encoding="latin-1")
    # Where endings take turns, one of them is left out in reading.
    plain = [tune for tune in re.split(r"^(?=X:)", book, flags=re.MULTILINE)[1:] if not re.search(r"\[\d|\|\d", tune)]
    same = alike = read = 0
    worst = Fraction(0)
    for tune in plain:
        found = read_abc(tune)
        if isinstance(found, Rejected) or not len(found[0]):
            continue
        notes = found[0][np.lexsort((found[0][:, 0], found[0][:, 2]))]
        again = decode(encode(notes))
        same += np.array_equal(again[:, [0, 2, 3, 4, 5]], notes[:, [0, 2, 3, 4, 5]])
        errors = _errors(again, _of_music21(tune))
        alike += errors is not None
        worst = max(worst, *(errors or [Fraction(0)]))
        read += 1
        if read == TUNES:
            break
    report.at_least("events: tunes", read, TUNES)
    report.at_least("events: decoded to the same notes", same, TUNES)
    report.figure("events: with the notes that music21 reads", alike)
    report.at_most("events: largest error of an onset, quarter notes", float(worst), MOST_ONSET_ERROR)


def _of_music21(tune: str) -> list[tuple[Fraction, int, bool]]:
    """Return onset in quarter notes, pitch, and whether it goes on from a tie, of each note but grace notes."""
    found = [
        (Fraction(note.offset), pitch.midi, note.tie is not None and note.tie.type in ("stop", "continue"))
        for note in music21.converter.parse(tune, format="abc").flatten().notes
        if note.duration.quarterLength > 0 and "Harmony" not in note.classes
        for pitch in note.pitches
    ]
    return sorted(found)


def _errors(notes: Notes, theirs: list[tuple[Fraction, int, bool]]) -> list[Fraction] | None:
    """Return how far each onset is from theirs; None where the notes are others, but for those that go on."""
    left, errors = notes.tolist(), list[Fraction]()
    for onset, pitch, goes_on in theirs:
        error = None
        if left and left[0][0] == pitch:
            error = abs(Fraction(left[0][2] - int(notes[0, 2]), TICKS) - (onset - theirs[0][0]))
        if error is not None and error <= 1 / 8:
            errors.append(error)
            left.pop(0)
        elif not goes_on:
            return None
    return None if left else errors


@cache
def _data() -> tuple[MusicDataset, dict[str, Any]]:
    """Return the tunes as the model was trained on them, and the rows of each part."""
    options: Any = Run.open(RUN).options()
    data = sdk.data.load_music(fetch(NAME), full_bars=options.full_bars)
    return data, data.split(options.validation_fraction, options.test_fraction)


def _notes(part: str) -> Iterator[tuple[Notes, str]]:
    data, parts = _data()
    for row in parts[part].tolist():
        yield decode(data.row_codes(row)), KEYS[data.keys[row]]


@cache
def _tunes() -> list[tuple[Music, str, str]]:
    """Make 1,000 tunes, in all metres alike and in the keys that are frequent; and what was asked for."""
    data, parts = _data()
    share = np.bincount(data.keys[parts["train"]], minlength=len(KEYS)) / len(parts["train"])
    keys = [KEYS[i] for i in np.flatnonzero(share >= _LEAST_SHARE_OF_KEY)]
    meters = list(load(NAME).card.control("meter").choices)
    asked = [(keys[i % len(keys)], meters[i // len(keys) % len(meters)]) for i in range(TUNES)]
    made = list[Music]()
    for batch in range(math.ceil(TUNES / 250)):
        key, meter = map(list, zip(*asked[250 * batch : 250 * (batch + 1)], strict=True))
        made += sdk.generate(NAME, key=key, meter=meter, seed=batch, deadline_s=None)
    return [(tune, *told) for tune, told in zip(made, asked, strict=True)]


def check_tunes(report: Report) -> None:
    """Open, and look at metre and key."""
    for task in ("generate", "stream"):
        report.at_most(f"{task}: size", model_file(NAME, task=task).stat().st_size / 1e6, MOST_MB, "MB")
    print("made:", json.loads((RUN / "made.json").read_text()))
    tunes = _tunes()
    with TemporaryDirectory() as folder:
        sound = [_is_sound(tune, Path(folder) / f"{i}.mid") for i, (tune, _, _) in enumerate(tunes)]
    report.at_least("tunes: open in mido and music21, each note ends, in time", sum(sound), TUNES)
    full = {meter: list[bool]() for _, _, meter in tunes}
    for tune, _, meter in tunes:
        full[meter].append(tune.meter == meter and in_full_bars(tune.to_ticks(), bar_ticks(meter)))
    report.at_least("tunes: share in the metre asked for", sum(map(sum, full.values())) / TUNES, LEAST_IN_METER)
    for meter, found in full.items():
        report.figure(f"  of those in {meter}", sum(found) / len(found))
    of_book = np.array([scale_consistency(notes, key) for notes, key in _notes("train")])
    least = float(np.percentile(of_book, 10))
    made = np.array([scale_consistency(tune.to_ticks(), key) for tune, key, _ in tunes])
    report.figure("scale consistency of the book, 10th percentile", least)
    report.figure("  of held-out tunes, share from there on", _share_from(_notes("test"), least))
    report.at_least("tunes: share in the key asked for", float((made >= least).mean()), LEAST_IN_KEY)
    for name, values in (("book", of_book), ("tunes", made)):
        report.figure(f"scale consistency, mean: {name}", float(values.mean()))
    data, parts = _data()
    told = [(tune.to_ticks(), key, meter) for tune, key, meter in tunes]
    book = [
        (notes, key, data.meter_names[data.meters[row]])
        for (notes, key), row in zip(_notes("train"), parts["train"].tolist(), strict=True)
    ]
    for name, figure in (("notes", _count), ("bars", _bars), ("bars again", _again)):
        for whose, pieces in (("tunes", told), ("book", book)):
            report.figure(f"{whose}: {name}, mean", float(np.mean([figure(*piece) for piece in pieces])))
    for whose, pieces in (("tunes", told), ("book", book)):
        for mode, is_major in (("major", True), ("other", False)):
            found = [_ends_on_tonic(*piece) for piece in pieces if (piece[1] in KEYS[:12]) == is_major]
            report.figure(f"{whose}: share of those in {mode} keys that end on the tonic", float(np.mean(found)))
    for each in full:
        for whose, pieces in (("tunes", told), ("book", book)):
            found = [_ends_on_tonic(*piece) for piece in pieces if piece[2] == each]
            report.figure(f"{whose}: share of those in {each} that end on the tonic", float(np.mean(found)))
    ends = float(np.mean([_ends_on_tonic(*piece) for piece in told]))
    report.at_least("tunes: share that end on the tonic", ends, LEAST_ON_TONIC)
    asked = list(range(1, 51))
    more = [tune for meter in full for tune in sdk.generate(NAME, meter=meter, bars=asked, seed=TUNES)]
    wanted = [_bars(tune.to_ticks(), "", tune.meter) == n for tune, n in zip(more, asked * len(full), strict=True)]
    report.figure(f"of {len(more)} tunes that are asked for 1 to {asked[-1]} bars, share with so many", np.mean(wanted))


def _share_from(tunes: Iterator[tuple[Notes, str]], least: float) -> float:
    return float(np.mean([scale_consistency(notes, key) >= least for notes, key in tunes]))


def _count(notes: Notes, _key: str, _meter: str) -> float:
    return len(notes)


def _bars(notes: Notes, _key: str, meter: str) -> float:
    return math.ceil(int((notes[:, 2] + notes[:, 3]).max() - notes[:, 2].min()) / bar_ticks(meter))


def _ends_on_tonic(notes: Notes, key: str, _meter: str) -> bool:
    return bool(notes[-1, 0] % 12 == KEYS.index(key) % 12)


def _again(notes: Notes, _key: str, meter: str) -> float:
    """Return the share of the bars from the fifth on whose notes are those of the bar 4 or 8 before."""
    bar = bar_ticks(meter)
    bars = [notes[notes[:, 2] // bar == k][:, [0, 2, 3]] - [0, k * bar, 0] for k in range(int(notes[-1, 2]) // bar + 1)]
    found = [any(k >= n and np.array_equal(bars[k], bars[k - n]) for n in (4, 8)) for k in range(4, len(bars))]
    return float(np.mean(found)) if found else 0.0


def _is_sound(tune: Music, path: Path) -> bool:
    """Save a tune, and whether both readers find its notes, all of which end, and no time below zero."""
    file, notes = mido.MidiFile(tune.save(path)), tune.to_ticks()
    begun = ended = 0
    for track in file.tracks:
        sounding = set[tuple[int, int]]()
        for message in track:
            if message.time < 0:
                return False
            if message.type == "note_on" and message.velocity:
                sounding.add((message.channel, message.note))
                begun += 1
            elif message.type in ("note_on", "note_off"):
                sounding.remove((message.channel, message.note))
                ended += 1
        if sounding:
            return False
    read = music21.converter.parse(path, forceSource=True)
    pitches = sorted(pitch.midi for note in read.stripTies().flatten().notes for pitch in note.pitches)
    return begun == ended == len(notes) and pitches == sorted(notes[:, 0].tolist())


def check_copying(report: Report) -> None:
    """Look for runs of notes of the book in the tunes, in any key."""
    corpus = steps(notes for notes, _ in _notes("train"))
    runs = longest_runs([tune.to_ticks() for tune, _, _ in _tunes()], corpus)
    held_out = longest_runs([notes for notes, _ in _notes("test")], corpus)
    copied = float((runs >= RUN_OF_NOTES).mean())
    report.at_most(f"copying: share with {RUN_OF_NOTES} notes of the book", copied, MOST_COPIED)
    report.figure("  of tunes held out", float((held_out >= RUN_OF_NOTES).mean()))
    for name, values in (("tunes", runs), ("tunes held out", held_out)):
        report.figure(f"copying: longest run, median: {name}", float(np.median(values)))
        report.figure(f"copying: longest run, 90 %: {name}", float(np.percentile(values, 90)))


def write_examples(report: Report) -> None:
    """Write the tunes of the first example that anyone sees, as MIDI and as piano rolls; none is chosen."""
    for i, tune in enumerate(sdk.generate(NAME, 4, key="D", meter="6/8", seed=7), 1):
        tune.save(DOCS / f"{NAME}-{i}.mid")
        tune.to_pil().quantize(16).save(DOCS / f"{NAME}-{i}.png")
        report.figure(f"example {i}: notes", len(tune.data))


if __name__ == "__main__":
    sys.exit(main())
