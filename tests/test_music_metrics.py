"""The metrics of music: on hand-made pieces, against plain definitions, and through sdk.evaluate."""

import base64
import io
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import PIL.Image
import pytest

import aigc_sdk as sdk
from aigc_metrics.music import (
    RUN,
    Density,
    Durations,
    PitchClasses,
    Polyphony,
    Quotes,
    ScaleConsistency,
    longest_runs,
    note_density,
    pitch_classes,
    polyphony,
    scale_consistency,
    steps,
    wasserstein,
)
from aigc_music.data import Piece, load_music
from aigc_music.events import TICKS, in_order
from aigc_music.item import Music
from aigc_music.keys import KEYS, scale
from aigc_sdk.contents import Origin
from aigc_sdk.errors import InvalidData, InvalidRequest
from aigc_sdk.evaluation.parts import find_parts
from aigc_sdk.evaluator import ItemSamples

C, G, A_MINOR = (KEYS.index(name) for name in ("C", "G", "Am"))
ORIGIN = Origin("m", "1.0", "0" * 64, "generate", "0.1.0", "none")
METRICS = {"density", "durations", "pitches", "polyphony", "quotes", "scale"}


def line(pitches, durations=24, *, begin=0, voice=0, program=0):
    """Return notes one after the other."""
    durations = np.broadcast_to(durations, len(pitches))
    onsets = begin + np.cumsum(durations) - durations
    rows = [
        (pitch, 80, onset, ticks, voice, program)
        for pitch, onset, ticks in zip(pitches, onsets, durations, strict=True)
    ]
    return np.array(rows, np.int64).reshape(-1, 6)


def tunes(n, seed, key=C, size=40, durations=(12, 24, 48)):
    """Return random tunes in the scale of a key."""
    rng = np.random.default_rng(seed)
    pitches = 60 + scale(KEYS[key])
    return tuple(
        Piece(f"{i}", line(rng.choice(pitches, size), rng.choice(durations, size)), key, "4/4", 120.0) for i in range(n)
    )


def moved(piece, semitones):
    return piece._replace(notes=piece.notes + np.array([semitones, 0, 0, 0, 0, 0]))


def altered(notes, place):
    """Return notes with one pitch a tritone higher."""
    notes = notes.copy()
    notes[place, 0] += 6
    return notes


# --- figures of one piece ---


def test_scale_consistency_of_a_scale_in_its_key_is_1():
    for name in ("C", "Em", "Ador", "Bb"):
        assert scale_consistency(line(60 + scale(name)), name) == pytest.approx(1)
    c_major = line(60 + scale("C"))
    assert scale_consistency(c_major, "G") == pytest.approx(6 / 7)  # F is no note of G
    assert scale_consistency(c_major, "F#") == pytest.approx(2 / 7)  # B and F (E#) are
    assert scale_consistency(c_major, None) == pytest.approx(1)


def test_scale_consistency_weighs_durations_and_leaves_out_drums():
    notes = np.concatenate([line([60, 61], [90, 10]), line([61] * 50, voice=1, program=128)])
    assert scale_consistency(notes, "C") == pytest.approx(0.9)
    assert scale_consistency(line([60, 61, 62, 63]), None) == pytest.approx(0.75)  # no scale has all four
    assert scale_consistency(line([]), "C") == scale_consistency(line([61], program=128), None) == 0


def test_pitch_classes_are_counted_from_the_tonic():
    notes = line([62, 66, 69, 74], [48, 24, 12, 12])
    shares = pitch_classes(notes, tonic=2)
    assert np.flatnonzero(shares).tolist() == [0, 4, 7]
    assert shares[[0, 4, 7]].tolist() == [0.625, 0.25, 0.125]
    assert pitch_classes(moved(Piece("", notes), 3).notes, tonic=5).tolist() == shares.tolist()


def test_polyphony_agrees_with_a_count_of_every_tick():
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(1, 15))
        onsets, durations = rng.integers(0, 200, n), rng.integers(1, 60, n)
        notes = in_order(
            np.stack([rng.integers(40, 80, n), onsets * 0 + 80, onsets, durations, onsets % 3, durations * 0], 1)
        )
        sounding = np.zeros(300)
        for onset, ticks in zip(onsets, durations, strict=True):
            sounding[onset : onset + ticks] += 1
        assert polyphony(notes) == pytest.approx(sounding[sounding > 0].mean())
    drums = line([38] * 9, voice=1, program=128)
    assert polyphony(np.concatenate([line([60, 62]), drums])) == 1 and polyphony(drums) == 0


