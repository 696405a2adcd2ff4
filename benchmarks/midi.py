"""Whether MIDI is read as pretty_midi and symusic read it: notes of 200 files of three sources.

    python benchmarks/midi.py [--openmsx FOLDER] [--judges PYTHON] [--json PATH]

The files are those of Debian's openttd-openmsx, those that music21 brings, and files made by mido, each of which has
one oddity among 100 random notes. A note is the same where its pitch and program are, and its onset and duration in
48ths of a quarter note. The judges run in an environment of their own: PYTHON has both, or one is made.

Where they differ from each other, this is who is followed, and why:
- one note-off ends all that sound of a pitch (pretty_midi), or the oldest (symusic): the oldest, as many as were begun;
- a note has the program of its end (pretty_midi) or of its begin (symusic): of its begin, as it sounds;
- a note of no length is left out (pretty_midi) or kept (symusic): left out, and named;
- a bad meta event costs the file (pretty_midi) or nothing (symusic): nothing, and it is named.
"""

import argparse
import json
import random
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mido
import numpy as np

from aigc_music.events import TICKS
from aigc_music.midi import read_midi
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.files import cache_folder
from timing import Report

JUDGES = ("pretty_midi==0.2.11.post0", "symusic==0.6.0")
FILES, LEAST_SAME = 200, 99.0

Events = list[tuple[int, Any]]  # (tick, message)

# Run by the judges' own Python: for each file what both read, as (pitch, begin, end, program) in ticks of the file.
_JUDGE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import pretty_midi, symusic
def pretty(path):
    read = pretty_midi.PrettyMIDI(path)
    tick = lambda time: int(read.time_to_tick(time))
    notes = [(i, n) for i in read.instruments for n in i.notes]
    rows = [(n.pitch, tick(n.start), tick(n.end), 128 if i.is_drum else int(i.program)) for i, n in notes]
    return read.resolution, rows
def sym(path):
    read = symusic.Score(path)
    notes = [(t, n) for t in read.tracks for n in t.notes]
    rows = [(n.pitch, n.time, n.time + n.duration, 128 if t.is_drum else t.program) for t, n in notes]
    return read.ticks_per_quarter, rows
for path in sys.stdin.read().splitlines():
    told = {}
    for name, read in (("pretty_midi", pretty), ("symusic", sym)):
        try:
            told[name] = read(path)
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(told))
"""


def main() -> int:
    """Read all files with all three; return 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--openmsx", type=Path, help="a folder of the .mid files of openttd-openmsx")
    parser.add_argument("--judges", type=Path, help="a Python that has pretty_midi and symusic")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "mido", "music21")
    with TemporaryDirectory() as folder:
        files = sources(arguments.openmsx, Path(folder))
        asked = "\n".join(str(path) for path, _ in files)
        judged = subprocess.run(
            [arguments.judges or judges(), "-c", _JUDGE], input=asked, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        told = [compare(path, kind, json.loads(line)) for (path, kind), line in zip(files, judged, strict=True)]
    say(report, told)
    return report.exit_code


def judges() -> Path:
    """Return the Python of an environment that has both, which is made on first use."""
    folder = cache_folder() / "midi-judges"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "setuptools", *JUDGES], check=True)
    return python


