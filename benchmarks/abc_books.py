"""How right ABC is read: the tunes of two printed collections against abc2midi, and mutations of them against crashes.

    apt-get install abcmidi
    python benchmarks/abc_books.py [--json FILE]

`books`: all 3,068 tunes of O'Neill's Music of Ireland and Ryan's Mammoth Collection, as music21 carries them. abc2midi
is a judge, which the SDK does not need; it plays no grace notes and guitar chords (-NGRA -NGUI), and is given the tunes
without what it adds of its own: repeats are undone, decorations and the swing of hornpipes left away, chords not
spread. The same pitch, onset and duration of all notes, within 0.03 of a quarter note, is what counts. Where both
differ, the list says who is right and why. `speed`: CPU time of both, of every fortieth tune. `mutations`: 10,000 tunes
in which characters are changed; none may raise an error of Python's or take longer than a second.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import mido
import music21

from aigc_music.abc import read_abc
from aigc_music.events import TICKS
from aigc_sdk.data.dataset import Rejected
from timing import Report

CORPUS = Path(music21.__file__).parent / "corpus"
BOOKS = ("oneills1850", "ryansMammoth")
PACKAGES = ("aigc-sdk", "music21", "mido")

LEAST_TUNES, LEAST_READ, LEAST_ALIKE, LEAST_FASTER, MUTATIONS, MOST_SECONDS = 1000, 0.98, 0.995, 10, 10_000, 1.0
TOLERANCE = 0.03  # quarter notes

_SIMPLE = "ours: 3/4 is no compound time, so (5 and (9 are in the time of two (standard, section 4.13)"
# Who is right where the two differ, each looked at.
WHO_IS_RIGHT = {
    ("0001-0050.abc", "25"): _SIMPLE,
    ("0051-0100.abc", "71"): _SIMPLE,
    ("0051-0100.abc", "94"): _SIMPLE,
    ("0101-0200.abc", "174"): _SIMPLE,
}

# Strings, comments and fields, in which nothing is music; tuplets and chords; bar lines with the number of an ending;
# what abc2midi plays as more than a note: decorations and staccato dots.
_TOKENS = re.compile(
    r"(?P<kept>\"[^\"\n]*\"|^[A-Za-z]:(?![|:]).*$|\[[A-Za-z]:[^\]\n]*\]|%.*$)"
    r"|(?P<whole>\(\d[:\d]*|\[(?![\d|:\]])[^\]|\n]*\])"
    r"|(?P<bar>(?:[|:\]]|\[(?=[|\]]))*[|:](?:[|:\]]|\[(?=[|\]]))*)(?P<number>\d*)[,\d-]*"
    r"|\[(?P<ending>\d)[,\d-]*"
    r"|(?P<ornament>![^!\s]*!|[.~HLMOPSTuvJKRUVk])"
    r"|(?P<other>[^\n]|\n)",
    re.MULTILINE,
)
_CHARACTERS = "abcdefgABCDEFGzxZX^_=,'/0123456789|:[](){}<>-\"!&\\ \n"


class Tune(NamedTuple):
    """A tune of a book."""

    book: str
    number: str
    text: str


Note = tuple[float, int, float]


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    if not shutil.which("abc2midi"):
        print("There is no abc2midi: apt-get install abcmidi")
        return 1
    report = Report(*PACKAGES)
    tunes = list(_tunes())
    for check in (check_books, check_speed, check_mutations):
        check(report, tunes)
    return report.exit_code


def _tunes() -> Iterator[Tune]:
    for book in BOOKS:
        for path in sorted((CORPUS / book).glob("*.abc")):
            text = path.read_text(encoding="utf-8", errors="replace")
            for tune in re.split(r"^[ \t]*(?=X:)", text, flags=re.MULTILINE)[1:]:
                number = tune.partition("\n")[0].removeprefix("X:").strip()
                yield Tune(path.name, number, re.split(r"\n[ \t]*\n", tune)[0] + "\n")


def check_books(report: Report, tunes: list[Tune]) -> None:
    """Read all tunes, and hold the notes of each against the judge's."""
    left_out, differ, alike = list[str](), list[str](), 0
    with TemporaryDirectory() as folder:
        for tune in tunes:
            name, read = f"{tune.book}, X:{tune.number}", read_abc(tune.text)
            if isinstance(read, Rejected):
                left_out.append(f"{name}: {read.reason}: {read.detail}")
            elif _alike(_ours(read), _of_judge(tune.text, Path(folder))):
                alike += 1
            else:
                differ.append(f"{name}: {WHO_IS_RIGHT.get((tune.book, tune.number), 'not looked at')}")
    reasons = Counter(line.split(": ")[1] for line in left_out)
    read_count = len(tunes) - len(left_out)
    report.at_least("tunes", len(tunes), LEAST_TUNES)
    report.at_least("share that is read", read_count / len(tunes), LEAST_READ)
    for reason, count in reasons.most_common():
        report.figure(f"  left out: {reason}", count)
    report.at_least("of those read, share note for note as abc2midi", alike / read_count, LEAST_ALIKE)
    print(*(f"  {line}" for line in differ), sep="\n")
    report.at_most("differences that nobody looked at", sum("not looked at" in line for line in differ), 0)


