"""Tables of images and labels, .csv and .parquet, and the readers of plugins."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from aigc_image import plugin_files as plugins
from aigc_image.data import load_data
from aigc_image.images import ImageOptions
from aigc_sdk.data import tables
from aigc_sdk.data.dataset import DataReport
from aigc_sdk.data.tables import read_csv
from aigc_sdk.errors import InvalidData, MissingPackage, PluginError
from aigc_text.data import load_texts
from test_data import GREY, png, same, write, write_image
from test_registry import Site


@pytest.fixture
def images(tmp_path):
    for i, image in enumerate(GREY):
        write_image(tmp_path / "images" / f"{i}.png", image)
    return tmp_path


# What rows and cells are: the same of images and of texts


def rows_of(path):
    return [tuple(row.cells.values()) for row in read_csv(path, ("text", "label"), DataReport(what="text")).rows]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\f", "\v", "\x1c", "\x1d", "\x1e", "\x00"])
def test_rows_end_at_newlines_alone(tmp_path, end, inside):
    text = end.join(["text,label", f"a{inside}b,x", f'"c{inside}d",y', f'"e{end}f ""g""",x', "last,y"])
    path = write(tmp_path / "t.csv", text.encode())
    rows = rows_of(path)
    assert rows == [(f"a{inside}b", "x"), (f"c{inside}d", "y"), ('e\nf "g"', "x"), ("last", "y")]
    data = load_texts(path)
    assert ["".join(map(chr, data.row_codes(i))) for i in range(data.n)] == [text for text, _ in rows]
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=inside < " ") for text, label in rows]
    write(tmp_path / "t.jsonl", end.join(lines).encode())
    assert np.array_equal(load_texts(tmp_path / "t.jsonl").codes, data.codes)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("text;label\nOne, two, three;x\nfour, five;y\n", [("One, two, three", "x"), ("four, five", "y")]),
        ("text,label\na;b;c,x\nd;e;f,y\n", [("a;b;c", "x"), ("d;e;f", "y")]),
        ("text\tlabel\na, b; c\tx\n", [("a, b; c", "x")]),
        ("text\nHello, world; and\tmore\nSecond, line\n", [("Hello, world; and\tmore",), ("Second, line",)]),
        ('text\n"a, ""b"""\n\n"c\nd"\n', [('a, "b"',), ("c\nd",)]),
        ('"review; in, full";label\n"a; b";x\nc, d;y\n', [("a; b", "x"), ("c, d", "y")]),
        ("full, text;label\na, b;x\nc;y\n", [("a, b", "x"), ("c", "y")]),
        ("\n\n text ; Label \n a ; x \n", [(" a ", " x ")]),
        ("\ufefftext,label\na,x\n", [("a", "x")]),
        ('text,label\n5" disk,x\n', [('5" disk', "x")]),
        ('text,label\n"",x\n,y\n', [("", "x"), ("", "y")]),
        ("text,label,\na,x,\n", [("a", "x", "")]),
        ("id;price,text;label\n1;2,50;x\n3;4,75;y\n", [("1", "2,50", "x"), ("3", "4,75", "y")]),
        ("text,label", []),
        ("", []),
    ],
)
def test_separator_is_told_by_titles_and_rows(tmp_path, text, rows):
    for name in ("t.csv", "t.tsv"):
        for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
            assert rows_of(write(tmp_path / name, text.encode(encoding))) == rows


def test_rows_with_more_cells_are_left_out_and_those_with_fewer_are_told_of(tmp_path):
    text = 'text,label\nHello, world,pos\n"Hello, world",pos\nshort\n"two\nlines",neg\na,b,c,d\nshorter\nfine,neg\n'
    data = load_texts(write(tmp_path / "t.csv", text.encode()))
    assert data.label_names == ("neg", "pos") and data.labels.tolist() == [1, 0, 0]
    skipped = data.report.skipped
    assert skipped["more cells than titles"].examples == ["line 2: 3 cells, 2 titles", "line 7: 4 cells, 2 titles"]
    assert skipped["no label"].examples == ["line 4", "line 8"]
    assert "2 rows have fewer cells than titles, and the rest empty: line 4, line 8" in data.report.notes


