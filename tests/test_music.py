"""Music: events and their inverse, readers, the decoding in the graph, and what is saved."""

import itertools
import json
import os
import re
import sys
import wave
import zipfile
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import mido
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import aigc_sdk as sdk
from aigc_metrics.music import scale_consistency
from aigc_music import data as music
from aigc_music.data import MOST_BYTES, Piece, find_key, in_full_bars, load_music
from aigc_music.events import TICKS, decode, encode, event_code, event_name, in_order, transposed
from aigc_music.item import Music
from aigc_music.keys import KEYS, key_sharps, respelled, scale
from aigc_music.midi import read_midi
from aigc_music.scores import read_score
from aigc_music.sound import RATE
from aigc_rnn.music import MusicRNN
from aigc_rnn.networks import RecurrentNetwork
from aigc_rnn.notes import Clock, moved, product, timed
from aigc_rnn.sampler import END, SPECIAL, UNKNOWN, StreamOn
from aigc_sdk.cli import app
from aigc_sdk.contents import Contents, Origin
from aigc_sdk.errors import (
    GenerationFailed,
    InvalidConfig,
    InvalidData,
    InvalidProvenance,
    InvalidRequest,
    MissingPackage,
    NotReproduced,
    StorageError,
)
from aigc_sdk.generator import check_parts
from aigc_sdk.runtime.safety import may_fold
from aigc_sdk.testing.families import example_data
from aigc_sdk.training.batches import batches

ORIGIN = Origin("m", "1.0", "0" * 64, "generate", "0.1.0", "none", ("tempo",))


def random_notes(seed, n=40, voices=3):
    rng = np.random.default_rng(seed)
    onsets = np.cumsum(rng.choice([0, 0, 1, 12, 24, 2000], n))
    columns = [
        rng.integers(0, 128, n),
        np.minimum(16 * rng.integers(1, 9, n), 127),
        onsets,
        rng.choice([1, 12, 24, 48, 3000], n),
        rng.integers(0, voices, n),
        rng.choice([0, 40, 128], n),
    ]
    notes = in_order(np.stack(columns, 1))
    _, first = np.unique(notes[:, [2, 0, 4]], axis=0, return_index=True)
    return notes[np.sort(first)]


def piece_of(notes, tempo=90.0, meter=(6, 8), key="Dm"):
    data = notes.astype(np.float64)
    data[:, 2:4] *= 60 / tempo / TICKS
    return Music(data.astype(np.float32), 1, ORIGIN, (90.0,), {"tempo": tempo, "meter": meter, "key": KEYS.index(key)})


def test_events_of_1000_pieces_are_the_same_notes_again():
    for seed in range(1000):
        notes = random_notes(seed)
        assert np.array_equal(decode(encode(notes)), notes)


def test_events_of_a_melody_in_even_notes_are_one_for_each():
    notes = np.array([[60 + i, 80, 24 * i, 24, 0, 0] for i in range(9)])
    assert encode(notes).tolist() == [60 + i for i in range(9)]


def test_event_names_are_told_apart():
    codes = {*range(256), *range(257, 265), *range(1024, 1024 + 16 * 129), 4097, 5056, 8193, 9152}
    assert {event_code(event_name(code)) for code in codes} == codes
    for name in ("note 128", "note", "", "note -1", "note 01", "x 1"):
        with pytest.raises(ValueError, match="is no event"):
            event_code(name)


def test_transposed_moves_pitches_but_those_of_drums():
    notes = np.array([[60, 80, 0, 24, 0, 0], [38, 80, 24, 24, 1, 128], [62, 80, 48, 24, 0, 0]])
    assert decode(transposed(encode(notes), 3))[:, 0].tolist() == [63, 38, 65]


@pytest.mark.parametrize(
    ("name", "sharps", "notes"),
    [
        ("C", 0, "0 2 4 5 7 9 11"),
        ("Am", 0, "9 11 0 2 4 5 7"),
        ("Ador", 1, "9 11 0 2 4 6 7"),
        ("Bb", -2, "10 0 2 3 5 7 9"),
    ],
)
def test_keys_have_their_signature_and_scale(name, sharps, notes):
    assert key_sharps(name) == sharps and scale(name).tolist() == [*map(int, notes.split())]


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        *[("Gb", "F#"), ("Ebm", "D#m"), ("C#", "Db"), ("Cb", "B"), ("D#dor", "Ebdor"), ("G♭", "F#"), (" D ", "D")],
        *[("e minor", "Em"), ("E Minor", "Em"), ("b minor", "Bm"), ("Bb Major", "Bb"), ("Dmaj", "D"), ("Amin", "Am")],
        *[("AMix", "Amix"), ("a dorian", "Ador"), ("C aeolian", "Cm"), ("em", "Em")],
    ],
)
def test_a_key_in_another_spelling_is_the_same_key(asked, known):
    assert respelled(asked) == respelled(known) == known


@pytest.mark.parametrize("asked", ["", "H", "e", "bb", "Em7", "E mi", "E minus", "C##", "-1", "Deutsch"])
def test_what_is_no_key_is_not_respelled(asked):
    assert respelled(asked) == asked


def test_key_is_found_by_the_notes():
    for name in ("C", "D", "Em", "Gm"):
        pitches = [60 + int(scale(name)[i]) % 12 for i in (0, 2, 4, 0, 1, 2, 3, 4, 0)]
        notes = np.array([[pitch, 80, 24 * i, 24, 0, 0] for i, pitch in enumerate(pitches)])
        assert KEYS[find_key(notes)] == name


def test_clock_in_torch_is_that_of_decode():
    for seed in range(50):
        events = encode(random_notes(seed))
        before = np.append(0, timed(torch.tensor(events)[None]).clock[0].numpy())[:-1]
        assert before[events < 256].tolist() == decode(events)[:, 2].tolist()


def carried(clock, n):
    """What the loop carries before the first event of n pieces."""
    parts = clock.start(n)
    return parts | {name: parts[name][:, None] + first for name, first in clock.parts.items()}


def test_clock_step_by_step_makes_the_notes_of_decode():
    for seed in range(20):
        events = encode(random_notes(seed))
        codes = sorted({*events.tolist()})
        clock = Clock((-1, *codes), [], [])
        state = carried(clock, 1)
        rows = []
        for event in events.tolist():
            token = torch.tensor([[1 + codes.index(event)]])
            if event < 256:  # a note in order is not held to be out of order
                assert not clock.disorders(state)[0, token[0, 0]]
            row, state = clock.read(token, state)
            rows.append(row)
        content, length, _ = clock.notes(torch.cat(rows, 1), torch.tensor([60.0]))
        made = content[0, : int(length)].double().numpy()
        made[:, 2:4] *= TICKS
        assert np.array_equal(np.rint(made).astype(np.int64), decode(events))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_known_before_each_event_is_the_same_for_sequences_and_step_by_step(seed):
    codes = np.full((2, 60), -1, np.int32)
    for row, n in enumerate((60, 40)):
        events = encode(random_notes(seed + row))[:n]
        codes[row, : len(events)] = events
    known = sorted({*codes.flatten().tolist()} - {-1})
    clock = Clock((-1, -1, *known), [], [(6, 8), (2, 4)], 1)
    bars = clock.bars_of(torch.tensor([[0], [1]]))
    whole = clock.before(torch.tensor(codes), bars)
    state = carried(clock, 2)
    for t, column in enumerate(codes.T.tolist()):
        alive = [row for row, event in enumerate(column) if event >= 0]
        assert torch.equal(whole.place[alive, t], torch.cat(clock.place(state, bars), 1)[alive])
        left_out = whole.barred[:, t] | clock.disorders(state)
        assert torch.equal(left_out[alive], clock.left_out(state, bars)[alive])
        _, state = clock.read(torch.tensor([[2 + known.index(max(event, known[0]))] for event in column]), state)


def test_the_network_is_told_which_note_began_in_the_bars_before():
    notes = np.array([[60 + i, 80, 48 * i, 48, 0, 0] for i in range(9)])
    clock = Clock((-1, -1, 4144, *range(60, 69)), [], [(2, 4)])
    place = clock.before(torch.tensor(encode(notes))[None], clock.bars_of(torch.tensor([[0]]))).place
    rank, steps = place[0, :, 3:7], place[0, :, 7:]
    at = 1 + 8  # the last note, behind the duration: 8 beats of two a bar are 4 bars
    assert place[0, at, :3].tolist() == [0, 4, 0]
    assert rank[at].tolist() == [7, 5, 1, 0] and steps[at].tolist() == [12, 12, 12, 0]


def test_no_event_of_full_bars_is_barred_and_all_that_would_break_them_are():
    events = encode(np.array([[60, 80, 72, 24, 0, 0], [62, 80, 96, 48, 0, 0], [64, 80, 144, 24, 0, 0]]))
    codes = (-1, -1, 4096 + 24, 4096 + 48, 4096 + 72, 60, 62, 64, 8192 + 72)
    clock = Clock(codes, [], [(2, 4)], 1)
    barred = clock.before(torch.tensor(events)[None], clock.bars_of(torch.tensor([[0]]))).barred[0]
    tokens = [codes.index(event) for event in events.tolist()] + [1]
    assert not barred[range(len(tokens)), tokens].any()
    words = {1: "end", 2: 24, 3: 48, 4: 72, 5: 60}
    told = [{words[i] for i in np.flatnonzero(row[:6])} for row in barred.numpy()]
    # At the beginning; on the last eighth; at the bar line; after a quarter was told; in the middle; after an eighth
    # was told; at the end.
    assert told == [{"end"}, {"end", 48, 72}, set(), {72}, {"end", 72}, {"end", 48, 72}, {48, 72}]


