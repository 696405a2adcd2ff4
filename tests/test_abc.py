"""ABC: every kind of thing that tune books write, with its notes and durations by the standard."""

import json
from pathlib import Path

import pytest

from aigc_sdk.data.abc import read_abc

# Pitch, onset and duration in quarter notes of each tune.
CASES = json.loads((Path(__file__).parent / "data" / "abc.json").read_text(encoding="utf-8"))


def notes_of(tune):
    """Return (pitch, onset, duration) in quarter notes from the first onset on, in that order of time."""
    read = read_abc(tune)
    assert len(read) == 4, read
    found = [(pitch, onset / 48, duration / 48) for pitch, _, onset, duration, _, _ in read[0].tolist()]
    begin = min(onset for _, onset, _ in found)
    return sorted(((pitch, onset - begin, duration) for pitch, onset, duration in found), key=lambda note: note[1::-1])


@pytest.mark.parametrize("name", CASES)
def test_abc_case_gives_the_notes_of_the_standard(name):
    wanted = sorted(CASES[name]["notes"], key=lambda note: note[1::-1])
    found = notes_of(CASES[name]["abc"])
    assert [note[0] for note in found] == [note[0] for note in wanted]
    assert sum(found, ()) == pytest.approx(sum(map(tuple, wanted), ()), abs=0.03)
