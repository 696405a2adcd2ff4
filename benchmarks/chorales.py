"""How well the family `music-rnn` predicts Bach's chorales: nats of a frame against repeated frames and an n-gram.

    python benchmarks/chorales.py [--train] [--run FOLDER]

Frames are a quarter note apart: the pitches that sound at each, struck or held, every one once. A frame is read
upwards, as events: its pitches are held, but the highest, after which the clock moves on. The network is told the
metre, and so the place in the bar, and no key. A hash of its BWV number puts a chorale on one of three sides, of which
training sees one, moved by up to six semitones; of copies across sides the one in the test stays. The test is never
moved. The nats are those of all events of a piece, also of its first ones, which say where in the bar it begins and
how long a frame is, and of its end, divided by its frames.

`--train` trains in FOLDER (in the cache without it; what is done there already is not done again), and keeps what the
figures are printed from in benchmarks/runs/chorales: run.json, metrics.jsonl, and made.json with commit, machine and
minutes. Without it the run in FOLDER is measured, with the weights that its model file holds.
"""

import argparse
import hashlib
import itertools
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_music.data import MusicDataset, Piece, load_music
from aigc_music.events import HELD, NOTE, TICKS, TIME, Notes, transposed
from aigc_sdk.files import cache_folder, write_bytes
from aigc_sdk.training import Run
from aigc_sdk.training.batches import batches
from aigc_sdk.training.checkpoint import load_averaged_weights
from aigc_sdk.training.run import METRICS, RECORD
from datasets import fetch
from ngram import ngram_nats
from stored import weights_in
from timing import Report, git_commit, machine

KEPT = Path(__file__).parent / "runs" / "chorales"

LEAST_GAIN = 1.0
TRANSPOSE = 6
OPTIONS: dict[str, Any] = {
    "conditions": ("meter",),
    "transpose": TRANSPOSE,
    "min_count": 1,
    "minutes": 30,
    "epochs": 1000,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "warmup_steps": 100,
    "ema_decay": 0.995,
    "width": 256,
    "dropout": 0.35,
    "validation_fraction": 0.0,
    "test_fraction": 0.0,
}

# A chorale that shares so much of its different runs of so many frames with another one is a copy, in any key.
_RUN, _COPIED = 8, 0.25
_END = -1

Frames = list[list[int]]
Chorale = dict[str, Any]  # name, meter, begin (the quarter note of the bar that the first frame is), frames

FOOTNOTE = """
Not to be compared with 8.45 (LSTM) and 8.10 (TCN) nats a frame of Bai, Kolter & Koltun 2018 (arXiv 1803.01271, table
1): those are of the 382 chorales of Boulanger-Lewandowski, Bengio & Vincent 2012 in that set's own split, where a
tune in another setting or key may stand on both sides, and they add up 88 keys that are predicted apart from each other
(a Bernoulli each), given the frames before. Here the pitches of a frame are predicted one after the other, each given
those below it (the chain rule), which costs less where notes of a chord depend on each other; the scores are
music21's, and a BWV number is on one side alone.
"""