def _ours(read: Any) -> list[Note]:
    return sorted((onset / TICKS, pitch, length / TICKS) for pitch, _, onset, length, _, _ in read[0].tolist())


def _alike(ours: list[Note], theirs: list[Note]) -> bool:
    if len(ours) != len(theirs):
        return False
    shift = ours[0][0] - theirs[0][0] if ours else 0.0
    return all(
        one[1] == other[1] and abs(one[0] - other[0] - shift) <= TOLERANCE and abs(one[2] - other[2]) <= TOLERANCE
        for one, other in zip(ours, theirs, strict=True)
    )


def _of_judge(text: str, folder: Path) -> list[Note]:
    """Return onset, pitch and duration in quarter notes of what abc2midi plays."""
    abc, midi = folder / "tune.abc", folder / "tune.mid"
    midi.unlink(missing_ok=True)
    abc.write_text(_plain(text), encoding="utf-8")
    command = ["abc2midi", str(abc), "-o", str(midi), "-NGRA", "-NGUI", "-silent"]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=False)
    if not midi.exists():
        return []
    file, notes = mido.MidiFile(midi), list[Note]()
    for track in file.tracks:
        now, sounding = 0, dict[int, list[int]]()
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                sounding.setdefault(message.note, []).append(now)
            elif message.type in ("note_on", "note_off") and sounding.get(message.note):
                begin = sounding[message.note].pop(0)
                # It begins notes some 480ths late; by the rounding chords are in one order on both sides.
                onset = round(begin / file.ticks_per_beat * TICKS) / TICKS
                notes.append((onset, message.note, (now - begin) / file.ticks_per_beat))
    return sorted(notes)


def _plain(text: str) -> str:
    """Return a tune that abc2midi plays as it is written: without repeats, first endings, ornaments and swing."""
    head, key, body = re.split(r"^(K:.*\n)", text, maxsplit=1, flags=re.MULTILINE)
    head = re.sub(r"^[RP]:.*\n", "", head, flags=re.MULTILINE)
    tokens = [*_TOKENS.finditer(body)]
    numbers = [int(token["number"] or token["ending"] or 0) for token in tokens]
    later = _later(numbers)
    words, is_cut = list[str](), False
    for token, number, following in zip(tokens, numbers, later, strict=True):
        ends = bool(token["bar"] and re.search(r":\||\|\||\|\]|\[\||::", token["bar"]))
        is_cut = following > number if number else is_cut and not ends
        if token["bar"] or token["ending"]:
            words.append("|")
        elif token["kept"] or (not is_cut and (token["other"] or token["whole"])):
            words.append(token[0])
    return f"{head}%%MIDI chordattack 0\n{key}{''.join(words)}"


def _later(numbers: list[int]) -> list[int]:
    """Return the number of the next ending behind each token, 0 where there is none."""
    following, found = 0, list[int]()
    for number in reversed(numbers):
        found.append(following)
        following = number or following
    return found[::-1]


def check_speed(report: Report, tunes: list[Tune]) -> None:
    """Measure the CPU time of ours and of music21."""
    some = [tune.text for tune in tunes[::40]]
    seconds = dict[str, float]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own insides
        music21.converter.parseData(some[0], format="abc")
        for name, read in (("ours", read_abc), ("music21", lambda text: _by_music21(text))):
            begin = time.process_time()
            for text in some:
                read(text)
            seconds[name] = time.process_time() - begin
    report.figure("CPU time of a tune", 1000 * seconds["ours"] / len(some), "ms")
    report.at_least("times as fast as music21", seconds["music21"] / seconds["ours"], LEAST_FASTER, "x")


def _by_music21(text: str) -> Any:
    try:
        return music21.converter.parseData(text, format="abc")
    except Exception:  # noqa: BLE001 - it has many errors; what it takes for them is its time too
        return None


def check_mutations(report: Report, tunes: list[Tune]) -> None:
    """Change characters of tunes, and read what they are then."""
    rng, errors, slowest, read = random.Random(0), 0, 0.0, 0
    for _ in range(MUTATIONS):
        text = list(rng.choice(tunes).text)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(text))
            text[at : at + rng.randint(0, 4)] = rng.choices(_CHARACTERS, k=rng.randint(0, 4))
        begin = time.process_time()
        try:
            read += not isinstance(read_abc("".join(text)), Rejected)
        except Exception as error:  # noqa: BLE001 - counted, whatever it is
            errors += 1
            print(f"  {type(error).__name__}: {error}: {''.join(text)!r}")
        slowest = max(slowest, time.process_time() - begin)
    report.figure("mutations: share that is read", read / MUTATIONS)
    report.at_most("mutations: errors of Python's", errors, 0)
    report.at_most("mutations: the slowest", slowest, MOST_SECONDS, "s")


if __name__ == "__main__":
    sys.exit(main())