def test_a_piece_ends_when_it_has_its_bars():
    codes = (-1, -1, 4096 + 24, 4096 + 48, 60, 62, 8192 + 24)
    clock = Clock(codes, [], [(2, 4)], 1, counts_bars=True)
    state = carried(clock, 1)
    bars = clock.bars_of(torch.tensor([[0]]), torch.tensor([2]))
    left_out, left = list[list[bool]](), list[int]()
    for token in (6, 6, 6, 4, 3, 4, 5, 4, 2, 4):  # an upbeat of an eighth, a bar, and the other but for an eighth
        left_out.append(clock.left_out(state, bars)[0].tolist())
        left.append(int(clock.place(state, bars)[-1]))
        _, state = clock.read(torch.tensor([[token]]), state)
    # It could end at the bar line in its second bar; before the last note there is room for the eighth that it takes.
    assert [each[1] for each in left_out] == [i != 7 for i in range(10)] and left == [2] * 7 + [1] * 3
    assert left_out[-1] == [False, True, True, True, False, False, True]
    assert clock.left_out(state, bars)[0].tolist() == [True, False, True, True, True, True, True]


def test_bars_left_are_counted_in_training_as_in_the_loop():
    codes = (-1, -1, 4096 + 24, 4096 + 48, 60, 62, 8192 + 24)
    clock = Clock(codes, [], [(2, 4)], 1, counts_bars=True)
    tokens = [6, 6, 6, 4, 3, 4, 5, 2, 4, 4, 4, 1]  # an upbeat, a bar, and a last one that it makes full
    before = clock.before(torch.tensor([[codes[token] for token in tokens[:-1]]]), clock.bars_of(torch.tensor([[0]])))
    state = carried(clock, 1)
    bars = clock.bars_of(torch.tensor([[0]]), torch.tensor([2]))
    for i, token in enumerate(tokens):
        assert torch.equal(torch.cat(clock.place(state, bars), 1), before.place[:, i])
        assert torch.equal(clock.left_out(state, bars)[0], before.barred[0, i]) and not before.barred[0, i, token]
        _, state = clock.read(torch.tensor([[token]]), state)


@pytest.mark.parametrize("temperature", [0, 0.01, 1, 5])
def test_the_end_comes_where_nothing_fits_into_a_bar(temperature):
    codes = (4096 + 48, 60)
    clock = Clock((*[-1] * SPECIAL, *codes), [], [(2, 4)], END, counts_bars=True)
    options = {"cell": "gru", "layers": 1, "width": 8, "dropout": 0, "tied": True, "layer_norm": False, "attention": 0}
    network = RecurrentNetwork(SPECIAL + len(codes), 1, clock.places, **options)
    loop = StreamOn(network, codes, {"meter": (1.0,)}, clock, {2: 1.0})
    # An eighth and a quarter leave an eighth of the bar, and eighths are over.
    controls = {"prompt": [[60, 4096 + 48, 60]], "max_length": [5], "meter": [-1], "bars": [0], "tempo": [120.0]}
    controls |= {"temperature": [float(temperature)], "top_k": [0], "top_p": [1.0], "repetition_penalty": [1.0]}
    state = {f"state.{name}": part for name, part in loop.start(1).items()} | {"position": torch.tensor([0])}
    _, length, *_, has_ended = loop(
        torch.tensor([7]), {name: torch.tensor(value) for name, value in controls.items()}, state
    )
    assert length.tolist() == [0] and has_ended.tolist() == [True]


def relative_family(**config):
    """Return a family that was never trained, and the data of pieces with drums that it was built for."""
    pieces = []
    for i in range(4):
        notes = random_notes(i, voices=2)
        notes[:, 0] = np.where(notes[:, 5] == 128, 36 + notes[:, 0] % 8, 50 + notes[:, 0] % 24)
        _, first = np.unique(notes[:, [2, 0, 4]], axis=0, return_index=True)
        pieces.append(Piece(f"{i}", in_order(notes[np.sort(first)]), key=(0, 2, 9, 19)[i]))
    data = load_music(pieces, transpose=5)
    family = MusicRNN(MusicRNN.Config(width=16, layers=1, min_count=1, **config))
    family.build(data.spec(np.arange(4)))
    return family.eval(), data


def test_what_is_learned_of_one_key_holds_for_all():
    torch.manual_seed(0)
    family, data = relative_family()
    with torch.no_grad():
        family.network.label.weight.zero_()  # where the keys themselves say nothing
    row = data.row_codes(0)
    for move in (-5, 2, 4):
        nats = [
            family.read(
                {
                    "codes": torch.from_numpy(codes.copy())[None],
                    "keys": torch.tensor([key]),
                    "meters": torch.tensor([0]),
                }
            ).nats
            for codes, key in ((row, 0), (transposed(row, move), move % 12))
        ]
        assert torch.equal(*nats)


def test_token_dropout_hides_events_and_the_bars_before_in_training_alone():
    family, _ = relative_family(token_dropout=0.3)
    tokens, place = torch.full((50, 90), SPECIAL), torch.ones(50, 90, len(family.clock.places), dtype=torch.int64)
    seen, told = family.hidden(tokens, place)
    assert seen is tokens and told is place  # the family is not in training
    seen, told = family.train().hidden(tokens, place)
    assert (seen[:, 0] == SPECIAL).all() and 0.28 < (seen[:, 1:] == UNKNOWN).float().mean() < 0.32
    names = {name.rsplit(" ", 1)[0]: None for name in family.clock.place_names}
    is_back = torch.tensor([name.endswith("bars back") for name in names])
    assert is_back.sum() == 8 and (told[..., ~is_back] == 1).all()
    backs = told[..., is_back]
    assert torch.equal(backs.amin(-1), backs.amax(-1)) and 0.28 < (backs == 0).float().mean() < 0.32


@pytest.mark.parametrize("loop", ["generate", "stream"])
def test_a_prompt_in_another_key_goes_on_as_the_same_tune_in_that_key(loop):
    torch.manual_seed(0)
    family, data = relative_family()
    with torch.no_grad():
        family.network.label.weight.zero_()
    sampler, names = family.sampler(loop), list(data.spec(np.arange(4)).details.keys)
    assert {"C", "D", "G"} < set(names)
    seed, made = torch.tensor([3, 4]), {}
    prompt = data.row_codes(0)[:30]
    for key, move in (("C", 0), ("D", 2), ("G", -5)):
        controls = {"key": [names.index(key)] * 2, "meter": [-1] * 2, "tempo": [120.0] * 2, "max_length": [200] * 2}
        controls |= {"temperature": [5.0] * 2, "top_k": [0] * 2, "top_p": [1.0] * 2, "repetition_penalty": [1.0] * 2}
        feeds = {name: torch.tensor(value) for name, value in controls.items()}
        feeds["prompt"] = torch.from_numpy(np.stack([transposed(prompt, move)] * 2))
        state = {f"state.{name}": part for name, part in sampler.start(2).items()} | {"position": torch.tensor([0, 0])}
        with torch.no_grad():
            notes, length, *_ = sampler(seed, feeds) if loop == "generate" else sampler(seed, feeds, state)
        made[key] = [each[:n] for each, n in zip(notes.numpy(), length.tolist(), strict=True)]
        assert all(not each[n:].any() for each, n in zip(notes.numpy(), length.tolist(), strict=True))
    assert any((each[:, 5] == 128).any() for each in made["C"]) and any((each[:, 5] != 128).any() for each in made["C"])
    for key, move in (("D", 2), ("G", -5)):
        for in_c, in_key in zip(made["C"], made[key], strict=True):
            moved = in_c + np.outer(in_c[:, 5] != 128, [move, 0, 0, 0, 0, 0])
            moved[:, 0] += 12 * (moved[:, 0] < 0) - 12 * (moved[:, 0] > 127)
            assert np.array_equal(in_key, moved)


def test_events_are_counted_in_the_key_of_c_too():
    tune = np.array([[62 + step, 80, 24 * i, 24, 0, 0] for i, step in enumerate([0, 4, 7, 12])])
    higher = tune + np.array([5, 0, 0, 0, 0, 0])
    spec = load_music([Piece("d", tune, key=2), Piece("g", higher, key=7)]).spec(np.arange(2))
    assert {ord(event): n for event, n in spec.details.events.items()} == {
        62: 1,
        66: 1,
        67: 1,
        69: 1,
        71: 1,
        74: 2,
        79: 1,
    }
    assert {ord(event): n for event, n in spec.details.relative.items()} == {
        60: 1,
        64: 1,
        67: 1,
        72: 2,
        76: 1,
        79: 1,
        84: 1,
    }


def test_pitches_that_leave_midi_come_back_by_an_octave():
    events = np.array([3, 128 + 2, 126, 128 + 127, 4096 + 24], np.int32)
    assert transposed(events, -5).tolist() == [10, 128 + 9, 121, 128 + 122, 4096 + 24]
    assert transposed(events, 6).tolist() == [9, 128 + 8, 120, 128 + 121, 4096 + 24]
    for semitones in (-5, 6):
        found = moved(torch.from_numpy(events)[None], torch.tensor([[semitones]]))
        assert found[0].tolist() == transposed(events, semitones).tolist() and found.dtype == torch.int32