def test_rows_of_images_follow_the_same_rules(images):
    rows = 'images/0.png;a\nimages/1.png;b;c\n"images/2.png";"b, c"\nimages/3.png\n;a\nimages/4.png;NaN\n'
    data = load_data(write(images / "t.csv", f"path;label\n{rows}".encode()))
    assert same(data, GREY[[0, 2]], [0, 1], ("a", "b, c"))
    assert data.report.skipped["more cells than titles"].examples == ["line 3: 3 cells, 2 titles"]
    assert data.report.skipped["no label"].examples == ["images/3.png", "images/4.png"]
    assert data.report.skipped["unreadable"].examples == ["line 6: it is no file"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('text,label\na,x\n"open,y\nb,x\nc,y\n', "line 3: the quote that opens there is never closed"),
        ('text,label\na,x\n"two\nlines","open\nb,x', "line 4: the quote that opens there is never closed"),
        ('text,label\na,x\nb,"', "line 3: the quote that opens there is never closed"),
        ('text,label\n"open,x\nb,y\n"c",x\n', "line 2: behind the quote that closes a cell, on line 4, something"),
        ('text,label\n"He said \\"hi\\"",x\n', "line 2: behind the quote that closes a cell, on line 2, something"),
        ('"text,label\na,x\n', "line 1: the quote that opens there is never closed"),
    ],
)
def test_open_quote_raises_with_its_line(tmp_path, text, message):
    path = write(tmp_path / "t.csv", text.encode())
    for load in (load_texts, load_data):
        with pytest.raises(InvalidData, match=f"t.csv, {message}"):
            load(path)


@pytest.mark.parametrize(
    "titles", ["text,label,label", "text, label ,LABEL", "Text,label,text", "text,note,label,Note"]
)
def test_two_columns_of_one_title_raise_and_name_them(tmp_path, titles):
    words = r"has two columns of one title, '.*' and '.*', the .\. and the .\.; rename"
    path = write(tmp_path / "t.csv", f"{titles}\na,x,y\n".encode())
    for load in (load_texts, load_data):
        with pytest.raises(InvalidData, match=words):
            load(path)
    row = ", ".join(f'"{title.strip()}": "a"' for title in titles.split(","))
    with pytest.raises(InvalidData, match=rf"t\.jsonl, line 1, {words}"):
        load_texts(write(tmp_path / "t.jsonl", f"{{{row}}}\n".encode()))
    table = parquet(tmp_path / "t.parquet", {"Path": ["a"], "path": ["b"]})
    with pytest.raises(InvalidData, match=words):
        load_data(table)


def test_columns_without_a_title_may_be_several(tmp_path):
    data = load_texts(write(tmp_path / "t.csv", b",text,label,\n0,a,x,\n1,b,y,\n"))
    assert data.n == 2 and data.label_names == ("x", "y")


def test_cell_may_be_as_long_as_the_file(tmp_path):
    before = csv.field_size_limit()
    data = load_texts(write(tmp_path / "t.csv", f'text,label\n{"ab" * 100_000},\n"{"cd" * 100_000}",\n'.encode()))
    assert data.is_stream and len(data.codes) == 400_000
    assert csv.field_size_limit() == before and tables._FIELD_CHARACTERS < 2**31  # as much as Windows takes


