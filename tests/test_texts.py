"""Reading texts: files, folders, tables and lists, and what is said of those that cannot be used."""

import codecs
import json

import numpy as np
import pytest

import aigc_sdk as sdk
from aigc_sdk.codes import decode, encode
from aigc_sdk.errors import InvalidData, InvalidRequest
from aigc_text.data import MOST_CHARACTERS, PIECE_CHARACTERS, load_texts


class NAType:
    """What pandas puts where there is no value; it is neither true nor false."""

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    def __eq__(self, other):
        return self

    def __hash__(self):
        return 0


NA = NAType()


def texts_of(data):
    return [decode(data.row_codes(row)) for row in range(data.n)]


def test_list_of_texts_is_read_without_empty_ones_and_copies():
    data = load_texts(["spring", "", "autumn", "spring", "春天"])
    assert texts_of(data) == ["spring", "autumn", "春天"] and not data.is_stream
    assert {reason: skipped.count for reason, skipped in data.report.skipped.items()} == {"empty": 1, "copy": 1}
    assert "3 texts read, 2 left out" in str(data.report)


def test_labels_are_kept_and_a_text_may_have_two():
    data = load_texts((["Lee", "Ann", "Lee"], ["surname", "first", "first"]))
    assert data.label_names == ("first", "surname") and data.labels.tolist() == [1, 0, 0]
    spec = data.spec(np.arange(3))
    assert spec.label_frequencies == pytest.approx((2 / 3, 1 / 3)) and spec.shape == (3,) and spec.n == 3
    assert spec.details.characters == {"A": 1, "L": 2, "e": 4, "n": 2}


@pytest.mark.parametrize(("documents", "wanted"), [("line", ["a b", "c", "d e"]), ("paragraph", ["a b\nc", "d e"])])
def test_text_file_is_divided_as_asked(tmp_path, documents, wanted):
    path = tmp_path / "some.txt"
    path.write_bytes(b"\xef\xbb\xbfa b\r\nc\r\n\r\n  d e  \r\n")
    data = load_texts(path, documents)
    assert texts_of(data) == wanted and data.name == "some"


def test_long_text_is_a_stream_whose_end_is_held_out(tmp_path):
    text = "".join(chr(97 + i * i % 26) for i in range(50_000))
    (tmp_path / "long.txt").write_text(text)
    data = load_texts(tmp_path / "long.txt")
    assert data.is_stream and data.n == -(-50_000 // PIECE_CHARACTERS) and "".join(texts_of(data)) == text
    split = data.split(0.1, 0.2)
    assert np.concatenate([split[part] for part in ("train", "validation", "test")]).tolist() == list(range(data.n))
    assert [len(split[part]) for part in ("train", "validation", "test")] == [9, 1, 3]
    with pytest.raises(InvalidData, match="too short for parts"):
        data.split(0.6, 0.6)


def test_documents_are_split_by_what_they_hold():
    texts = [f"text {i}" for i in range(500)]
    before, after = load_texts(texts), load_texts([*texts, "another", "and one more"])
    old, new, moved = texts_of(before), texts_of(after), after.split(0.1, 0.1)
    for part, rows in before.split(0.1, 0.1).items():
        assert {old[row] for row in rows} <= {new[row] for row in moved[part]}
    assert before.fingerprint != after.fingerprint
    assert before.fingerprint == load_texts(texts).fingerprint != load_texts((texts, ["x"] * 500)).fingerprint


def test_folder_gives_labels_by_sub_folder(tmp_path):
    for name, text in (("odes/a.txt", "oh"), ("odes/b.TXT", "ah"), ("limericks/c.txt", "hi"), ("odes/d.md", "no")):
        path = tmp_path / "poems" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    data = load_texts(tmp_path / "poems")
    assert sorted(texts_of(data)) == ["ah", "hi", "oh"] and data.label_names == ("limericks", "odes")
    assert data.report.skipped["no text by its name"].count == 1
    (tmp_path / "poems" / "own.txt").write_text("own")
    with pytest.raises(InvalidData, match="sub-folders are labels"):
        load_texts(tmp_path / "poems")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_table_has_a_column_of_texts_and_one_of_labels(tmp_path, suffix):
    rows = [("one, two", "a"), ("three\nfour", "b"), ("five", "a")]
    path = tmp_path / f"table{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"Text": text, "label": label}) for text, label in rows) + "\n\n")
    else:
        comma = "\t" if suffix == ".tsv" else ","
        path.write_text(f"label{comma}text\n" + "".join(f'{label}{comma}"{text}"\n' for text, label in rows))
    data = load_texts(path)
    assert texts_of(data) == [text for text, _ in rows] and data.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "bad is empty"),
        (b"x", "bad consists of one character again and again"),
        (b"zzzzzz", "bad consists of one character again and again"),
        (b"ab", "bad has only one text"),
        ("naïve".encode("latin-1"), r"bad.txt is no text in UTF-8: byte 2 is 0xef"),
        (b"\xff\xfea\x00b\x00", "bad has only one text"),
        (b"\xff\xfea\x00b\x00c", r"bad.txt is no text in UTF-16: byte 6 is 0x63"),
    ],
)
def test_file_that_cannot_be_used_says_why(tmp_path, content, words):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(InvalidData, match=words):
        load_texts(tmp_path / "bad.txt")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.jsonl", '{"text": "a"}\nnonsense', "line 2, is no JSON"),
        ("bad.jsonl", '["a"]', "line 1, is .*; give an object"),
        ("bad.jsonl", '{"words": "a"}', "line 1, has words; give a column named text"),
        ("bad.csv", "words\nhello", "bad.csv has words; give a column named text"),
        ("bad.docx", "x", "of no kind that texts are read from"),
    ],
)
def test_table_that_cannot_be_used_says_where(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidData, match=words):
        load_texts(tmp_path / name)