def test_note_density_is_per_quarter_note():
    assert note_density(line([60] * 8, TICKS // 2, begin=96)) == 2
    assert note_density(np.concatenate([line([60] * 4, TICKS), line([48] * 2, 2 * TICKS, voice=1)])) == 1.5
    assert note_density(line([])) == 0


def test_wasserstein_agrees_with_scipy():
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (5, 5), (20, 7)):
        a, b = rng.normal(size=n), rng.integers(0, 3, m).astype(float)
        assert wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b))


# --- runs that were copied ---


def longest_run(notes, corpus):
    return longest_runs([notes], steps(corpus)).tolist()[0]


def test_transposed_copy_is_found_whole_and_at_another_speed_is_not():
    tune = tunes(1, 0)[0].notes
    other = tunes(1, 1)[0].notes
    for semitones in (-12, 0, 5):
        assert longest_run(np.add(tune, [semitones, 0, 0, 0, 0, 0]), [other, tune]) == 40
    assert longest_run(np.add(tune, [0, 7, 96, 0, 0, 4]), [other, tune]) == 40  # later, louder, by another instrument
    assert longest_run(tune * [1, 1, 2, 2, 1, 1], [other, tune]) < 10
    assert longest_run(tune, [other]) < 10


def test_altered_interval_breaks_the_run():
    tune = tunes(1, 0)[0].notes
    for place, longest in ((0, 39), (10, 29), (30, 30), (39, 39)):
        assert longest_run(altered(tune, place), [tune]) == longest
    late = tune.copy()
    late[25:, 2] += 6  # one note is held longer
    assert longest_run(late, [tune]) == 25


def test_run_stays_within_one_voice_and_one_piece():
    tune = tunes(1, 0)[0].notes
    halves = tune[:20], tune[20:]
    assert longest_run(tune, halves) == 20
    second = np.concatenate([halves[0], np.add(halves[1], [0, 0, 0, 0, 1, 0])])
    assert longest_run(tune, [second]) == 20 and longest_run(second, [tune]) == 20
    # Another voice, whose notes lie between, and drums are not in the way.
    accompanied = np.concatenate([tune, line([48] * 30, 36, voice=1), line([38] * 60, 12, voice=2, program=128)])
    assert longest_run(in_order(accompanied), [tune]) == 40
    assert longest_run(line([38] * 60, 12, program=128), [line([38] * 60, 12, program=128)]) == 0


def test_longest_runs_agree_with_a_search_for_every_run():
    rng = np.random.default_rng(0)
    corpus = [line(rng.integers(60, 63, 30), rng.choice([12, 24], 30)) for _ in range(6)]
    asked = [line(rng.integers(60, 63, n), rng.choice([12, 24], n)) for n in (0, 1, 2, 3, 10, 30, 30, 30)]
    asked.append(np.concatenate([asked[5][:9], np.add(corpus[3][4:20], [2, 0, 600, 0, 0, 0])]))

    def moves(notes):
        return [(int(b[0] - a[0]), int(b[2] - a[2])) for a, b in pairwise(notes)]

    runs = {
        tuple(whole[i:j])
        for whole in map(moves, corpus)
        for i in range(len(whole))
        for j in range(i + 1, len(whole) + 1)
    }
    wanted = [
        max(
            (j - i + 1 for i in range(len(own)) for j in range(i + 1, len(own) + 1) if tuple(own[i:j]) in runs),
            default=min(len(notes), 1),
        )
        for notes, own in zip(asked, map(moves, asked), strict=True)
    ]
    assert longest_runs(asked, steps(corpus)).tolist() == wanted and wanted[-1] >= 16
    assert longest_runs(asked, steps([])).tolist() == [0, *[1] * 8] and longest_runs([], steps(corpus)).tolist() == []


def test_quotes_is_the_share_of_pieces_with_a_long_run():
    train, real, fake = tunes(60, 0), tunes(30, 1), tunes(20, 2)
    later = [3, 0, 10_000, 0, 0, 0]
    just = Piece("", np.concatenate([fake[2].notes[:10], np.add(train[5].notes[:RUN], later)]), C)
    short = Piece("", np.concatenate([fake[3].notes[:10], np.add(train[6].notes[: RUN - 2], later)]), C)
    mixed = (moved(train[0], 4), just, short, *fake[:17])
    measured = Quotes().measure(ItemSamples(mixed, real, train), 0)
    assert measured.value == 2 / 20 and measured.details["longest_run"] == 40
    assert measured.interval[0] <= measured.value <= measured.interval[1]
    assert measured.details["held_out"] == 0 and measured.details["mean_run"] > measured.details["held_out_mean_run"]


