"""Reading MIDI: what pretty_midi and symusic make of the same bytes, and what is left out by name."""

import struct
import time

import pytest

from aigc_music.data import checked, load_music
from aigc_music.keys import KEYS
from aigc_music.midi import read_midi


def number(value):
    data = [value & 127]
    while value := value >> 7:
        data.append(128 | value & 127)
    return bytes(reversed(data))


def track(*events, ends=True):
    data = b"".join(number(wait) + event for wait, event in events) + b"\x00\xff\x2f\x00" * ends
    return b"MTrk" + struct.pack(">L", len(data)) + data


def smf(*tracks, kind=1, count=None, division=480):
    return b"MThd" + struct.pack(">LHHH", 6, kind, count or len(tracks), division) + b"".join(tracks)


def on(pitch, channel=0, velocity=80):
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch, channel=0):
    return bytes([0x80 | channel, pitch, 0])


def program(value, channel=0):
    return bytes([0xC0 | channel, value])


def pedal(value, channel=0):
    return bytes([0xB0 | channel, 64, value])


def meta(kind, *data):
    return bytes([0xFF, kind, len(data), *data])


def key(sharps, minor=0):
    return meta(0x59, sharps & 255, minor)


def meter(beats, power):
    return meta(0x58, beats, power, 24, 8)


def tempo(per_minute):
    return meta(0x51, *round(6e7 / per_minute).to_bytes(3, "big"))


NOTE = ((0, on(60)), (480, off(60)))


@pytest.fixture
def read(tmp_path):
    def of(*tracks, pedal=False, **options):
        data = tracks[0] if isinstance(tracks[0], bytes) else smf(*(track(*each) for each in tracks), **options)
        (tmp_path / "x.mid").write_bytes(data)
        return read_midi(str(tmp_path / "x.mid"), pedal=pedal)

    return of


def shown(found, *columns):
    return sorted(found.notes[:, list(columns or (0, 2, 3))].tolist())


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        ([(0, on(60)), (480, on(60)), (0, off(60)), (480, off(60))], [[60, 0, 48], [60, 48, 48]]),
        ([(0, on(60)), (480, off(60)), (0, on(60)), (480, off(60))], [[60, 0, 48], [60, 48, 48]]),
        ([(0, on(60)), (240, on(60)), (240, off(60)), (480, off(60))], [[60, 0, 48], [60, 24, 72]]),
        ([(0, on(60)), (0, on(60)), (240, off(60)), (480, off(60))], [[60, 0, 24], [60, 0, 72]]),
        ([(0, on(60)), (0, off(60)), (480, on(60)), (480, off(60))], [[60, 48, 48]]),
        ([(0, on(60)), (480, on(60, 0, 0))], [[60, 0, 48]]),
        ([(0, on(60)), (480, b"\x3c\x00"), (0, b"\x40\x50"), (480, b"\x40\x00")], [[60, 0, 48], [64, 48, 48]]),
        ([(0, on(60)), (480, meta(1, 65)), (0, b"\x3c\x00")], [[60, 0, 48]]),
        ([(0, b"\xf0\x03\x01\x02\xf7"), (0, on(60)), (0, b"\xfe"), (480, off(60))], [[60, 0, 48]]),
        ([(0, on(60)), (240, off(60, 1)), (240, off(60))], [[60, 0, 48]]),
        ([*NOTE, (0, meta(0x2F)), (0, on(62)), (480, off(62))], [[60, 0, 48]]),
    ],
)
def test_a_note_off_ends_the_oldest_note_that_did_not_begin_with_it(read, events, wanted):
    assert shown(read(events)) == wanted


def test_notes_that_never_end_or_have_no_length_are_named(read):
    found = read([(0, on(60)), (0, on(62)), (0, off(62)), *NOTE, (0, on(70))])
    assert any("1 notes of no length" in flaw for flaw in found.flaws)
    assert any("notes that never end" in flaw for flaw in found.flaws)
    assert shown(found) == [[60, 0, 48]]


def test_what_is_wrong_with_a_file_without_notes_and_tracks_that_it_does_not_count_are_named(read, tmp_path):
    found = checked(read([(0, on(60))], [(480, off(60))]))
    assert (found.reason, found.detail) == ("no notes", "1 notes that never end")
    more = read(NOTE, [(0, on(64)), (480, off(64))], count=1)
    assert shown(more) == [[60, 0, 48]] and more.flaws == ("tracks behind the 1 that it says it has",)


def test_each_track_has_its_own_program_of_a_channel(read):
    first = [(0, program(40)), (0, on(60)), (480, program(41)), (0, off(60)), (0, on(62)), (480, off(62))]
    found = read(first, [(0, on(64)), (480, off(64))])
    assert shown(found, 0, 4, 5) == [[60, 0, 40], [62, 0, 41], [64, 1, 0]] and not found.flaws
    other = read([(0, program(40))], NOTE)
    assert shown(other, 0, 5) == [[60, 0]] and "each track has its own" in other.flaws[0]
    assert shown(read([(0, program(40, 9)), (0, on(36, 9)), (480, off(36, 9))]), 0, 5) == [[36, 128]]


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        ([(0, tempo(60)), (0, tempo(90)), *NOTE], 90),
        ([(0, tempo(90)), (0, tempo(60)), *NOTE], 60),
        ([*NOTE, (0, tempo(60)), *NOTE], 80),  # a second at 120 and one at 60: 2 quarters in 1.5 s
        (NOTE, None),
        ([*NOTE, (0, tempo(60))], None),
    ],
)
def test_tempo_is_the_mean_with_120_before_the_first(read, events, wanted):
    assert read(events).tempo == pytest.approx(wanted, abs=0.01)