NONE = ["", " ", "NaN", "nan", "NA", "N/A", "<NA>", "null", "NULL", "None"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_that_stand_for_none_are_none_in_every_table(images, kind):
    labels = ["cat", *NONE, "dog"]
    places = ["images/0.png", *["images/2.png"] * len(NONE), "images/1.png"]
    if kind == "csv":
        rows = "".join(f"{place},{label}\n" for place, label in zip(places, labels, strict=True))
        data = load_data(write(images / "t.csv", f"path,label\n{rows}".encode()))
    elif kind == "parquet":
        labels[1] = None
        data = load_data(parquet(images / "t.parquet", {"path": places, "label": labels}))
    else:
        labels[1:3] = [None, float("nan")]
        rows = [json.dumps({"text": f"text {i}", "label": label}) for i, label in enumerate(labels)]
        data = load_texts(write(images / "t.jsonl", "\n".join(rows).encode()))
    assert data.label_names == ("cat", "dog") and data.labels.tolist() == [0, 1]
    assert data.report.skipped["no label"].count == len(NONE)
    assert any(
        note.startswith("labels that were taken for none, as pandas writes it: <NA>, N/A") for note in data.report.notes
    )


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, 1.0, "1", 2], ["1", "1", "1", "2"]),
        (["1.0", "2.0", "10.0", "1"], ["1", "2", "10", "1"]),
        ([1.0, 2.0, 10.0, None], ["1", "2", "10", None]),
        ([0.5, 1, "1.0", "1.50"], ["0.5", "1", "1", "1.5"]),
        (["+1", "1.0", "01", "-1"], ["1", "1", "1", "-1"]),
        (["-0.0", "0", "-0.5", "10.50"], ["0", "0", "-0.5", "10.5"]),
        (["v1.0", "1.0", 1, 1.0], ["v1.0", "1.0", "1", "1.0"]),
        (["007", "7", 7, "07"], ["007", "7", "7", "07"]),
        ([True, "True", False, 0], ["True", "True", "False", "0"]),
        (["cafe\u0301", "caf\u00e9", "caf\u00e9", "x"], ["caf\u00e9", "caf\u00e9", "caf\u00e9", "x"]),
    ],
)
def test_labels_that_are_the_same_are_one_however_they_are_written(tmp_path, labels, names):
    rows = [json.dumps({"text": f"text {i}", "label": label}) for i, label in enumerate(labels)]
    data = load_texts(write(tmp_path / "t.jsonl", "\n".join(rows).encode()))
    assert [data.label_names[i] for i in data.labels] == [name for name in names if name]
    assert len(set(data.label_names)) == len(set(names) - {None})


def test_whole_numbers_that_a_missing_one_made_floats_are_the_same_label_in_every_table(images):
    names = [f"images/{i}.png" for i in range(6)]
    floats = parquet(images / "t.parquet", {"path": names, "label": [10.0, None, 9.0, 10.0, float("nan"), 9.0]})
    written = ["10.0", "", "9.0", "10", "NaN", "9"]
    rows = "".join(f"{name},{label}\n" for name, label in zip(names, written, strict=True))
    for path in (floats, write(images / "t.csv", f"path,label\n{rows}".encode())):
        data = load_data(path)
        assert same(data, GREY[[0, 2, 3, 5]], [1, 0, 1, 0], ("9", "10"))
    assert "labels are numbers, however they are written: 10.0 is 10" in data.report.notes


@pytest.mark.parametrize("label", [["x"], {"a": 1}])
def test_label_that_is_a_list_raises_with_its_row(tmp_path, label):
    rows = [{"text": "ab", "label": "x"}, {"text": "cd", "label": label}]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)).encode())
    words = f"the label is .*, of type {type(label).__name__}; give a text or a number"
    with pytest.raises(InvalidData, match=rf"t\.jsonl, line 2: {words}"):
        load_texts(path)
    table = parquet(tmp_path / "t.parquet", {"image": [b"x", b"y"], "label": [label, label]})
    with pytest.raises(InvalidData, match=rf"t\.parquet, row 0: {words}"):
        load_data(table)


# Images


@pytest.mark.parametrize(
    "header", ["path,label", "id;File_Name;CLASS", "\ufeffimage\ttarget", "label,filepath", "filename, label"]
)
def test_csv_columns_are_found_by_their_names(images, header):
    separator = next(each for each in ";\t," if each in header)
    rows = []
    for i in range(6):
        cells = {"id": "7", **dict.fromkeys(("label", "class", "target"), str(9 + i % 2))}
        columns = [column.strip("\ufeff ").lower() for column in header.split(separator)]
        rows.append(separator.join(cells.get(column, f"images/{i}.png") for column in columns))
    data = load_data(write(images / "table.csv", "\n".join([header, *rows, ""]).encode()))
    assert same(data, GREY, [0, 1] * 3, ("9", "10"))
    assert data.name == "table"