def test_quotes_catches_copies_alone():
    train, real, fake = tunes(100, 0), tunes(50, 1), tunes(50, 2)
    copies = (*(moved(piece, 5) for piece in train[:15]), *fake[15:])
    assert Quotes().measure(ItemSamples(copies, real, train), 0).verdict.startswith("It copies")
    assert Quotes().measure(ItemSamples(fake, real, train), 0).verdict.startswith("No sign of copying")
    # What everybody borrows is no copy.
    common = train[0].notes[:30]
    borrowing = [
        tuple(Piece("", np.concatenate([common, np.add(each.notes, [0, 0, 9999, 0, 0, 0])]), C) for each in part)
        for part in (fake, real, train)
    ]
    measured = Quotes().measure(ItemSamples(*borrowing), 0)
    assert measured.value == measured.details["held_out"] == 1 and measured.verdict.startswith("No sign of copying")


# --- the metrics ---


@pytest.mark.parametrize("metric", [PitchClasses, Durations, Density, Polyphony])
def test_distance_of_pieces_to_themselves_is_0(metric):
    real, train = tunes(30, 0), tunes(30, 1)
    same = metric().measure(ItemSamples(real, real, train, train), 0)
    assert same.value == pytest.approx(0, abs=1e-12) and same.interval[0] == 0
    assert same.baseline is not None and (same.baseline > 0 or metric is Polyphony)  # of tunes it is 1
    assert metric().measure(ItemSamples(real, real), 0).baseline is None


def test_pitches_are_compared_from_the_tonic_where_there_are_keys():
    real = tunes(30, 0)
    in_g = tuple(moved(piece, 7)._replace(key=G) for piece in real)
    without = tuple(piece._replace(key=None) for piece in in_g)
    assert PitchClasses().measure(ItemSamples(in_g, real), 0).value == pytest.approx(0, abs=1e-12)
    c, g = (np.mean([pitch_classes(piece.notes) for piece in part], 0) for part in (real, in_g))
    measured = PitchClasses().measure(ItemSamples(without, real), 0)
    assert measured.value == pytest.approx(np.abs(c - g).sum() / 2) and measured.value > 0.05
    assert measured.interval[0] < measured.value < measured.interval[1]


def test_durations_are_compared_tick_by_tick():
    real = (Piece("", line([60] * 4, [24, 24, 24, 48])), Piece("", line([60] * 100, 24)))
    fake = (Piece("", line([60] * 2, [48, 96])),)
    # Each piece weighs the same: of real ones 7/8 are eighths and 1/8 quarters, of the other half each.
    assert Durations().measure(ItemSamples(fake, real), 0).value == pytest.approx(7 / 8)
    assert Durations().measure(ItemSamples((Piece("", line([])),) * 2, real), 0).value == pytest.approx(1)


def test_density_and_polyphony_tell_both_means():
    fake = tuple(Piece("", np.concatenate([line([60] * n, 24), line([64] * n, 24, voice=1)])) for n in (4, 8))
    real = tuple(Piece("", line([60] * n, 48)) for n in (4, 8))
    dense, many = (metric().measure(ItemSamples(fake, real), 0) for metric in (Density, Polyphony))
    assert (dense.value, dict(dense.details)) == (3, {"mean": 4, "real_mean": 1})
    assert (many.value, dict(many.details)) == (1, {"mean": 2, "real_mean": 1})
    assert "4 notes per quarter note" in dense.verdict and "2 notes at once" in many.verdict


def test_scale_is_the_share_that_reaches_the_reference_percentile():
    # The first of 20 real pieces has one of its 40 notes out of the key, the second two, and the others none.
    real = [piece._replace(notes=line(piece.notes[:, 0])) for piece in tunes(20, 0)]
    wrong = [[0] if i == 0 else [0, 1] if i == 1 else [] for i in range(20)]
    real = tuple(piece._replace(notes=_out_of_key(piece.notes, at)) for piece, at in zip(real, wrong, strict=True))
    fake = [
        piece._replace(notes=_out_of_key(line(piece.notes[:, 0]), [0] * (i < 3)))
        for i, piece in enumerate(tunes(20, 1))
    ]
    measured = ScaleConsistency().measure(ItemSamples(tuple(fake), real), 0)
    assert measured.details["real_percentile_10"] == pytest.approx(39 / 40)
    assert measured.value == 1 and measured.details["mean"] == pytest.approx(1 - 3 / 800)
    fake[0] = fake[0]._replace(notes=_out_of_key(fake[0].notes, [5]))
    fake[1] = fake[1]._replace(key=KEYS.index("F#"))
    fake[2] = fake[2]._replace(key=A_MINOR)
    measured = ScaleConsistency().measure(ItemSamples(tuple(fake), real, real, real), 0)
    assert measured.value == pytest.approx(18 / 20) and measured.baseline == pytest.approx(19 / 20)
    assert measured.interval[0] < measured.value < measured.interval[1]