def test_of_keys_and_metres_at_one_tick_the_last_counts(read):
    found = read([(0, key(0)), (0, key(-3)), (0, meter(4, 2)), (0, meter(3, 2)), *NOTE])
    assert KEYS[found.key] == "Eb" and found.meter == "3/4"
    assert KEYS[read([(0, key(3, 1)), *NOTE]).key] == "F#m"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (key(8), "no valid key signature"),
        (meta(0x59, 0), "no valid key signature"),
        (key(0, 2), "no valid key signature"),
        (meta(0x51, 7, 161), "no valid tempo"),
        (meta(0x51, 0, 0, 0), "no valid tempo"),
        (meta(0x51), "no valid tempo"),
        (meter(0, 2), "no valid metre"),
        (meter(4, 7), "no valid metre"),
        (meter(4, 200), "no valid metre"),
        (meta(0x58, 3), "no valid metre"),
    ],
)
def test_a_bad_meta_event_is_named_and_the_piece_kept(tmp_path, event, words):
    for i in range(2):
        (tmp_path / f"{i}.mid").write_bytes(smf(track((0, event), (0, on(60 + i)), (480, off(60 + i)))))
    data = load_music(tmp_path)
    assert data.n == 2 and data.meter_names == ("4/4",) and data.tempo == 120 and not data.report.skipped
    assert f"2 of which not all was read (0.mid: {words}" in str(data.report)
    assert len([line for line in data.report.left_out if words in line]) == 2


def test_the_metre_that_holds_longest_counts_and_its_bars_are_those_of_the_piece(read):
    found = read([(0, meter(1, 2)), (0, on(60)), (480, off(60)), (0, meter(4, 2)), (0, on(62)), (1920 * 2, off(62))])
    assert found.meter == "4/4" and shown(found) == [[60, 144, 48], [62, 192, 384]]
    found = read([(0, meter(4, 2)), (0, on(60)), (960, meter(3, 2)), (0, off(60)), (0, on(62)), (1440 * 2, off(62))])
    assert found.meter == "3/4" and shown(found) == [[60, 48, 96], [62, 144, 288]]
    said_again = read([(0, meter(3, 2)), (0, on(60)), (1440, meter(3, 2)), (1440, off(60))])
    assert said_again.meter == "3/4" and shown(said_again) == [[60, 0, 288]]


def test_pedal_prolongs_notes_where_it_is_asked_for(read):
    events = [(0, pedal(127)), *NOTE, (480, on(60)), (480, off(60)), (480, pedal(0)), *NOTE]
    assert shown(read(events)) == [[60, 0, 48], [60, 96, 48], [60, 192, 48]]
    assert shown(read(events, pedal=True)) == [[60, 0, 96], [60, 96, 96], [60, 192, 48]]


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        ([off(60), pedal(127)], 48),  # pressed behind the note
        ([pedal(127), off(60)], 96),
        ([pedal(127), pedal(0), off(60)], 48),
        ([pedal(127), pedal(0), pedal(127), off(60)], 96),
        ([pedal(127), off(60), pedal(0), pedal(127)], 48),  # lifted behind it, and pressed again
        ([pedal(127, 1), off(60)], 48),  # of another channel
        ([pedal(64), off(60)], 96),
        ([pedal(63), off(60)], 48),
    ],
)
def test_changes_of_the_pedal_at_one_tick_count_in_their_order(read, events, wanted):
    first, *more = events
    found = read([(0, on(60)), (480, first), *((0, each) for each in more), (480, pedal(0))], pedal=True)
    assert shown(found) == [[60, 0, wanted]]


def test_many_notes_and_pedals_are_read_in_linear_time(read):
    many = [(1, each) for _ in range(6_000) for each in (on(60), off(60), pedal(127), pedal(0))]
    heap = [(1, each) for each in (*[on(60)] * 40_000, *[off(60)] * 40_000)]
    begin = time.process_time()
    assert len(read(many, pedal=True).notes) == 6_000 and len(read(heap).notes) == 40_000
    assert time.process_time() - begin < 5  # pedals took 3 s by comparing all with all


def test_riff_is_read_and_chunks_of_other_kinds_are_passed_over(tmp_path):
    for i, suffix in enumerate((".rmi", ".mid")):
        body = smf(b"XFIH\0\0\0\x02ab" + track((0, on(60 + i)), (480, off(60 + i))), count=1)
        riff = b"RMIDINFO" + struct.pack("<L", 3) + b"abc\0data" + struct.pack("<L", len(body)) + body
        (tmp_path / f"x{suffix}").write_bytes(b"RIFF" + struct.pack("<L", len(riff)) + riff)
    assert load_music(tmp_path).n == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (smf(track(*NOTE))[:-5], "track 0 is cut off"),
        (smf(track(*NOTE), count=2), "it has 1 tracks and says 2"),
        (smf(track((0, on(60)), (480, b"\x80\x3c"), ends=False)), "in the middle of an event"),
        (smf(track((0, b"\x90\x3c\xc8"))), "200 where at most 127 may stand"),
        (smf(track((0, b"\x3c\x50"))), "without a status"),
        (smf(track(*NOTE), division=0xE728), "film frames"),
        (smf(track(*NOTE), kind=2), "type 2"),
        (b"RIFF\0\0\0\0RMIDabcd", "holds no MIDI"),
    ],
)
def test_broken_midi_is_left_out_by_name(read, data, words):
    assert words in " ".join(read(data))