def test_table_with_columns_that_say_nothing_tells_so(images):
    for path in (
        write(images / "a.csv", b"path,breed,age\nimages/0.png,pug,3\nimages/1.png,pug,4\n"),
        parquet(images / "b.parquet", {"path": ["images/0.png", "images/1.png"], "breed": ["pug", "pug"]}),
    ):
        data = load_data(path)
        assert data.labels is None and "no labels: of the columns breed" in data.report.notes[0]
    assert not any(
        "no labels" in note
        for note in load_data(write(images / "a.csv", b"path\nimages/0.png\nimages/1.png")).report.notes
    )


def test_csv_without_labels_or_with_some_missing(images):
    assert same(load_data(write(images / "a.csv", b"path\nimages/0.png\nimages/1.png\n")), GREY[:2])
    rows = b'path,label\nimages/0.png,a\nimages/1.png,\nimages/2.png,"b, c"\nimages/9.png,a\n,a\n\nimages/4.png\n'
    data = load_data(write(images / "b.csv", rows))
    assert same(data, GREY[[0, 2]], [0, 1], ("a", "b, c"))
    assert data.report.skipped["no label"].examples == ["images/1.png", "images/4.png"]
    assert data.report.skipped["missing"].examples == ["images/9.png: there is no such file"]
    assert data.report.skipped["unreadable"].examples == ["line 6: it is no file"]
    rows = b"path,label\nimages/0.png,10\nimages/1.png,\nimages/2.png,9\n"
    assert same(load_data(write(images / "c.csv", rows)), GREY[[0, 2]], [1, 0], ("9", "10"))
    rows = b"path,targets\nimages/0.png,10\nimages/1.png,007\nimages/2.png,7\n"
    assert same(load_data(write(images / "d.csv", rows)), GREY[:3], [2, 0, 1], ("007", "7", "10"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has the columns none; name the one with the images path, file"),
        (b"a,b\n1,2\n", "has the columns a, b; name the one with the images path, file"),
        (b"path\n", "No image of t can be used"),
        (b"path,label\n\xff\xfe,1\n", "t.csv is no text in UTF-8: byte 11 is 0xff"),
        (b"path\n" + b"x" * 200_000 + b"\n", "No image of t can be used"),
        (b"path,label\na\0.png,1\n", "No image of t can be used"),
    ],
)
def test_csv_that_is_broken_raises(tmp_path, data, message):
    with pytest.raises(InvalidData, match=message):
        load_data(write(tmp_path / "t.csv", data))


def parquet(path, columns, metadata=None):
    import pyarrow as pa
    from pyarrow import parquet as pq

    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)
    return path


def test_parquet_of_paths_bytes_or_both_is_read(images):
    names = [f"images/{i}.png" for i in range(6)]
    data = [png(image[..., 0]) for image in GREY]
    labels = [2, 0, 1, 1, 0, 2]
    assert same(
        load_data(parquet(images / "a.parquet", {"file_name": names, "label": labels})), GREY, labels, ("0", "1", "2")
    )
    assert same(load_data(parquet(images / "b.parquet", {"image": data})), GREY)
    both = [{"bytes": each, "path": "x.png"} for each in data[:3]] + [
        {"bytes": None, "path": name} for name in names[3:]
    ]
    features = {"info": {"features": {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}}}
    path = parquet(images / "c.parquet", {"image": both, "label": labels}, {"huggingface": json.dumps(features)})
    assert same(load_data(path), GREY, labels, ("cat", "dog", "owl"))
    assert same(load_data(path, workers=1), GREY, labels, ("cat", "dog", "owl"))
    assert load_data(path, ImageOptions(8)).images.shape == (6, 8, 8, 1)