def test_runs_from_before_keep_their_pitches():
    _, data = relative_family()
    spec = data.spec(np.arange(4))
    family = MusicRNN(MusicRNN.Config(width=16, layers=1, min_count=1))
    family.build(replace(spec, details=replace(spec.details, relative={})))
    assert family.events() == family.codes.tolist() == sorted(map(ord, spec.details.events))
    batch = next(batches(data, np.arange(1), 1, torch.device("cpu"), "music"))
    assert torch.equal(family.relative(batch), batch["codes"])


def test_limits_are_the_same_on_devices_without_doubles():
    limits, table = torch.randint(-(2**27), 2**27, (3, 4, 5)), torch.randint(-1, 2, (5, 9))
    whole = product(limits, table, in_doubles=False)
    assert whole.dtype == torch.int64 and torch.equal(product(limits, table, in_doubles=True), whole.double())


def test_silence_before_the_first_note_is_no_bar_of_the_piece():
    clock = Clock((-1, -1, 4096 + 24, 60, 8192 + 192), [], [(2, 4)], 1, counts_bars=True)
    events = torch.tensor([[8192 + 192, 8192 + 192, 60, 60, 60, 60]])  # four bars of silence, and one of eighths
    before = clock.before(events, clock.bars_of(torch.tensor([[0]])))
    assert not before.barred[0, range(7), [4, 4, 3, 3, 3, 3, 1]].any()
    assert before.place[0, :, -1].tolist() == [1, 1, 1, 1, 1, 1, 0]


BOOK = """X:1
T:Sound
M:6/8
L:1/8
K:Ador
e|A2B cde|g3- g2z|1 A3 A3:|2 a6|]

X:2
T:No notes
M:4/4
K:C

X:3
T:A metre of none
M:0/4
L:1/8
K:C
CDEF|

X:4
T:Nonsense
M:4/4
K:C
%%%$$ ((( [[[ {{{

X:5
T:Also sound
M:4/4
L:1/8
K:G
G2A2 B2c2|d8|]
"""