def test_texts_in_a_table_that_are_none_are_left_out(tmp_path):
    (tmp_path / "some.jsonl").write_text('{"text": "ab"}\n{"text": null}\n{"text": 3}\n{"text": "cd"}\n')
    data = load_texts(tmp_path / "some.jsonl")
    assert data.n == 2 and data.report.skipped["no text"].examples == ["line 2: None", "line 3: 3"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (7, "data is of type int"),
        ((["ab", "cd"], ["x"]), "2 texts and 1 labels"),
        (["ab\ud800", "c"], "half a surrogate pair"),
        (["a" * (MOST_CHARACTERS + 1) + "b", "c"], None),
        ((["a" * (MOST_CHARACTERS + 1) + "b", "c"], ["x", "y"]), "labels need texts of at most 5,000"),
    ],
)
def test_texts_that_cannot_be_used_raise(given, words):
    if words is None:
        assert load_texts(given).is_stream
        return
    with pytest.raises(InvalidData, match=words):
        load_texts(given)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        0,
        [],
        {},
        3,
        1.5,
        True,
        b"ab",
        ["ab"],
        ("ab", "cd"),
        {"text": "ab"},
        np.bytes_(b"ab"),
        np.int64(7),
        NA,
        {"a"},
    ],
    ids=lambda each: type(each).__name__,
)
def test_text_in_a_list_that_is_none_raises_with_its_place_and_type(wrong):
    for given, where in ((["ab", "cd", wrong], "data"), ((["ab", "cd", wrong], ["x", "y", "x"]), r"data\[0\]")):
        with pytest.raises(InvalidData, match=rf"^{where}\[2\] is .*, of type {type(wrong).__name__}; a text is a str"):
            load_texts(given)


def test_texts_of_numpy_are_read_as_those_of_python():
    for texts in (np.array(["ab", "cd"]), np.array(["ab", "cd"], object), [np.str_("ab"), "cd"], ("ab", "cd", "cd")):
        assert texts_of(load_texts(texts)) == ["ab", "cd"]
    data = load_texts((np.array(["ab", "cd"]), np.array([7, 5])))
    assert data.label_names == ("5", "7") and data.labels.tolist() == [1, 0]
    with pytest.raises(InvalidData, match=r"data\[1\] is nan, of type float"):
        load_texts(np.array(["ab", np.nan], object))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "is empty"),
        (([], []), "is empty"),
        (np.array([], "U1"), "is empty"),
        (b"ab", "data is of type bytes"),
        (None, "data is of type NoneType"),
        ({"ab": 1}, "data is of type dict"),
        ((None, None), r"data\[0\] is of type NoneType; give a list of texts"),
        (({"ab": 1, "cd": 2}, ["x", "y"]), r"data\[0\] is of type dict"),
        ((["ab", "cd"], None), r"data\[1\] is of type NoneType; give a list of labels"),
        ((["ab", "cd"], "xy"), r"data\[1\] is of type str; give a list of labels"),
        (np.array("ab"), "data is of type ndarray; give a list of texts"),
        ((["ab", "cd"], np.array("xy")), r"data\[1\] is of type ndarray; give a list of labels"),
    ],
)
def test_data_that_is_no_texts_says_what_it_is(given, words):
    with pytest.raises(InvalidData, match=words):
        load_texts(given)


def test_labels_beside_texts_that_are_missing_or_none_are_left_out_or_named():
    data = load_texts((["ab", "cd", "ef", "gh", "ij"], ["x", None, float("nan"), NA, "y"]))
    assert texts_of(data) == ["ab", "ij"] and data.label_names == ("x", "y")
    assert data.report.skipped["no label"].examples == ["text 1", "text 2", "text 3"]
    with pytest.raises(InvalidData, match=r"data, text 1: the label is \['x'\], of type list"):
        load_texts((["ab", "cd"], ["x", ["x"]]))