@pytest.mark.parametrize("cell", [lambda name: name, lambda name: {"bytes": None, "path": name}])
def test_parquet_of_paths_sees_that_an_image_was_replaced(images, cell):
    path = parquet(images / "a.parquet", {"image": [cell(f"images/{i}.png") for i in range(6)]})
    assert same(load_data(path, workers=1), GREY)
    write_image(images / "images" / "2.png", 255 - GREY[2])
    assert np.array_equal(load_data(path, workers=1).images[2], 255 - GREY[2])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pixels": [1]}, "has the columns pixels; name the one"),
        ({"image": [1, 2]}, "row 0 has 1 for an image; give a path or the bytes of a file"),
        ({"image": [b"", b"x"]}, "unreadable: 2"),
        ({"image": [b"x"], "label": [[1]]}, r"t.parquet, row 0: the label is \[1\], of type list"),
        ({"image": [{"bytes": None, "path": 3}]}, "row 0 has .* for an image; give a path or the bytes of a file"),
        ({"image": [None, None]}, "No image of t can be used"),
    ],
)
def test_parquet_that_holds_no_images_raises(tmp_path, columns, message):
    with pytest.raises(InvalidData, match=message):
        load_data(parquet(tmp_path / "t.parquet", columns))


def test_parquet_that_is_broken_raises(tmp_path):
    whole = parquet(tmp_path / "t.parquet", {"image": [png(image[..., 0]) for image in GREY]}).read_bytes()
    flipped = whole.replace(b"IDAT", b"\0\0\0\0").replace(b"PNG", b"\xff\xff\xff")
    for data in (b"", b"hello", whole[:-10], whole[100:], flipped, whole[:8] + bytes(100) + whole[108:]):
        with pytest.raises(InvalidData, match=r"t.parquet is broken: .|can be used"):
            load_data(write(tmp_path / "t.parquet", data))


def test_parquet_without_pyarrow_raises_with_the_line_that_installs_it(tmp_path):
    code = "import sys; sys.modules['pyarrow'] = None\nfrom aigc_image.data import load_data\nload_data(sys.argv[1])"
    path = write(tmp_path / "t.parquet", b"")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "MissingPackage: Reading .parquet needs the package 'pyarrow'" in done.stderr
    assert "pip install 'aigc-sdk[data]'" in done.stderr
    assert issubclass(MissingPackage, ImportError)


# Readers of plugins