class Deadly:
    """Ends the process that unpickles it, as a broken file may end what reads it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_tune_that_ends_its_process_is_left_out_alone_and_named(tmp_path, monkeypatch):
    tunes = [(f"tune {i}", f"X:{i}\nM:4/4\nL:1/4\nK:C\n{note}GAB|\n") for i, note in enumerate("CDEF")]
    tunes[1] = (tunes[1][0], Deadly())
    calls = [("abc", tunes[:3]), ("abc", tunes[3:])]
    monkeypatch.setattr(music, "_calls", lambda *_: iter(calls))
    data = load_music(tmp_path)
    assert data.n == 3
    assert data.report.skipped["hangs or crashes"].examples == ["tune 1: its process ended"]


def test_abc_book_with_errors_in_its_middle_gives_the_others(tmp_path):
    (tmp_path / "book.abc").write_text(BOOK)
    data = load_music(tmp_path / "book.abc")
    assert data.n == 2 and [KEYS[key] for key in data.keys] == ["Ador", "G"] and data.meter_names == ("6/8", "4/4")
    assert sum(skipped.count for skipped in data.report.skipped.values()) == 3
    assert all(title in str(data.report) for title in ("No notes", "A metre of none", "Nonsense"))
    # An upbeat ends at a bar line, tied notes are one, and of two endings the last is read.
    notes = decode(data.row_codes(0))
    assert notes[0, 2] == 5 * 24 and notes[:, 0].tolist() == [76, 69, 71, 72, 74, 76, 79, 81]
    assert notes[6, 3] == 5 * 24 and notes[7, 2:4].tolist() == [3 * 144, 144]


def test_fields_of_a_book_are_for_tunes_that_have_none_of_their_own(tmp_path):
    (tmp_path / "book.abc").write_text("M:4/4\nL:1/4\n\nX:1\nM:6/8\nL:1/8\nK:D\nDEF GAB|\n\nX:2\nK:D\nDEFG|\n")
    data = load_music(tmp_path / "book.abc")
    assert [data.meter_names[meter] for meter in data.meters] == ["6/8", "4/4"]
    assert [decode(data.row_codes(row))[0, 3] for row in range(2)] == [24, 48]


def test_what_stands_between_tunes_is_no_tune(tmp_path):
    first, second = "X:1\nM:4/4\nK:C\nCDEF|GABc|\n", "X:2\nM:4/4\nK:C\nC4|\n"
    (tmp_path / "book.abc").write_text(f"{first} \nThis was collected by Fred\n\n{second}")
    data = load_music(tmp_path / "book.abc")
    assert [len(decode(data.row_codes(row))) for row in range(2)] == [8, 1]


def abc(body, key="D", fields=""):
    return f"X:1\nT:Title\nM:4/4\nL:1/4\n{fields}K:{key}\n{body}"


UPPER = [(pitch, 48 * i, 48) for i, pitch in enumerate((62, 64, 66, 67, 69, 71, 73, 74))]
TWO_VOICES = {0: UPPER, 1: [(50, 0, 192), (57, 192, 192)]}


def voices_of(tune):
    notes, _, _, _ = read_score(tune, is_abc=True)
    columns = notes[:, [0, 2, 3]].tolist()
    return {
        voice: [tuple(note) for note, of in zip(columns, notes[:, 4], strict=True) if of == voice]
        for voice in set(notes[:, 4].tolist())
    }


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ("V:1\nDEFG|ABcd|\nV:2\nD,4|A,4|", ""),
        ("V:1\nDEFG|\nV:2\nD,4|\nV:1\nABcd|\nV:2\nA,4|", ""),
        ("[V:1]DEFG|ABcd|\n[V:2]D,4|A,4|", ""),
        ("[V:1]DEFG|\n[V: 2 clef=bass]D,4|\n[V:1]ABcd|\n[V:2]A,4|", 'V:1 name="Upper"\nV:2 clef=bass\n'),
        ("[V:1] DEFG| [V:2] D,4|\n[V:1] ABcd| [V:2] A,4|", ""),
        ("V:Upper\nDEFG|\nw:an ex-am-ple\nV:Lower\nD,4|\nV:Upper\nABcd|\nV:Lower\nA,4|", ""),
        ("DEFG|ABcd|\nV:2\nD,4|A,4|", ""),
        ("DEFG|\nV:B\nD,4|\nV:A\nABcd|\nV:B\nA,4|", "V:A\nV:B\n"),
        ("V:1\nDEFG|ABcd|\nV:2\nD,4|A,4|]", ""),  # with one bar line music21 makes no bars of it
        ("V:1\nL:1/8\nD2E2F2G2|A2B2c2d2|\nV:2\nD,4|A,4|", ""),
        ('%%score 1 2\nV:1\nDEFG| % [V:2] & so on\nV:2\nD,4|\nV:1\n"&"ABcd|\nV:2\n!f!A,4|', ""),
    ],
)
def test_abc_voices_by_turns_are_each_read_as_one(body, fields):
    assert voices_of(abc(body, fields=fields)) == TWO_VOICES


def test_abc_fields_in_a_voice_are_of_that_voice():
    assert voices_of(abc("V:1\nK:C\nF4|F4|\nV:2\nF,4|F,4|\nV:1\nM:2/4\nF2|\nV:2\nF,4|")) == {
        0: [(65, 0, 192), (65, 192, 192), (65, 384, 96)],
        1: [(54, 0, 192), (54, 192, 192), (54, 384, 192)],
    }


def test_abc_rest_that_is_not_printed_takes_its_time_in_a_voice():
    assert voices_of(abc("V:1\nDEFG|ABcd|\nV:2\nx4|x2A,2|"))[1] == [(57, 288, 96)]


@pytest.mark.parametrize("body", ["DEFG|ABcd|", "V:1\nDEFG|ABcd|", "[V:1]DEFG|\n[V:1]ABcd|"])
def test_abc_tune_of_one_voice_is_one(body):
    assert voices_of(abc(body)) == voices_of(abc(body, fields="V:1 clef=treble\n")) == {0: UPPER}


@pytest.mark.parametrize(
    ("tune", "reason"),
    [
        (abc("DEFG & A4|ABcd|"), "an overlay"),
        (abc("V:1\nDEFG|ABcd|\nV:2\nD,4 & A,4|A,4|"), "an overlay"),
        (abc("DEFG|", key="Hrub"), "a key that is not read"),
        (abc("DEFG|", key="Drub"), "a key that is not read"),
        (abc("DEFG|\nK:Hrub\nABcd|"), "a key that is not read"),
    ],
)
def test_abc_tune_that_would_be_misread_is_named(tmp_path, tune, reason):
    (tmp_path / "book.abc").write_text(f"{tune}\n\n{BOOK}")
    report = load_music(tmp_path / "book.abc").report
    assert report.n == 2 and "X:1 (Title)" in report.skipped[reason].examples[0]


def test_abc_ampersand_in_words_is_no_overlay():
    words = 'w:this & that\nN:this & that\n"this & that"DEFG|!x&y!ABcd| % this & that'
    assert voices_of(abc(words, fields="C:Tom & Jerry\n")) == {0: UPPER}


@pytest.mark.parametrize(
    ("written", "key", "pitches"),
    [
        ("D treble", "D", [66, 73]),
        ("Ddor clef=bass", "Ddor", [65, 72]),
        ("D middle=d", "D", [66, 73]),
        ("D Minor % sad", "Dm", [65, 72]),
        ("Dmix=c", "Dmix", [66, 72]),
        ("D exp ^f", None, [66, 72]),
        ("bass", None, [65, 72]),
        ("none", None, [65, 72]),
        ("", None, [65, 72]),
        ("HP", None, [66, 73]),
        ("Hp", None, [66, 73]),
    ],
)
def test_abc_key_may_have_a_mode_and_a_clef_or_be_none(written, key, pitches):
    notes, found, _, _ = read_score(abc("Fc", key=written), is_abc=True)
    assert (found if found is None else KEYS[found]) == key and notes[:, 0].tolist() == pitches


def test_abc_music_behind_a_blank_line_is_named(tmp_path):
    words = "Collected by Fred | 1901\nT: is for two\n\n%%begintext\n"
    lost = "T:b without X\nM:6/8\nL:1/8\nK:G\ndddd|dddd|"
    first = abc("DEFG|\n\nABcd|").replace("T:Title\n", "")
    (tmp_path / "book.abc").write_text(f"T:Lost\nM:6/8\nK:G\nd3|\n\nL:1/8\n\n{first}\n\n{words}\n{lost}\n\n{BOOK}")
    report = load_music(tmp_path / "book.abc").report
    found = report.skipped["music of no tune"]
    places = ["before the first X: (Lost)", "behind X:1", "behind X:1 (b without X)"]
    assert report.n == 3 and found.count == 3
    assert [each.split(": a tune")[0] for each in found.examples] == [f"book.abc, {place}" for place in places]


def test_abc_fields_of_a_tune_without_x_are_not_those_of_the_book(tmp_path):
    without_length = BOOK.replace("L:1/8\n", "")
    (tmp_path / "book.abc").write_text(f"L:1/16\n\nT:Lost\nL:1/2\nK:G\nd3|\n\n{without_length}")
    assert decode(load_music(tmp_path / "book.abc").row_codes(0))[1, 3] == 24  # A2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_abc_may_be_of_other_encodings_and_indented(tmp_path, encoding):
    text = BOOK.replace("Nonsense", "K\xe4se").replace("X:5", "  X:5").replace("\n", "\r\n")
    (tmp_path / "book.abc").write_bytes(text.encode(encoding))
    report = load_music(tmp_path / "book.abc").report
    assert report.n == 2 and "K\xe4se" in str(report)


def midi(path, *tracks, ticks=480, kind=1):
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    file.tracks += map(mido.MidiTrack, tracks)
    file.save(path)
    return path


def note(pitch=60, wait=0, lasts=480):
    message = mido.Message("note_on", note=pitch, velocity=80, time=wait)
    return [message, mido.Message("note_off", note=pitch, time=lasts)]


@pytest.mark.parametrize(
    ("name", "messages", "options", "reason"),
    [
        ("no notes", [], {}, "no notes"),
        ("type 2", note(), {"kind": 2}, "MIDI of type 2"),
        ("ten hours", note(wait=480 * 120 * 600), {}, "longer than an hour"),
    ],
)
def test_midi_that_cannot_be_used_is_named_with_its_reason(tmp_path, name, messages, options, reason):
    midi(tmp_path / f"{name}.mid", messages, **options)
    for i in range(2):
        midi(tmp_path / f"{i}.mid", note(60 + i))
    report = load_music(tmp_path).report
    assert report.n == 2 and report.skipped[reason].examples[0].startswith(f"{name}.mid")
    with pytest.raises(InvalidData, match=reason):
        load_music(tmp_path / f"{name}.mid")


@pytest.mark.parametrize("data", [b"", b"no MIDI", b"MThd\x00\x00\x00\x06\x00\x01\x00\x02\x01\xe0MTrk\x00\x00"])
def test_broken_midi_is_refused(tmp_path, data):
    (tmp_path / "broken.mid").write_bytes(data)
    with pytest.raises(InvalidData, match="unreadable"):
        load_music(tmp_path / "broken.mid")


def test_ten_hours_of_midi_are_refused(tmp_path):
    midi(tmp_path / "long.mid", [message for i in range(72_000) for message in note(50 + i % 30)])
    with pytest.raises(InvalidData, match=r"longer than an hour: 1 \(long\.mid: 10\.0 hours; cut it into pieces\)"):
        load_music(tmp_path / "long.mid")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("C99999999|", "no valid length"),
        ("DE[FA]1000G|", "a note that is too long"),
        ("QRSTxyz|", "words for notes"),
        ("This is a letter, not a tune.", "words for notes"),
    ],
)
def test_abc_that_is_no_music_is_named(tmp_path, body, reason):
    (tmp_path / "book.abc").write_text(f"X:9\nT:Wrong\nM:4/4\nK:D\n{body}\n\n{BOOK}")
    report = load_music(tmp_path / "book.abc").report
    assert report.n == 2 and report.skipped[reason].examples[0].startswith("book.abc, X:9 (Wrong)")


def test_a_key_at_the_head_of_a_book_is_no_tune(tmp_path):
    (tmp_path / "book.abc").write_text(f"M:6/8\nL:1/8\nK:G\n\n{BOOK}")
    data = load_music(tmp_path / "book.abc")
    assert data.n == 2 and "music of no tune" not in data.report.skipped


def test_midi_keeps_key_metre_tempo_and_voices(tmp_path):
    head = [
        mido.MetaMessage("set_tempo", tempo=400_000),
        mido.MetaMessage("time_signature", numerator=3, denominator=4),
        mido.MetaMessage("key_signature", key="F#m"),
    ]
    for i in range(2):
        drum = [message.copy(channel=9) for message in note(40, lasts=10)]
        midi(tmp_path / f"{i}.mid", [*head, *note(61 + i), drum[0].copy(velocity=99), drum[1]])
    data = load_music(tmp_path)
    assert data.tempo == 150 and data.meter_names == ("3/4",) and KEYS[data.keys[0]] == "F#m"
    assert decode(data.row_codes(0)).tolist() == [[61, 80, 0, 48, 0, 0], [40, 96, 48, 1, 1, 128]]


def test_midi_is_read_in_time_whichever_track_says_it(tmp_path):
    meters = [mido.MetaMessage("time_signature", numerator=n, denominator=4, time=9000 * (n == 4)) for n in (4, 3)]
    programs = [mido.Message("program_change", channel=1, program=40 + i) for i in range(2)]
    played = [message.copy(channel=1) for message in [*note(62), *note(64)]]
    played = [programs[0], *played[:2], programs[1], *played[2:]]
    path = midi(tmp_path / "x.mid", [meters[0]], [meters[1], *note(60, wait=960)], played)
    notes, _, meter, *_ = read_midi(str(path))
    assert meter == "3/4"  # the first in time; voices are in the order of tracks
    assert sorted(notes[:, [0, 2, 4, 5]].tolist()) == [[60, 96, 0, 0], [62, 0, 1, 40], [64, 48, 1, 41]]


SCORE = """<?xml version="1.0" encoding="UTF-8"?>
<score-partwise version="4.0">
  <part-list>
    <score-part id="P1"><part-name>Above</part-name></score-part>
    <score-part id="P2"><part-name>Below</part-name></score-part>
  </part-list>
  <part id="P1">
    <measure number="1">
      <attributes><divisions>2</divisions><key><fifths>-1</fifths><mode>minor</mode></key>
        <time><beats>3</beats><beat-type>4</beat-type></time></attributes>
      <direction><direction-type><metronome><beat-unit>quarter</beat-unit><per-minute>90</per-minute></metronome>
        </direction-type><sound tempo="90"/></direction>
      <note><pitch><step>D</step><octave>5</octave></pitch><duration>4</duration></note>
      <note><pitch><step>F</step><octave>5</octave></pitch><duration>2</duration><tie type="start"/></note>
    </measure>
    <measure number="2">
      <note><pitch><step>F</step><octave>5</octave></pitch><duration>2</duration><tie type="stop"/></note>
      <note><rest/><duration>2</duration></note>
      <note><pitch><step>C</step><alter>1</alter><octave>5</octave></pitch><duration>1</duration></note>
      <note><pitch><step>{last}</step><octave>5</octave></pitch><duration>1</duration></note>
    </measure>
  </part>
  <part id="P2">
    <measure number="1">
      <attributes><divisions>1</divisions></attributes>
      <note><pitch><step>D</step><octave>3</octave></pitch><duration>3</duration></note>
    </measure>
    <measure number="2">
      <note><pitch><step>A</step><octave>3</octave></pitch><duration>3</duration></note>
      <note><chord/><pitch><step>E</step><octave>4</octave></pitch><duration>3</duration></note>
    </measure>
  </part>