def sources(openmsx: Path | None, folder: Path) -> list[tuple[Path, str]]:
    """Return 200 files with what they are: of openttd-openmsx, of music21, and as many made ones as it takes."""
    if openmsx is None:
        subprocess.run(["apt-get", "download", "-q", "openttd-openmsx"], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", *folder.glob("*.deb"), folder / "deb"], check=True)
        openmsx = folder / "deb"
    spec = find_spec("music21")
    assert spec is not None and spec.origin is not None
    found = [(path, "openttd-openmsx") for path in sorted(openmsx.rglob("*.mid"))]
    found += [(path, "music21") for path in sorted(Path(spec.origin).parent.rglob("*.mid"))]
    for i in range(FILES - len(found)):
        oddity = list(ODDITIES)[i % len(ODDITIES)]
        path = folder / f"{i:03} {oddity}.mid"
        make(path, oddity, i)
        found.append((path, f"made: {oddity}"))
    return found


def _meta(kind: int, *data: int) -> Callable[[random.Random], Events]:
    return lambda _: [(0, mido.UnknownMetaMessage(kind, data=data))]


def _on(tick: int, pitch: int, channel: int = 0) -> tuple[int, Any]:
    return tick, mido.Message("note_on", note=pitch, velocity=80, channel=channel)


def _off(tick: int, pitch: int, channel: int = 0) -> tuple[int, Any]:
    return tick, mido.Message("note_off", note=pitch, channel=channel)


def _program(tick: int, value: int) -> tuple[int, Any]:
    return tick, mido.Message("program_change", program=value)


def _pedal(tick: int, value: int) -> tuple[int, Any]:
    return tick, mido.Message("control_change", control=64, value=value)


# What stands before the notes of the first track. Pitch 100 is none of theirs.
ODDITIES: dict[str, Callable[[random.Random], Events]] = {
    "plain": lambda _: [],
    "on before off at one tick": lambda _: [_on(0, 100), _on(480, 100), _off(480, 100), _off(960, 100)],
    "off before on at one tick": lambda _: [_on(0, 100), _off(480, 100), _on(480, 100), _off(960, 100)],
    "two sound at once": lambda _: [_on(0, 100), _on(240, 100), _off(480, 100), _off(960, 100)],
    "no length": lambda _: [_on(0, 100), _off(0, 100)],
    "no end": lambda _: [_on(0, 100)],
    "program while a note sounds": lambda _: [_on(0, 100), _program(240, 41), _off(480, 100)],
    "program": lambda rng: [_program(0, rng.randrange(128))],
    "two tempos at one tick": lambda _: [(0, mido.MetaMessage("set_tempo", tempo=t)) for t in (1_000_000, 400_000)],
    "late tempo": lambda _: [(960, mido.MetaMessage("set_tempo", tempo=300_000))],
    "key of 8 sharps": _meta(0x59, 8, 0),
    "short key": _meta(0x59, 0),
    "short tempo": _meta(0x51, 7, 161),
    "metre of no beats": _meta(0x58, 0, 2, 24, 8),
    "upbeat metre": lambda _: [
        (tick, mido.MetaMessage("time_signature", numerator=n, denominator=4)) for tick, n in ((0, 1), (480, 4))
    ],
    "pedal": lambda _: [_pedal(0, 127), _pedal(2000, 0)],
    "sysex": lambda _: [(0, mido.Message("sysex", data=(1, 2, 3)))],
    "bend": lambda _: [(100, mido.Message("pitchwheel", pitch=500))],
}


def make(path: Path, oddity: str, seed: int) -> None:
    """Write a file of two tracks on one channel, of which the first has the oddity, and one of drums."""
    rng = random.Random(seed)
    file = mido.MidiFile(ticks_per_beat=rng.choice((96, 480, 960)))
    for number, channel in enumerate((0, 0, 9)):
        events = [] if number else ODDITIES[oddity](rng)
        now = 0
        for _ in range(40 if number < 2 else 20):
            pitch, lasts = rng.randrange(40, 90), rng.randrange(24, 960)
            events += [_on(now, pitch, channel), _off(now + lasts, pitch, channel)]
            now += lasts
        track, before = mido.MidiTrack(), 0
        for tick, message in sorted(events, key=lambda each: each[0]):
            track.append(message.copy(time=tick - before))
            before = tick
        file.tracks.append(track)
    file.save(path)


def compare(path: Path, kind: str, judged: dict[str, Any]) -> dict[str, Any]:
    """Return how many notes of a file are the same, by judge, and what was said of it."""
    ours = read_midi(str(path))
    told: dict[str, Any] = {"file": path.name, "kind": kind}
    told["said"] = list(ours) if isinstance(ours, Rejected) else list(ours.flaws)
    notes = [] if isinstance(ours, Rejected) else ours.notes[:, [0, 2, 3, 5]].tolist()
    for name, read in judged.items():
        if isinstance(read, str):
            told[name] = read
            continue
        division, rows = read
        theirs = [(pitch, *_in_48ths(begin, end, division), program) for pitch, begin, end, program in rows]
        mine, other = (Counter(_from_first(each)) for each in (notes, theirs))
        told[name] = {"same": (mine & other).total(), "ours": mine.total(), "theirs": other.total()}
    return told


def _in_48ths(begin: int, end: int, division: int) -> tuple[int, int]:
    first, last = (int(np.rint(tick / division * TICKS)) for tick in (begin, end))
    return first, max(last - first, 1)


def _from_first(notes: list[Any]) -> list[tuple[int, ...]]:
    """Return notes with onsets from that of the first on: where bar lines lie is not compared."""
    first = min((onset for _, onset, _, _ in notes), default=0)
    return [(pitch, onset - first, lasts, program) for pitch, onset, lasts, program in notes]


def say(report: Report, told: list[dict[str, Any]]) -> None:
    """Print the figures, and each kind of file that is not the same with all judges."""
    report.at_least("files", len(told), FILES)
    for name in ("pretty_midi", "symusic"):
        read = [each for each in told if isinstance(each[name], dict)]
        same, most = (sum(value(each[name]) for each in read) for value in (_same, _most))
        alike = sum(_same(each[name]) == _most(each[name]) for each in read)
        report.figure(f"files that {name} reads", len(read))
        report.figure("of which all notes are the same", alike)
        report.at_least("notes that are the same, of all that either has", 100 * same / max(most, 1), LEAST_SAME, "%")
    both = [each for each in told if any(_is_same(each[name]) for name in ("pretty_midi", "symusic"))]
    report.at_least("files whose notes are all those of a judge", 100 * len(both) / len(told), LEAST_SAME, "%")
    kinds = set[str]()
    for each in told:  # of those that were made, one of a kind
        if each["kind"] not in kinds and not all(_is_same(each[name]) for name in ("pretty_midi", "symusic")):
            kinds |= {each["kind"]} if each["kind"].startswith("made") else set()
            print(json.dumps(each))


def _same(one: dict[str, int]) -> int:
    return one["same"]


def _most(one: dict[str, int]) -> int:
    return one["ours"] + one["theirs"] - one["same"]


def _is_same(one: Any) -> bool:
    return isinstance(one, dict) and _same(one) == _most(one)


if __name__ == "__main__":
    sys.exit(main())