def test_path_of_texts_that_is_none_raises(tmp_path):
    with pytest.raises(InvalidData, match="There is no data"):
        load_texts(tmp_path / "none.txt")
    with pytest.raises(InvalidRequest):
        load_texts("")


@pytest.mark.slow
def test_line_of_200_megabytes_is_read(tmp_path):
    path = tmp_path / "line.txt"
    path.write_bytes(b"abcdefgh" * 25_000_000)
    data = load_texts(path, "line")
    assert data.is_stream and len(data.codes) == 200_000_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_file_is_read_in_the_encoding_that_it_is_in(tmp_path, encoding):
    (tmp_path / "some.txt").write_bytes("naïve 春天 😀\r\nLine 2\u2028 and more\x85\f\rthree".encode(encoding))
    (tmp_path / "big-endian.txt").write_bytes(codecs.BOM_UTF16_BE + "ab".encode("utf-16-be"))
    lines = texts_of(load_texts(tmp_path / "some.txt", "line"))
    assert lines == ["naïve 春天 😀", "Line 2\u2028 and more", "three"]
    assert load_texts(tmp_path, "line").n == 4


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(
    "lines",
    [
        ["It is a truth", "universally acknowledged"],
        ["Люди счастливые семьи похожи друг на друга", "каждая несчастливая семья несчастлива по-своему"],
        ["Τη γλώσσα μου έδωσαν ελληνική", "το σπίτι φτωχικό"],
        ["كان يا ما كان", "في قديم الزمان"],
        ["naïve 春天 😀", "🦉🦉🦉 and 😀"],
    ],
)
def test_text_file_that_does_not_tell_its_encoding_is_read_by_its_upper_bytes(tmp_path, encoding, lines):
    (tmp_path / "some.txt").write_bytes("\r\n".join(lines).encode(encoding))
    assert texts_of(load_texts(tmp_path / "some.txt", "line")) == lines


def test_text_of_utf_8_with_a_zero_in_it_stays_one(tmp_path):
    lines = ["It is a truth\0 universally acknowledged", "Люди счастливые\0 семьи похожи", "\0\1\2 and more of it"]
    (tmp_path / "some.txt").write_bytes("\n".join(lines).encode())
    assert texts_of(load_texts(tmp_path / "some.txt", "line")) == lines


def test_label_that_no_file_can_hold_raises_before_the_training(tmp_path):
    with pytest.raises(InvalidData, match=r"'\\ud800' is no text that can be written down"):
        load_texts((["ab", "cd"], ["x", "\ud800"]))
    with pytest.raises(InvalidData, match=r"data, text 1: the label is 'x\\x00', in which no NUL character can be"):
        load_texts((["ab", "cd"], ["x", "x\0"]))


def test_folder_without_texts_and_labels_that_look_alike_are_named(tmp_path):
    for name in (
        "cafe\u0301/a.txt",
        "caf\u00e9/b.txt",
        "Caf\u00e9/c.txt",
        "ode/d.md",
        "empty/",
        "@eaDir/x.txt",
        "sad/e.txt",
    ):
        path = tmp_path / "poems" / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("" if "sad" in name else f"text of {path.name}")
    data = load_texts(tmp_path / "poems")
    assert data.label_names == ("Caf\u00e9", "caf\u00e9") and data.labels.tolist() == [0, 1, 1]
    assert data.report.skipped["system folder"].examples == ["@eaDir"]
    assert data.report.skipped["empty"].examples == ["sad/e.txt"]
    notes = "\n".join(data.report.notes)
    assert "folders without texts, which are no labels: empty, ode" in notes
    assert "labels of which no text can be used: sad" in notes
    assert "labels that differ in blanks, capitals or invisible characters alone: 'Café' and 'café'" in notes


def test_codes_come_back_as_the_text():
    texts = ["", "a", "春眠不覺曉", "😀\n\t", "e\u0301"]
    codes = encode(texts)
    assert codes.shape == (5, 5) and codes.dtype == np.int32
    assert [decode(row) for row in codes] == texts
    for wrong in (0x110000, 0xD800, -2):
        with pytest.raises(sdk.errors.GenerationFailed, match="not all code points"):
            decode(np.array([97, wrong], np.int32))


@pytest.mark.parametrize("titles", ["text,lables", "text,label\u200b", "id,text"])
def test_a_table_of_texts_whose_columns_are_no_labels_says_so(tmp_path, titles):
    (tmp_path / "texts.csv").write_text(f"{titles}\na,x\nb,y\n", encoding="utf-8")
    data = load_texts(tmp_path / "texts.csv")
    assert data.labels is None and any("no labels: of the columns" in note for note in data.report.notes)