</score-partwise>
"""


def test_musicxml_keeps_key_metre_tempo_parts_ties_and_chords(tmp_path):
    (tmp_path / "1.musicxml").write_text(SCORE.format(last="D"))
    with zipfile.ZipFile(tmp_path / "2.mxl", "w") as packed:
        packed.writestr("score.musicxml", SCORE.format(last="E"))
    (tmp_path / "3.musicxml").write_text(SCORE[:900])
    data = load_music(tmp_path)
    assert data.tempo == 90 and data.meter_names == ("3/4",) and [KEYS[key] for key in data.keys] == ["Dm", "Dm"]
    above = [[74, 80, 0, 96, 0, 0], [77, 80, 96, 96, 0, 0], [73, 80, 240, 24, 0, 0], [74, 80, 264, 24, 0, 0]]
    below = [[50, 80, 0, 144, 1, 0], [57, 80, 144, 144, 1, 0], [64, 80, 144, 144, 1, 0]]
    assert sorted(decode(data.row_codes(0)).tolist()) == sorted(above + below)
    assert decode(data.row_codes(1))[-1].tolist() == [76, 80, 264, 24, 0, 0]
    assert data.report.skipped["unreadable"].examples[0].startswith("3.musicxml")


def test_musicxml_is_read_from_the_file_itself_and_nothing_is_left_of_it(tmp_path):
    import music21

    path = tmp_path / "x.musicxml"
    path.write_text(SCORE.format(last="D"))
    first, _, _, _ = read_score(str(path), is_abc=False)
    kept = music21.converter.PickleFilter(path).getPickleFp()
    assert not kept.exists()
    path.write_text(SCORE.format(last="E"))
    os.utime(path, (0, 0))
    second, _, _, _ = read_score(str(path), is_abc=False)
    assert first[:, 0].max() == 77 and set(second[:, 0]) - set(first[:, 0]) == {76}


def test_parts_are_read_as_they_sound_and_percussion_without_a_pitch_is_left_out(tmp_path):
    transpose = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
    text = SCORE.format(last="D").replace("<divisions>1</divisions>", f"<divisions>1</divisions>{transpose}")
    drum = "<unpitched><display-step>F</display-step><display-octave>4</display-octave></unpitched>"
    text = text.replace("<pitch><step>A</step><octave>3</octave></pitch><duration>3", f"{drum}<duration>1")
    text = text.replace("<note><chord/>", "<note>")
    (tmp_path / "x.musicxml").write_text(text)
    notes, _, _, _ = read_score(str(tmp_path / "x.musicxml"), is_abc=False)
    assert notes[notes[:, 4] == 1][:, 0].tolist() == [50 - 2, 64 - 2]


def scored(tmp_path, text, name="x.musicxml"):
    (tmp_path / name).write_text(text)
    return read_score(str(tmp_path / name), is_abc=False)


def test_cue_notes_are_silent_and_take_their_time(tmp_path):
    first = "<note><pitch><step>D</step><octave>5</octave></pitch><duration>4</duration></note>"
    text = SCORE.format(last="D")
    notes, *_ = scored(tmp_path, text.replace(first, first.replace("<note>", "<note><cue/>")))
    assert sorted(notes[notes[:, 4] == 0][:, [0, 2]].tolist()) == [[73, 240], [74, 264], [77, 96]]
    chord = "<note><chord/><pitch><step>E</step>"
    notes, *_ = scored(tmp_path, text.replace(chord, chord.replace("<note>", "<note><cue/>")))
    assert sorted(notes[notes[:, 4] == 1][:, [0, 2]].tolist()) == [[50, 0], [57, 144]]


def note_of(step, duration, *inside, attributes="", octave=5):
    """Return a note: what is inside stands first, in angle brackets."""
    first = "".join(f"<{each}/>" for each in inside)
    return (
        f"<note {attributes}>{first}<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
        f"<duration>{duration}</duration></note>"
    )


def tied(note, kind):
    return note.replace("</note>", f'<tie type="{kind}"/></note>')


def in_voice_2(note):
    return note.replace("</duration></note>", "</duration><voice>2</voice></note>")


REST, BACKUP = "<note><rest/><duration>2</duration></note>", "<backup><duration>4</duration></backup>"
FORWARD = "<forward><duration>3</duration></forward>"
TREMOLO = "<notations><ornaments><tremolo type={}>3</tremolo></ornaments></notations></note>"
GRACE = "<note><grace/>{}<pitch><step>G</step><octave>5</octave></pitch></note>"


@pytest.mark.parametrize(
    ("bars", "wanted"),
    [
        # Time that is skipped fills a bar, the first one too.
        ([note_of("C", 1) + FORWARD, note_of("D", 4)], "72@0+1 74@4+4"),
        ([note_of("C", 4), note_of("D", 1) + FORWARD, note_of("E", 4)], "72@0+4 74@4+1 76@8+4"),
        ([note_of("C", 4), "<forward><duration>4</duration></forward>", note_of("E", 4)], "72@0+4 76@8+4"),
        ([note_of("C", 1), note_of("D", 4)], "72@3+1 74@4+4"),
        ([note_of("C", 4) + BACKUP + FORWARD + note_of("E", 1, octave=4)], "72@0+4 64@3+1"),
        ([note_of("C", 2) + note_of("D", 2) + BACKUP + note_of("E", 4, octave=4)], "64@0+4 72@0+2 74@2+2"),
        # Notes of a chord may be silent, or have a length of their own.
        ([note_of("D", 2, "cue") + note_of("F", 2, "chord") + note_of("C", 2)], "77@0+2 72@2+2"),
        ([note_of("D", 2) + note_of("F", 2, "cue", "chord") + note_of("C", 2)], "74@0+2 72@2+2"),
        ([REST + note_of("F", 2, "chord") + note_of("C", 2)], "77@0+2 72@2+2"),
        ([note_of("C", 2) + note_of("E", 1, "chord") + note_of("D", 2)], "72@0+2 76@0+1 74@2+2"),
        ([note_of("C", 1) + note_of("E", 2, "chord") + note_of("D", 3)], "72@0+1 76@0+2 74@1+3"),
        ([note_of("C", 2, attributes='dynamics="0"') + note_of("D", 2)], "74@2+2"),
        ([GRACE.format("") + GRACE.format("<chord/>") + GRACE.format("<cue/>") + note_of("C", 4)], "72@0+4"),
        # What is not printed sounds, and a tremolo is not written out.
        ([note_of("C", 2) + note_of("D", 2, attributes='print-object="no"')], "72@0+2 74@2+2"),
        ([note_of("C", 4).replace("</note>", TREMOLO.format('"single"'))], "72@0+4"),
        (
            [
                note_of("C", 2).replace("</note>", TREMOLO.format('"start"'))
                + note_of("G", 2).replace("</note>", TREMOLO.format('"stop"'))
            ],
            "72@0+2 79@2+2",
        ),
        # A tie goes to the note that begins where it ends.
        (
            [tied(note_of("C", 4), "start"), note_of("D", 4), tied(note_of("C", 4), "stop")],
            "72@0+4 74@4+4 72@8+4",
        ),
        (
            [
                tied(note_of("C", 4), "start") + BACKUP + in_voice_2(note_of("C", 2)) + in_voice_2(note_of("D", 2)),
                tied(note_of("C", 4), "stop") + BACKUP + in_voice_2(note_of("E", 4)),
            ],
            "72@0+2 72@0+8 74@2+2 76@4+4",
        ),
        (
            [
                tied(note_of("C", 4), "start") + tied(note_of("E", 4, "chord"), "start"),
                tied(note_of("C", 4), "stop") + note_of("E", 4, "chord"),
            ],
            "72@0+8 76@0+4 76@4+4",
        ),
    ],
)
def test_notes_of_musicxml_sound_when_and_as_long_as_its_standard_says(tmp_path, bars, wanted):
    notes, *_ = scored(tmp_path, score_of(*bars))
    found = sorted((onset / 48, pitch, length / 48) for pitch, _, onset, length, _, _ in notes.tolist())
    assert " ".join(f"{pitch}@{onset:g}+{length:g}" for onset, pitch, length in found) == wanted


def score_of(*bars, more="", instrument=""):
    time = "<time><beats>4</beats><beat-type>4</beat-type></time>"
    attributes = f"<attributes><divisions>1</divisions>{time}{more}</attributes>"
    measures = "".join(f"<measure>{attributes * (not i)}{bar}</measure>" for i, bar in enumerate(bars))
    parts = f'<part-list><score-part id="P1"><part-name>x</part-name>{instrument}</score-part></part-list>'
    return f'<score-partwise>{parts}<part id="P1">{measures}</part></score-partwise>'


def test_musicxml_that_is_transposed_for_drums_in_microtones_or_of_two_tempos(tmp_path):
    octave = "<transpose><chromatic>-2</chromatic><octave-change>-1</octave-change></transpose>"
    assert scored(tmp_path, score_of(note_of("C", 4), more=octave))[0][0, 0] == 58
    drums = '<score-instrument id="I1"><instrument-name>x</instrument-name></score-instrument><midi-instrument id="I1">'
    drums = f"{drums}<midi-channel>10</midi-channel><midi-program>1</midi-program></midi-instrument>"
    assert scored(tmp_path, score_of(note_of("C", 4), instrument=drums))[0][0, 5] == 128
    quarter_tone = note_of("C", 4).replace("</step>", "</step><alter>0.5</alter>")
    assert scored(tmp_path, score_of(quarter_tone)).reason == "a microtone"
    metronome = "<metronome><beat-unit>quarter</beat-unit><per-minute>60</per-minute></metronome>"
    tempo = f'<direction><direction-type>{metronome}</direction-type><sound tempo="100"/></direction>'
    assert scored(tmp_path, score_of(tempo + note_of("C", 4)))[3] == 100  # what is to sound


def test_a_key_without_mode_is_of_its_signature(tmp_path):
    text = SCORE.format(last="D").replace("<mode>minor</mode>", "")
    assert KEYS[scored(tmp_path, text)[1]] == "Dm"
    for step, other in (("D", "F"), ("A", "C")):
        text = text.replace(f"<step>{step}</step><octave>3", f"<step>{other}</step><octave>3")
    text = text.replace("<alter>1</alter>", "").replace("<step>D</step><octave>5", "<step>F</step><octave>5")
    assert KEYS[scored(tmp_path, text.replace("<step>E</step>", "<step>A</step>"))[1]] == "F"


def test_tempo_of_a_score_is_the_mean_whichever_part_says_it(tmp_path):
    second = '<measure number="2"><direction><direction-type><words>faster</words></direction-type>'
    text = SCORE.format(last="D").replace('<measure number="2">', f'{second}<sound tempo="180"/></direction>', 1)
    assert scored(tmp_path, text)[3] == pytest.approx(120)  # three quarters in 2 s and three in 1 s


def test_score_timewise_and_a_packed_file_whose_root_is_not_first_are_read(tmp_path):
    text = SCORE.format(last="D")
    whole = scored(tmp_path, text)
    parts = re.findall(r'<part id="(P\d)">(.*?)</part>', text, re.S)
    bars = [re.findall(r"<measure number=.\d.>(.*?)</measure>", music, re.S) for _, music in parts]
    timewise = "".join(
        f'<measure number="{i + 1}">'
        + "".join(f'<part id="{name}">{bars[j][i]}</part>' for j, (name, _) in enumerate(parts))
        + "</measure>"
        for i in range(2)
    )
    head = text[: text.index('<part id="P1">')].replace("partwise", "timewise")
    again = scored(tmp_path, f"{head}{timewise}</score-timewise>")
    assert again[0].tolist() == whole[0].tolist() and again[1:] == whole[1:]
    named = '<rootfile full-path="other.xml" media-type="image/svg+xml"/><rootfile full-path="in/score.xml"/>'
    with zipfile.ZipFile(tmp_path / "x.mxl", "w") as packed:
        packed.writestr("other.xml", "<svg/>")
        packed.writestr("in/score.xml", text)
        packed.writestr("META-INF/container.xml", f"<container><rootfiles>{named}</rootfiles></container>")
    assert read_score(str(tmp_path / "x.mxl"), is_abc=False)[0].tolist() == whole[0].tolist()


def test_packed_score_that_is_large_is_left_out(tmp_path):
    for i, last in enumerate("DE"):
        (tmp_path / f"{i}.musicxml").write_text(SCORE.format(last=last))
    with zipfile.ZipFile(tmp_path / "large.mxl", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("score.musicxml", bytes(MOST_BYTES + 1))
    assert load_music(tmp_path).report.skipped["too large"].examples[0].startswith("large.mxl")


def test_drums_stay_where_pieces_are_moved():
    tune = [[60 + i, 80, 48 * i, 48, 0, 0] for i in range(8)]
    drums = [[36, 80, 48 * i, 24, 1, 128] for i in range(8)]
    same, higher, other = (
        Piece(name, np.array([*[[row[0] + up, *row[1:]] for row in tune], *beats]))
        for name, up, beats in (("same", 0, drums), ("higher", 3, drums), ("other", 0, drums[:4]))
    )
    data = load_music([same, higher, other], transpose=2)
    events = {event_name(ord(character)) for character in data.spec(np.arange(3)).details.events}
    assert {each for each in events if each.startswith("held") and int(each.split()[1]) < 58} == {"held 36"}
    digests = data.digests.tolist()
    assert digests[0] == digests[1] != digests[2]


def test_a_piece_is_moved_with_its_key():
    scale_of_c = np.array([[60 + step, 80, 24 * i, 24, 0, 0] for i, step in enumerate((0, 2, 4, 5, 7, 9, 11, 12))])
    other = Piece("", scale_of_c + np.array([0, 0, 0, 24, 0, 0]), key=KEYS.index("Am"))
    data = load_music([Piece("", scale_of_c, key=KEYS.index("C")), other], transpose=5)
    assert [KEYS[key] for key in data.keys] == ["C", "Am"]
    seen = set()
    for _ in range(60):
        (batch,) = batches(data, np.array([0]), 1, torch.device("cpu"), "music", varied=True)
        pitches = {code % 12 for code in batch["codes"][0].tolist() if 0 <= code < 256}
        key = int(batch["keys"][0])
        assert pitches == set(scale(KEYS[key]).tolist())
        seen.add(key)
    assert seen == {*range(6), *range(7, 12)}  # five semitones up and down


def test_copies_of_one_name_are_copies():
    up, down = (np.array([[60 + step * i, 80, 24 * i, 24, 0, 0] for i in range(8)]) for step in (1, -1))
    report = load_music([Piece("", up), Piece("", up), Piece("", down)]).report
    assert report.n == 2 and report.skipped["copy"].count == 1


def test_data_that_is_read_is_held_to_the_options():
    tunes = [Piece(f"{i}", np.array([[60 + i, 80, 48, 96, 0, 0]])) for i in range(2)]
    data = load_music(tunes)
    assert load_music(data, 5).transpose == 5 and load_music(load_music(data, 5)).transpose == 5
    with pytest.raises(InvalidData, match="read it with full_bars=True"):
        load_music(data, full_bars=True)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"meter": "²/4"}, "no valid metre"),
        ({"tempo": "120"}, "no valid tempo"),
        ({"notes": None}, "no valid notes"),
        ({"notes": np.array([[60, 80, 0, 2**14, 0, 0]])}, "a note that is too long"),
        ({"meter": "0/4"}, "no valid metre"),
        ({"meter": "x"}, "no valid metre"),
        ({"key": 200}, "no valid key"),
        ({"key": "D"}, "no valid key"),
        ({"tempo": 0}, "no valid tempo"),
        ({"notes": np.array([[200, 80, 0, 24, 0, 0]])}, "no valid notes"),
        ({"notes": np.array([[60, 80, -1, 24, 0, 0]])}, "no valid notes"),
        ({"notes": np.array([[60, 80, 0, 0, 0, 0]])}, "no valid notes"),
        ({"notes": np.array([[60, 80, 0, 24]])}, "no valid notes"),
        ({"notes": np.array([[60, 80, 0, 24.5, 0, 0]])}, "no valid notes"),
    ],
)
def test_piece_made_in_python_that_is_none_is_left_out_and_named(wrong, reason):
    good = [Piece(f"{pitch}", np.array([[pitch, 80, 0, 96, 0, 0]])) for pitch in (60, 62)]
    broken = good[0]._replace(name="wrong", **wrong)
    report = load_music([*good, broken], full_bars=False).report
    assert report.n == 2 and report.skipped[reason].examples[0].startswith("wrong")
    with pytest.raises(InvalidRequest, match=f"Piece 0 of what to evaluate cannot be used: {reason}"):
        sdk.evaluate([broken], good)


def test_notes_of_few_bits_are_as_good_as_others():
    # The last note ends at tick 288, which is no number of eight bits.
    notes = [np.array([[60 + step * i, 80, 96 * i, 96, 0, 0] for i in range(3)], np.uint8) for step in (1, 2)]
    assert load_music([Piece("", each, meter="2/4") for each in notes], full_bars=True).n == 2


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("L:1/8", "no valid metre"),
        ("M:4/4\nQ:1/4=0", "no valid tempo"),
        ("M:4/4\nQ:0", "no valid tempo"),
    ],
)
def test_tune_without_metre_or_tempo_is_named(tmp_path, head, reason):
    (tmp_path / "book.abc").write_text(f"X:9\nT:Wrong\n{head}\nK:D\nDEFG|\n\n{BOOK}")
    report = load_music(tmp_path / "book.abc").report
    assert report.n == 2 and "Wrong" in report.skipped[reason].examples[0]


@pytest.mark.parametrize("given", ["nowhere.mid", "text.txt", [1, 2], 7, []])
def test_music_of_nothing_is_refused(tmp_path, given):
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(InvalidData):
        load_music(tmp_path / given if isinstance(given, str) else given)


def test_full_bars_leaves_out_what_does_not_sum_up():
    whole = Piece("whole", np.array([[60, 80, 0, 192, 0, 0]]))
    other = Piece("other", np.array([[62, 80, 0, 96, 0, 0], [64, 80, 96, 96, 0, 0]]))
    over = Piece("over", np.array([[60, 80, 144, 96, 0, 0]]))
    assert in_full_bars(whole.notes, 192) and not in_full_bars(over.notes, 192)
    data = load_music([whole, other, over], full_bars=True)
    assert data.n == 2 and data.report.skipped["bars that do not sum up"].count == 1


def test_long_piece_is_cut_at_a_bar_line():
    notes = np.array([[60 + i % 7, 80, 24 * i, 24, 0, 0] for i in range(1500)])
    data = load_music([Piece("long", notes)])
    assert data.n == 3 and "cut into several" in str(data.report)
    assert all(decode(data.row_codes(row))[0, 2] == 0 for row in range(3))


def test_parts_of_one_piece_are_split_together():
    rng = np.random.default_rng(3)

    def piece(name, n):
        columns = [rng.integers(50, 80, n), np.full(n, 80), 24 * np.arange(n), np.full(n, 24), *np.zeros((2, n), int)]
        return Piece(name, np.stack(columns, 1), 0)

    long = [piece(f"{i}", 1800) for i in range(60)]
    moved = long[0].notes.copy()
    moved[:, 0] += 2
    moved[:600, 0] = 60  # shares all but its first part, in another key
    data = load_music([*long, *(piece(f"short {i}", 20) for i in range(60)), Piece("moved", moved, 2)])
    split = data.split(0.2, 0.2)
    sides = [set(data.pieces[rows].tolist()) for rows in split.values()]
    assert all(not a & b for a, b in itertools.combinations(sides, 2)) and all(map(len, sides))
    assert any({0, 120} <= side for side in sides)
    held_out = sum(piece < 60 for side in sides[1:] for piece in side)
    assert 14 <= held_out <= 34  # of 60, and not most of them
    alone = load_music([Piece(p.name, p.notes[:20], 0) for p in long])
    assert {k: v.tolist() for k, v in alone.split(0.2, 0.2).items()} == {
        k: v.tolist() for k, v in replace(alone, pieces=None).split(0.2, 0.2).items()
    }
    assert alone.fingerprint == replace(alone, pieces=None).fingerprint
    assert data.fingerprint != replace(data, pieces=None).fingerprint


def test_one_long_piece_alone_is_all_for_training():
    notes = np.array([[60 + i * i % 11, 80, 24 * i, 24, 0, 0] for i in range(1500)])
    split = load_music([Piece("long", notes)]).split(0.1, 0.1)
    assert [len(rows) for rows in split.values()] == [3, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_saved_midi_holds_the_notes_and_nothing_is_stuck(tmp_path, seed):
    notes = random_notes(seed, voices=12)
    piece = piece_of(notes)
    path = piece.save(tmp_path / "piece.mid")
    file, sounding = mido.MidiFile(path), set()
    for track in file.tracks:
        for message in track:
            assert message.time >= 0
            if message.type == "note_on":
                assert (message.channel, message.note) not in sounding
                sounding.add((message.channel, message.note))
            elif message.type == "note_off":
                sounding.remove((message.channel, message.note))
    assert not sounding
    kinds = {message.type: message for message in file.tracks[0]}
    assert kinds["key_signature"].key == "Dm" and kinds["time_signature"].numerator == 6
    assert json.loads(kinds["text"].text.partition("=")[2]) == piece.provenance


def test_voices_tempo_and_drums_are_read_again_from_what_was_saved(tmp_path):
    notes = np.array([[48, 80, 0, 96, 1, 40], [62, 80, 0, 48, 0, 0], [65, 80, 48, 48, 0, 0], [36, 80, 48, 24, 2, 128]])
    piece = piece_of(in_order(notes), tempo=75.0)
    again, _, meter, tempo, _ = read_midi(str(piece.save(tmp_path / "piece.mid")))
    assert in_order(again).tolist() == piece.to_ticks().tolist() and (meter, tempo) == ("6/8", 75)
    two = piece_of(in_order(notes[:3]), tempo=75.0).save(tmp_path / "two.musicxml")
    again, _, meter, tempo = read_score(str(two), is_abc=False)
    assert sorted(again[:, [0, 2, 3, 4]].tolist()) == [[48, 0, 96, 1], [62, 0, 48, 0], [65, 48, 48, 0]]
    assert (meter, tempo) == ("6/8", 75)


@pytest.mark.parametrize(("missing", "suffix"), [("mido", ".mid"), ("music21", ".musicxml")])
def test_without_its_package_music_is_not_saved_or_read(tmp_path, monkeypatch, missing, suffix):
    piece = piece_of(np.array([[62, 80, 0, 24, 0, 0]]))
    path = piece.save(tmp_path / f"piece{suffix}")
    monkeypatch.setitem(sys.modules, missing, None)
    actions = [partial(piece.save, tmp_path / f"new{suffix}")]
    if suffix != ".mid":  # of which a reader of our own needs no package
        actions.append(partial(read_score, str(path), is_abc=False))
    for action in actions:
        with pytest.raises(MissingPackage, match=rf"{missing}.*pip install 'aigc-sdk\[music\]'"):
            action()
    assert not (tmp_path / f"new{suffix}").exists()


def test_piece_is_saved_as_sound_score_and_picture(tmp_path):
    import music21

    notes = np.array([[62, 80, 0, 24, 0, 0], [65, 80, 24, 48, 0, 0], [69, 80, 72, 72, 0, 0]])
    piece = piece_of(notes)
    with wave.open(str(piece.save(tmp_path / "piece.wav"))) as sound:
        seconds = sound.getnframes() / sound.getframerate()
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    assert 2 <= seconds < 2.5 and np.abs(samples).max() > 20_000
    last = samples[int(1.1 * RATE) : int(1.9 * RATE)]  # the second half of it is the A above middle C
    assert np.abs(np.fft.rfft(last)).argmax() * RATE / len(last) == pytest.approx(440, rel=0.01)
    score = music21.converter.parse(piece.save(tmp_path / "piece.musicxml"))
    assert [each.pitch.midi for each in score.recurse().notes] == [62, 65, 69]
    assert [each.midiProgram for each in score.recurse().getElementsByClass("Instrument")] == [0]
    (tempo,), (meter,) = (score.recurse().getElementsByClass(kind) for kind in ("MetronomeMark", "TimeSignature"))
    assert (tempo.number, meter.ratioString) == (90, "6/8")
    with pytest.raises(InvalidProvenance, match="a piece is reproduced from"):
        sdk.reproduce(tmp_path / "piece.musicxml")
    assert json.loads((tmp_path / "piece.musicxml.json").read_text()) == piece.provenance
    roll = np.asarray(piece.to_pil())
    assert len(np.unique(roll.reshape(-1, 3), axis=0)) >= 4
    assert "<audio" in piece._repr_html_() and "6/8" in repr(piece)
    shown = Contents([piece] * 6)._repr_html_()
    assert shown.count("<audio") == 4 and shown.endswith("6 x Music; 2 more are not shown")
    with pytest.raises(InvalidRequest, match=r"\.mid, \.wav, \.musicxml"):
        piece.save(tmp_path / "piece.mp3")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_score_that_cannot_be_written_on_the_way_is_a_storage_error(tmp_path, monkeypatch):
    monkeypatch.setattr("music21.stream.Score.write", lambda *_, **__: Path("/dev/full").write_text("x" * 10**6))
    with pytest.raises(StorageError, match="Cannot write"):
        piece_of(random_notes(1)).save(tmp_path / "piece.musicxml")
    assert not list(tmp_path.iterdir())


def test_piece_of_hours_is_saved_but_not_as_sound(tmp_path):
    piece = piece_of(np.array([[60, 80, 48 * i, 48, 0, 0] for i in range(400)]), tempo=4)
    assert mido.MidiFile(piece.save(tmp_path / "piece.mid")).length == pytest.approx(6000)
    with pytest.raises(InvalidRequest, match=r"lasts 1\.7 hours, as sound at most one; save it as \.mid"):
        piece.save(tmp_path / "piece.wav")
    shown = piece._repr_html_()
    assert len(shown) < 4e6 and shown.endswith("of which the first minute is played")


def test_full_bars_need_the_metre():
    for wrong in ({"conditions": "key"}, {"conditions": "key,bars"}):
        with pytest.raises(InvalidConfig, match="Options of the family music-rnn: full_bars needs meter"):
            sdk.train("music-rnn", [], out="never", steps=1, full_bars=True, **wrong)
    with pytest.raises(InvalidConfig, match="music-rnn: bars among the conditions need full_bars=true"):
        sdk.train("music-rnn", [], out="never", steps=1, conditions="key,meter,bars")


def test_notes_that_are_none_are_not_saved(tmp_path):
    for column, value in ((0, 200), (2, -1), (3, float("nan")), (4, 16), (5, 129)):
        piece = piece_of(np.array([[60, 80, 0, 24, 0, 0]]))
        piece.data[0, column] = value
        with pytest.raises(GenerationFailed, match="out of range"):
            piece.save(tmp_path / "piece.mid")


def test_a_score_spells_notes_as_its_key_does(tmp_path):
    import music21

    steps = np.array([0, 2, 3, 5, 7, 8, 10, 11])  # of C minor and, at last, the raised seventh
    for tonic, key in enumerate(KEYS[12:24]):
        notes = np.array([(60 + tonic + step, 80, 24 * i, 24, 0, 0) for i, step in enumerate(steps)])
        saved = piece_of(notes, key=key).save(tmp_path / f"{tonic}.musicxml")
        score = music21.converter.parse(saved)
        altered = {pitch.name for pitch in score.flatten().getElementsByClass("Key")[0].alteredPitches}
        found = [note.pitch for note in score.flatten().notes]
        assert [pitch.midi for pitch in found] == notes[:, 0].tolist()
        assert {pitch.step for pitch in found[:7]} == set("CDEFGAB")  # each letter once
        assert {pitch.name for pitch in found[:7] if pitch.accidental and pitch.alter} == altered
        assert found[7].step == found[6].step
        assert score.metadata.bestTitle == "m, seed 1"


def test_trained_music_tells_what_it_drew_and_takes_what_is_asked(trained_music):
    model = sdk.load(trained_music.folder)
    asked = model.generate(2, seed=3, key="G", meter="6/8", tempo=90)
    assert [(piece.key, piece.meter, piece.tempo) for piece in asked] == [("G", "6/8", 90)] * 2
    assert model.generate(seed=3, key="B#") == model.generate(seed=3, key="C")  # the same key
    drawn = model.generate(20, seed=3)
    assert {piece.meter for piece in drawn} == {"4/4", "6/8"} and {piece.key for piece in drawn} == {"C", "G"}
    order = [(note[2], note[0], note[4]) for note in drawn[0].data.tolist()]
    assert order == sorted(order)
    slow, fast = (model.generate(seed=5, key="C", meter="4/4", tempo=tempo)[0].data for tempo in (60, 120))
    np.testing.assert_allclose(slow[:, 2:4], 2 * fast[:, 2:4], rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"content.tempo": None}, r"returned no content\.tempo, which music has"),
        ({"content.tempo": np.float64([90])}, r"returned float64 \(1,\) as tempo of 1 items"),
        ({"content.tempo": np.float32([0])}, "a tempo that is not within 1 to 1000"),
        ({"content.meter": np.array([[0, 4]])}, "a metre other than"),
        ({"content.meter": np.array([[6, 7]])}, "a metre other than"),
        ({"content.key": np.array([len(KEYS)])}, "a key that is not within -1 to 83"),
    ],
)
def test_how_music_is_written_is_checked(trained_music, wrong, message):
    card = sdk.load(trained_music.folder).card
    right = {"tempo": np.float32([90]), "meter": np.array([[6, 8]]), "key": np.array([2])}
    outputs = {f"content.{name}": value for name, value in right.items()}
    assert [each.tolist() for each in check_parts(card, outputs, 1).values()] == [[90], [[6, 8]], [2]]
    outputs = {name: value for name, value in (outputs | wrong).items() if value is not None}
    with pytest.raises(GenerationFailed, match=message):
        check_parts(card, outputs, 1)


def test_a_model_of_full_bars_makes_as_many_as_it_is_asked_for(tmp_path, no_export):
    rng = np.random.default_rng(0)
    tunes = []
    for i in range(12):
        onsets = np.flatnonzero((np.arange(16) % 4 == 0) | (rng.random(16) < 0.5)) * 24  # four bars of 2/4, in eighths
        lasts = np.diff([*onsets.tolist(), 384])
        same = np.full(len(onsets), 80), np.zeros(len(onsets), int)
        notes = np.stack([rng.integers(60, 72, len(onsets)), same[0], onsets, lasts, same[1], same[1]], 1)
        tunes.append(Piece(f"{i}", notes, 0, "2/4"))
    options = {"steps": 2, "width": 8, "layers": 2, "transpose": 0, "max_length": 200, "validation_fraction": 0}
    options["conditions"] = "key,meter,bars"
    run = sdk.train("music-rnn", tunes, out=tmp_path / "run", full_bars=True, min_count=1, **options)
    sdk.export(run, tmp_path / "tunes.onnx")
    assert may_fold((tmp_path / "tunes.onnx").read_bytes())
    for asked, bars in ([1, 2, 3, 4] * 10, None), (0, 4):
        made = [piece.to_ticks() for piece in sdk.generate(tmp_path / "tunes.onnx", 40, seed=1, bars=asked)]
        assert all(in_full_bars(notes, 96) for notes in made)
        found = [-(-int((notes[:, 2] + notes[:, 3]).max() - notes[:, 2].min()) // 96) for notes in made]
        assert found == (asked if bars is None else [bars] * 40)  # all of these tunes have four
    with pytest.raises(InvalidRequest, match="bars is 5; give a whole number from 0 to 4"):
        sdk.generate(tmp_path / "tunes.onnx", bars=5)


def test_streamed_notes_are_those_made_at_once(trained_music):
    whole = sdk.generate(trained_music.folder, seed=9, key="C")[0].data
    parts = list(sdk.stream(trained_music.folder, seed=9, key="C", chunk_size=3))
    assert len(parts) > 1 and np.array_equal(np.concatenate(parts), whole)


def test_prompt_is_a_piece_a_file_or_events(trained_music, tmp_path):
    model = sdk.load(trained_music.folder)
    begun = model.generate(seed=1, key="C", meter="4/4")[0]
    end = (begun.data[:, 2] + begun.data[:, 3]).max()
    of_piece = model.generate(seed=2, key="C", prompt=begun)[0]
    assert of_piece.data[:, 2].min() >= end - 1
    words = of_piece.provenance["controls"]["prompt"]
    assert of_piece == model.generate(seed=2, key="C", meter="4/4", prompt=words)[0]
    midi(tmp_path / "empty.mid", [])
    assert model.generate(seed=2, key="C", prompt=begun.save(tmp_path / "begun.mid"))[0] == of_piece
    still = midi(tmp_path / "still.mid", [mido.MetaMessage("set_tempo", tempo=0), *note()])
    flaw = r"not all of .*still\.mid was read: no valid tempo"
    with pytest.warns(UserWarning, match=flaw), suppress(InvalidRequest):  # a note that the model may not know
        model.generate(prompt=still)
    empty = Music(np.zeros((0, 6), np.float32), 1, ORIGIN, (90.0,), {"tempo": 120, "meter": (4, 4), "key": 0})
    for wrong, message in (
        ("note 1", r"has note 1, which the model does not know.*: note [0-9, ]+\.$"),
        ("x", "does not know"),
        ("no.mid", "no such file"),
        (tmp_path / "empty.mid", "cannot be used: no notes"),
        (empty, "without notes"),
        ([begun.data], "give a generated piece"),
        (begun.to_ticks(), "give a generated piece"),
        (", ".join([words.split(", ")[0]] * 700), "700 events"),
        (7, "give"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            model.generate(prompt=wrong)


def test_a_prompt_that_is_a_piece_says_key_metre_and_tempo(trained_music, tmp_path):
    model = sdk.load(trained_music.folder)
    begun = model.generate(seed=1, key="G", meter="6/8", tempo=75)[0]
    for prompt in (begun, begun.save(tmp_path / "begun.mid")):
        for piece in model.generate(8, seed=2, prompt=prompt):
            assert (piece.key, piece.meter, piece.tempo) == ("G", "6/8", 75)
    assert model.generate(seed=2, prompt=begun, key="C", meter=-1, tempo=100)[0].key == "C"
    assert {piece.meter for piece in model.generate(20, seed=2, prompt=begun, meter=-1)} == {"4/4", "6/8"}
    assert {piece.key for piece in model.generate(seeds=range(20), prompt=["note 71"] * 20)} == {"C", "G"}
    other = model.generate(seed=1, key="C", meter="4/4", tempo=90)[0]
    found = [(piece.key, piece.meter, piece.tempo) for piece in model.generate(prompt=[begun, other])]
    assert found == [("G", "6/8", 75), ("C", "4/4", 90)]
    with pytest.raises(InvalidRequest, match="prompt has 2 values for 3 items"):
        model.generate(3, prompt=[begun, other])
    unknown = Music(begun.data, 1, ORIGIN, (90.0,), {"tempo": 75, "meter": (5, 4), "key": KEYS.index("Eb")})
    assert {piece.key for piece in model.generate(20, seed=2, prompt=unknown)} == {"C", "G"}


def test_music_is_reproduced_from_its_file(trained_music, tmp_path):
    piece = sdk.generate(trained_music.folder, seed=4)[0]
    for suffix in (".mid", ".wav"):
        path = piece.save(tmp_path / f"piece{suffix}")
        assert len(sdk.reproduce(path, model=trained_music.folder)) == 1
    file = mido.MidiFile(tmp_path / "piece.mid")
    next(message for message in file.tracks[1] if message.type == "note_on").velocity = 1
    file.save(tmp_path / "edited.mid")
    with pytest.raises(NotReproduced):
        sdk.reproduce(tmp_path / "edited.mid", model=trained_music.folder)
    (tmp_path / "broken.mid").write_bytes(b"MThd")
    with pytest.raises(InvalidProvenance):
        sdk.reproduce(tmp_path / "broken.mid", model=trained_music.folder)


def test_aigc_generate_saves_midi_and_streams_notes(trained_music, tmp_path):
    def aigc(*arguments):
        done = CliRunner().invoke(
            app,
            ["generate", str(trained_music.folder), "--seed", "1", "-c", "key=G", *arguments],
            catch_exceptions=False,
        )
        assert done.exit_code == 0
        return done.stdout

    aigc("-n", "2", "-o", str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00.mid", "01.mid"]
    lines = aigc("--stream").strip().split("\n")
    made = sdk.generate(trained_music.folder, seed=1, key="G")[0].data
    np.testing.assert_allclose([[*map(float, line.split())] for line in lines], made, rtol=1e-5)


def test_evaluate_measures_a_model_of_music(trained_music):
    pieces, _ = example_data("music", n=60)
    report = sdk.evaluate(trained_music.folder, pieces[48:], train=pieces[:48], seed=3)
    assert len(report.scores) == 6 and not report.not_measured
    assert report.protocol["n_train"] == trained_music.record.data.split["train"]
    # What is measured is what generate makes, in keys and metres of its own.
    made = sdk.generate(trained_music.folder, 12, seed=3)
    consistency = [scale_consistency(piece.to_ticks(), piece.key) for piece in made]
    assert len({piece.key for piece in made}) > 1
    assert report["scale"].details["mean"] == pytest.approx(np.mean(consistency))
    assert report["scale"].n_fake == report["scale"].n_real == 12