def main() -> int:
    """Train if asked to, print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train, and keep the record")
    parser.add_argument("--run", type=Path, help="the run folder")
    arguments = parser.parse_args()
    folder = arguments.run or cache_folder() / "runs" / "chorales"
    parts = {side: load_music(pieces(each), TRANSPOSE) for side, each in sides(read()).items()}
    if arguments.train:
        train(parts["train"], folder)
    if not (folder / "made.json").exists():
        parser.error(f"no finished run in {folder}; --train makes one, in half an hour")
    report = Report("aigc-sdk", "torch", "music21")
    print("made:", json.loads((folder / "made.json").read_text()))
    for side, data in parts.items():
        print(f"{side}: {data.n} pieces, {frames_in(data):,} frames, {len(data.codes):,} events")
    check(report, Run.open(folder), parts)
    print(FOOTNOTE)
    return report.exit_code


def read() -> dict[str, Chorale]:
    """Return the chorales by name."""
    lines = fetch("chorales").read_text(encoding="utf-8").splitlines()
    return {each["name"]: each for each in map(json.loads, lines)}


def side_of(name: str) -> str:
    """Return the side of a chorale, which follows from its BWV number.

    Example:
        >>> side_of("bwv244.10") == side_of("bwv244.62")
        True
    """
    number = re.match(r"bwv\d+", name)
    assert number is not None
    digest = hashlib.sha256(number[0].encode()).digest()
    return {0: "test", 1: "validation"}.get(int.from_bytes(digest[:8], "big") % 10, "train")


def sides(chorales: dict[str, Chorale]) -> dict[str, list[Chorale]]:
    """Return the chorales of each side, without those of which a copy is in the test or, for training, validation."""
    found: dict[str, dict[str, Chorale]] = {"test": {}, "validation": {}, "train": {}}
    for name, chorale in chorales.items():
        found[side_of(name)][name] = chorale
    runs = {name: runs_in(chorale["frames"]) for name, chorale in chorales.items()}
    before = list[str]()
    for side in found.values():
        for name in list(side):
            if other := next((each for each in before if _is_copy(runs[name], runs[each])), None):
                print(f"{name} is left out of {side_of(name)}: it is much like {other} of {side_of(other)}")
                del side[name]
        before += side
    return {name: list(side.values()) for name, side in found.items()}


def runs_in(frames: Frames) -> set[bytes]:
    """Return what runs of frames there are, in any key, but for those of fewer than four different frames."""
    runs = (frames[i : i + _RUN] for i in range(len(frames) - _RUN + 1))
    various = [run for run in runs if len(set(map(tuple, run))) >= 4]
    lowest = [min(min(frame) for frame in run if frame) for run in various]
    return {
        json.dumps([[pitch - low for pitch in frame] for frame in run]).encode()
        for run, low in zip(various, lowest, strict=True)
    }


def _is_copy(runs: set[bytes], others: set[bytes]) -> bool:
    return len(runs & others) >= max(_COPIED * min(len(runs), len(others)), 1)


def pieces(chorales: list[Chorale]) -> list[Piece]:
    """Return chorales as pieces, in which every pitch of a frame is struck and lasts a quarter note."""

    def notes(chorale: Chorale) -> Notes:
        timed = enumerate(chorale["frames"], chorale["begin"])
        return np.array([(pitch, 80, TICKS * time, TICKS, 0, 0) for time, frame in timed for pitch in frame])

    return [Piece(chorale["name"], notes(chorale), meter=chorale["meter"]) for chorale in chorales]


def frames_in(data: MusicDataset) -> int:
    """Return how many frames the pieces have."""
    return sum(len(frame_events(data.row_codes(row))) for row in range(data.n))


def frame_events(codes: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return the events of each frame of a piece, of a rest one each; not what the piece begins with, before a note."""
    frames, held = list[NDArray[np.int32]](), list[int]()
    for code in codes.tolist():
        if code >= TIME and frames:
            frames += [np.array([TIME + TICKS], np.int32)] * ((code - TIME) // TICKS)
        elif code < 2 * HELD:
            held.append(code)
            if NOTE <= code < HELD:
                frames.append(np.array(held, np.int32))
                held = []
    return frames


def train(data: MusicDataset, folder: Path) -> None:
    """Train, and keep the record."""
    commit = git_commit()
    run = sdk.train("music-rnn", data, out=folder, seed=1, resume=True, **OPTIONS)
    if not (folder / "made.json").exists():
        made = {"commit": commit, "machine": machine(["torch"]), "minutes": run.metrics[-1]["minutes"]}
        write_bytes(folder / "made.json", json.dumps(made, indent=1).encode())
    KEPT.mkdir(parents=True, exist_ok=True)
    for file in (RECORD, METRICS, "made.json"):
        shutil.copyfile(folder / file, KEPT / file)


def check(report: Report, run: Run, parts: dict[str, MusicDataset]) -> None:
    """Measure the network and the baselines on the frames of the test."""
    family: Any = run.family_class()(run.options())
    family.build(run.record.data_spec(family.modality))
    family.load_state_dict(load_averaged_weights(run.folder) | weights_in(run.models["generate"]), strict=False)
    family.eval()
    report.figure("parameters", sum(each.numel() for each in family.parameters()))
    report.figure("minutes of training", run.metrics[-1]["minutes"])
    nats = {side: network_nats(family, data) for side, data in parts.items()}
    for side, value in nats.items():
        report.figure(f"music-rnn, {side}: nats a frame", value)
    repeat = repeat_nats(parts["train"], parts["test"])
    report.figure("the last frame again: nats a frame", repeat)
    still, moved = (gram_nats(parts["train"], parts["test"], moves) for moves in (0, TRANSPOSE))
    report.figure("n-gram of the same frames: nats a frame", still)
    report.figure("n-gram of these in all keys: nats a frame", moved)
    report.at_least("nats of a frame below the better of the first two", min(repeat, still) - nats["test"], LEAST_GAIN)
    report.figure("nats of a frame below the third", moved - nats["test"])


@torch.inference_mode()
def network_nats(family: Any, data: MusicDataset) -> float:
    """Return the nats of a frame: of all events and the ends, divided by the frames."""
    known, total = set(family.codes.tolist()), 0.0
    unknown = sum(code not in known for code in data.codes.tolist())
    if unknown:
        print(f"{unknown} events that training never saw: each costs what is unknown, and one draw among all events")
    for batch in batches(data, np.arange(data.n), 16, torch.device("cpu"), "music"):
        total += family.read(batch).nats.double().sum().item()
    return (total + unknown * float(np.log(TIME + 20 * TICKS))) / frames_in(data)


def repeat_nats(train: MusicDataset, test: MusicDataset) -> float:
    """Return the nats of a frame where it is the one before, but for a share that training has, or a new one.

    A new one has the probability that an n-gram gives its events, read alone, of the best order and with the pieces in
    all keys if that is better. What a piece begins and ends with costs nothing.
    """
    known, asked = ([frame_events(data.row_codes(row)) for row in range(data.n)] for data in (train, test))
    changes = [_differ(frames) for frames in known]
    share = float(np.concatenate(changes).mean())
    alone = [frame for frames in asked for frame in frames]
    ends = np.cumsum([len(frame) for frame in alone]) - 1
    costs = [
        np.diff(np.append(0, nats.cumsum()[ends]))
        for moves in (0, TRANSPOSE)
        for nats in ngram_nats([f for frames in known for each in frames for f in _moved(each, moves)], alone).values()
    ]
    first = np.cumsum([0, *map(len, asked)])[:-1]
    is_same = np.zeros(len(alone))
    for start, frames in zip(first, asked, strict=True):
        is_same[start + 1 : start + len(frames)] = 1 - _differ(frames)
    is_first = np.zeros(len(alone), bool)
    is_first[first] = True
    found = (np.where(is_first, cost, -np.log((1 - share) * is_same + share * np.exp(-cost))) for cost in costs)
    return min(float(each.mean()) for each in found)


def _differ(frames: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    return np.array([float(not np.array_equal(*pair)) for pair in itertools.pairwise(frames)])


def gram_nats(train: MusicDataset, test: MusicDataset, moves: int) -> float:
    """Return the nats of a frame by an n-gram of the events and the ends, of the order that is best on the test."""
    known, asked = (
        [np.append(each, np.int32(_END)) for row in range(data.n) for each in _moved(data.row_codes(row), by)]
        for data, by in ((train, moves), (test, 0))
    )
    orders = {order: float(nats.sum()) / frames_in(test) for order, nats in ngram_nats(known, asked).items()}
    print(f"n-gram, moved by up to {moves}, nats by order:", {each: round(nats, 3) for each, nats in orders.items()})
    return min(orders.values())


def _moved(codes: NDArray[np.int32], moves: int) -> list[NDArray[np.int32]]:
    return [transposed(codes, semitones) for semitones in range(-moves, moves + 1)]


if __name__ == "__main__":
    sys.exit(main())