READER = """
import aigc_sdk as sdk
import numpy as np
import PIL.Image

@sdk.hookimpl
def aigc_register_readers(register):
    register(sdk.ReaderSpec(name="boxes", target=__name__ + ":read", suffixes=(".box", ".tar.box")))

def read(path):
    for i, side in enumerate(path.read_bytes()):
        pixels = np.full((side, side, 3), 10 * i, np.uint8)
        yield (PIL.Image.fromarray(pixels) if i % 2 else pixels), "ab"[i % 2]
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    site = Site(tmp_path)
    monkeypatch.setattr(plugins, "default_registry", site.registry)
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)


def test_reader_of_a_plugin_reads_files_of_its_suffix(site, tmp_path):
    site.install("my-boxes", READER)
    data = load_data(write(tmp_path / "some.BOX", bytes([4, 4, 4, 4])))
    assert same(
        data,
        np.arange(4, dtype=np.uint8)[:, None, None, None] * np.full((1, 4, 4, 3), 10, np.uint8),
        [0, 1, 0, 1],
        ("a", "b"),
    )
    write(tmp_path / "more.box", bytes([4, 9, 3, 4, 0]))
    with pytest.raises(
        PluginError, match=r"The reader 'boxes' of my-boxes failed on .*more.box: TypeError: it gave an array"
    ):
        load_data(tmp_path / "more.box")
    mixed = load_data(write(tmp_path / "more.box", bytes([4, 9, 3, 4])), ImageOptions(8))
    assert mixed.images.shape == (4, 8, 8, 3)


def test_reader_may_leave_labels_out_and_is_found_in_a_real_installation(site, tmp_path):
    site.install("my-boxes", READER.replace('"ab"[i % 2]', "None"))
    path = write(tmp_path / "some.box", bytes([4] * 4))
    code = "import sys, aigc_image.data as d; data = d.load_data(sys.argv[1]); print(data.n, data.labels)"
    environment = {"PYTHONPATH": str(tmp_path), "AIGC_SDK_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code, path], env=environment, capture_output=True, text=True)
    assert done.stdout == "4 None\n", done.stderr


@pytest.mark.parametrize("second", [bytes([4]), bytes([4, 4, 4])])
def test_reader_that_gives_another_number_of_images_the_second_time_is_named(site, tmp_path, second):
    code = READER.replace("path.read_bytes()", "next(GIVES)")
    site.install("my-boxes", f"{code}\nGIVES = iter([bytes([4, 4]), {second!r}])\n")
    with pytest.raises(PluginError, match="gave 2 images the first time, and another number now"):
        load_data(write(tmp_path / "some.box", b""))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("path.read_bytes()", "1 / 0", "ZeroDivisionError: division by zero"),
        (", \"ab\"[i % 2]", "", "ValueError: .*unpack"),
        ('"ab"[i % 2]', "i / 2", "TypeError: it gave the label 0.0"),
        ("np.uint8)", "float)", r"TypeError: it gave an array float64 \(4, 4, 3\), not uint8"),
        ("side, 3)", "side, 2)", r"TypeError: it gave an array uint8 \(4, 4, 2\), not uint8"),
        ("(PIL.Image.fromarray(pixels) if i % 2 else pixels)", "'x'", "TypeError: it gave a str, not uint8"),
        ("    for i", "    return 5\n    for i", None),
        ("path.read_bytes()", "exit('no licence')", "SystemExit: no licence"),
        ("def read(path)", "def read()", "TypeError: read.. takes 0"),
    ],
)  # fmt: skip
def test_reader_that_fails_is_named(site, tmp_path, old, new, reason):
    site.install("my-boxes", READER.replace(old, new))
    path = write(tmp_path / "some.box", bytes([4, 4]))
    error, message = (PluginError, f"The reader 'boxes' of my-boxes failed on .*some.box: {reason}")
    if reason is None:  # a generator that returns at once has no images
        error, message = InvalidData, "No image of some can be used"
    with pytest.raises(error, match=message):
        load_data(path)


def test_readers_of_two_plugins_for_one_suffix_cancel_out_and_a_built_in_wins(site, tmp_path):
    site.install("one", READER)
    site.install("two", READER)
    path = write(tmp_path / "some.box", bytes([4, 4]))
    with pytest.raises(
        PluginError, match=r"Several plugins read some\.box: one of one, two of two; name the one to use"
    ):
        load_data(path)
    site.install("aigc-sdk", READER, "own")
    assert load_data(path).n == 2


@pytest.mark.parametrize(
    "suffixes", ["()", '".box"', '("box",)', "(1,)", '[".box"]', '(".BOX",)', "(__import__('pathlib').Path('.box'),)"]
)
def test_reader_without_suffixes_fails_when_registered(site, suffixes):
    site.install("my-boxes", READER.replace('(".box", ".tar.box")', suffixes))
    (plugin,) = site.registry().plugins
    assert plugin.state == "failed" and "give a tuple such as ('.dcm',)" in plugin.reason


def test_reader_never_gets_what_is_read_already(site, tmp_path):
    site.install("my-boxes", READER.replace('".box", ".tar.box"', '".npy", ".csv"'))
    file = io.BytesIO()
    np.save(file, GREY)
    assert same(load_data(write(tmp_path / "x.npy", file.getvalue())), GREY)
    PIL.Image.fromarray(GREY[0, ..., 0]).save(tmp_path / "0.png")
    PIL.Image.fromarray(GREY[1, ..., 0]).save(tmp_path / "1.png")
    assert same(load_data(write(tmp_path / "x.csv", b"path\n0.png\n1.png\n")), GREY[:2])