def _out_of_key(notes, places):
    """Return notes with some on F#."""
    notes = notes.copy()
    notes[places, 0] = 66
    return notes


# --- sdk.evaluate ---


def made_of(piece):
    """Return a piece as if a model had made it."""
    notes = piece.notes.astype(np.float64)
    notes[:, 2:4] *= 60 / 100 / TICKS
    return Music(notes.astype(np.float32), 1, ORIGIN, (), {"tempo": 100, "meter": (4, 4), "key": piece.key})


def test_evaluate_measures_music_that_was_made(tmp_path):
    train, real = list(tunes(30, 0)), list(tunes(20, 1))
    made = [made_of(moved(piece, 2)._replace(key=KEYS.index("D"))) for piece in train[:12]]
    report = sdk.evaluate(made, real, train=train)
    assert {score.metric for score in report.scores} == METRICS and not report.not_measured
    assert report["quotes"].value == 1 and "It copies" in report["quotes"].verdict
    assert report["quotes"].train == report.protocol["train"] and report["scale"].value == 1
    assert report["density"].n_fake == report["density"].n_real == 12 and report["density"].extractor == "none"
    assert report.protocol["model"]["name"] == "m"
    assert report.scores == sdk.evaluate(sdk.Contents(made), real, train=train).scores
    page = report.save(tmp_path).read_text()
    pictures = re.findall('piano roll of one of the (\\w+) items" src="data:image/png;base64,([^"]*)"', page)
    assert [what for what, _ in pictures] == ["generated"] * 8 + ["real"] * 8
    first = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(pictures[0][1]))))
    assert np.array_equal(first, np.asarray(made[0].to_pil()))


def test_evaluate_without_training_data_leaves_out_what_was_copied():
    report = sdk.evaluate(list(tunes(12, 0)), list(tunes(20, 1)), n=11)
    assert "nobody said" in report.not_measured["quotes"] and report["durations"].n_fake == 11
    assert report["durations"].baseline is None and report.protocol["model"] is None


def test_evaluate_reads_the_reference_as_the_training_read_its_data():
    over = [Piece(f"over {i}", line([60 + i, 62], [144, 96]), C, "4/4") for i in range(4)]
    whole = [Piece(f"whole {i}", line([60 + i, 62], [144, 48]), C, "4/4") for i in range(4)]
    card = replace(sdk.load("digits-vae").card, config={"full_bars": True})
    read, _ = find_parts(card, "music", None, whole + over, None)
    assert len(read) == 4 and read.fingerprint == load_music(whole).fingerprint
    assert [piece.notes.tolist() for piece in read.items()] == [piece.notes.tolist() for piece in whole]
    assert {(piece.key, piece.meter) for piece in read.items()} == {(C, "4/4")}
    assert len(find_parts(None, "music", None, whole + over, None)[0]) == 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": ["frechet"]}, InvalidRequest, "measures what has features, and these are pieces"),
        ({"metrics": ["ngrams"]}, InvalidRequest, "measures texts, and these are pieces"),
        ({"extractor": "digits-features"}, InvalidRequest, "Pieces are compared as they are"),
        ({"train": "nowhere.mid"}, InvalidData, "train: There is no data at"),
        ({"n": 200}, InvalidRequest, "from 1 to 12"),
    ],
)
def test_evaluate_refuses_what_does_not_fit_music(options, error, message):
    with pytest.raises(error, match=message):
        sdk.evaluate(list(tunes(12, 0)), list(tunes(12, 1)), **options)


def test_evaluate_refuses_metrics_of_music_for_texts():
    with pytest.raises(InvalidRequest, match="The metric quotes measures pieces, and these are texts"):
        sdk.evaluate(["a", "b"], ["c", "d"], metrics=["quotes"])
