"""Data: every reader, everything that can be wrong with data, fingerprints and splits."""

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from aigc_image.data import load_data
from aigc_image.dataset import ImageDataset
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import InvalidData, StorageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5, 4, 1), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)
LABELS = np.array([3, 1, 1, 7, 3, 3])


def idx(array):
    codes = {"uint8": 8, "int32": 12, "float32": 13}
    header = struct.pack(f">4B{array.ndim}I", 0, 0, codes[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_image(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path, **options)
    return path


def same(data: ImageDataset, images, labels=None, label_names=()):
    assert data.images.dtype == np.uint8
    assert np.array_equal(data.images, images)
    assert (data.labels is None) == (labels is None)
    assert labels is None or (data.labels.dtype == np.int64 and data.labels.tolist() == list(labels))
    assert data.label_names == label_names
    assert data.n == len(images)
    return True


# Arrays


def test_array_of_pixels_is_taken_as_it_is():
    assert same(load_data(COLOUR), COLOUR)
    assert same(load_data(GREY[..., 0]), GREY)


def test_array_of_floats_or_booleans_becomes_pixels():
    assert same(load_data(GREY / 255), GREY)
    assert same(load_data((GREY / 255).astype(np.float32)), GREY)
    assert same(load_data(GREY > 100), (GREY > 100) * np.uint8(255))


def test_array_in_any_memory_order_is_read_right():
    assert same(load_data(np.asfortranarray(COLOUR)[::-1, ::2]), COLOUR[::-1, ::2])


def test_array_with_labels_names_the_classes():
    assert same(load_data((GREY, LABELS)), GREY, [1, 0, 0, 2, 1, 1], ("1", "3", "7"))
    assert same(load_data((GREY, ["b", "a", "a", "c", "b", "b"])), GREY, [1, 0, 0, 2, 1, 1], ("a", "b", "c"))
    assert same(load_data((GREY, [0] * 6)), GREY, [0] * 6, ("0",))


def test_dataset_is_returned_as_it_is():
    data = load_data(GREY)
    assert load_data(data) is data


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            GREY.astype(np.int64),
            r"the images are int64 from \d+ to \d+; give uint8 from 0 to 255, or floats from 0 to 1",
        ),
        (GREY / 200, r"float64 from 0.* to 1\.2"),
        (GREY / 127.5 - 1, r"float64 from -1"),
        (np.where(GREY > 100, np.nan, 0.5), "float64 from nan to nan"),
        (np.full((2, 4, 4), np.inf), "float64 from inf to inf"),
        (GREY.astype(object), "the images are object"),
        (GREY.astype(str), "the images are <U"),
        (GREY.astype(complex), "the images are complex128"),
        (np.zeros((4, 4)), r"the images are \(4, 4\); give \(n, height, width\)"),
        (np.zeros((2, 3, 4, 4, 1)), r"the images are \(2, 3, 4, 4, 1\)"),
        (np.zeros(()), r"the images are \(\)"),
        (np.zeros((0, 4, 4)), r"the images are \(0, 4, 4, 1\)"),
        (np.zeros((2, 0, 4, 1)), r"the images are \(2, 0, 4, 1\)"),
        (
            np.zeros((2, 3, 8, 9)),
            r"9 channels; 1, 3 or 4 are possible. Channels go last: images.transpose\(0, 2, 3, 1\)",
        ),
        (np.zeros((2, 8, 8, 2)), r"2 channels; 1, 3 or 4 are possible\.$"),
    ],
)
def test_array_that_is_no_images_raises_and_says_what_is(images, message):
    with pytest.raises(InvalidData, match=message):
        load_data(images)


@pytest.mark.parametrize(
    "labels",
    [LABELS[:5], LABELS[:, None], LABELS / 2, LABELS > 1, np.array([None] * 6), LABELS.astype("S"), np.array(3), None],
)
def test_array_with_labels_that_do_not_fit_raises(labels):
    with pytest.raises(InvalidData, match=r"the labels are .*; give whole numbers or texts \(6,\)"):
        load_data((GREY, labels))


@pytest.mark.parametrize(
    "source", [None, 3, [GREY, LABELS], (GREY,), (GREY, LABELS, LABELS), b"path", {"images": GREY}]
)
def test_source_of_another_type_raises(source):
    with pytest.raises(InvalidData, match=r"data is of type \w+; give a path, an array of images, or a pair"):
        load_data(source)


def test_source_of_uneven_lists_raises():
    with pytest.raises(InvalidData, match="data is no pair of an array of images and one of labels"):
        load_data(([[1], [1, 2]], [0, 1]))


# npy and npz


def test_npy_is_read(tmp_path):
    data = load_data(write(tmp_path / "digits.v2.npy", npy(COLOUR)))
    assert same(data, COLOUR)
    assert data.name == "digits"
    assert same(load_data(str(tmp_path / "digits.v2.npy")), COLOUR)


@pytest.mark.parametrize("key", ["labels", "label", "y", "targets", "target", "class"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_read_with_its_labels(tmp_path, save, key):
    save(tmp_path / "digits.npz", anything=GREY, **{key: LABELS})
    assert same(load_data(tmp_path / "digits.npz"), GREY, [1, 0, 0, 2, 1, 1], ("1", "3", "7"))


def test_npz_without_labels_is_read(tmp_path):
    np.savez(tmp_path / "digits.npz", GREY)
    assert same(load_data(tmp_path / "digits.npz"), GREY)


@pytest.mark.parametrize("key", ["label_names", "class_names", "classes"])
def test_npz_is_read_with_its_label_names(tmp_path, key):
    np.savez(tmp_path / "x.npz", images=GREY, labels=[0, 1, 2, 1, 0, 0], **{key: ["owl", "dog", "cat", "none"]})
    assert same(load_data(tmp_path / "x.npz"), GREY, [0, 1, 2, 1, 0, 0], ("owl", "dog", "cat", "none"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds the arrays none; give one of images"),
        ({"a": GREY, "b": GREY}, "holds the arrays a, b; give one of images, and labels as 'labels'"),
        ({"labels": LABELS}, "holds the arrays labels"),
        ({"a": GREY, "labels": LABELS[:2]}, r"the labels are int64 \(2,\)"),
        ({"a": GREY, "labels": LABELS, "classes": ["a", "b"]}, "not all indices of the 2 label names"),
        ({"a": GREY, "labels": LABELS - 2, "classes": list("abcdef")}, "not all indices of the 6 label names"),
        ({"a": GREY, "labels": list("abcabc"), "classes": list("abc")}, "not all indices of the 3 label names"),
        ({"a": GREY, "labels": [0] * 6, "classes": ["a", "a"]}, "a label name stands twice among a, a"),
        ({"a": GREY, "labels": [0] * 6, "classes": "ab"}, r"'classes' is no array of texts \(classes,\)"),
        ({"a": GREY, "labels": [0] * 6, "classes": [b"a"]}, "'classes' is no array of texts"),
    ],
)
def test_npz_with_the_wrong_arrays_raises(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InvalidData, match=message):
        load_data(tmp_path / "x.npz")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "pickle.npy", "pickle.npz"])
def test_file_with_objects_raises_and_runs_nothing(tmp_path, name):
    trap = tmp_path / "was-run"
    objects = np.array([Evil(trap)], object)
    if name.startswith("pickle"):
        write(tmp_path / name, pickle.dumps(Evil(trap)))
    elif name == "x.npy":
        write(tmp_path / name, npy(objects, allow_pickle=True))
    else:
        np.savez(tmp_path / name, images=GREY, labels=objects)
    with pytest.raises(InvalidData, match="holds Python objects, which are never loaded because they can run code"):
        load_data(tmp_path / name)
    assert not trap.exists()


def npy_claiming(shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"123"


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            # a ZipInfo has a fixed date: the file names its test, and every process has to find the same tests
            archive.writestr(zipfile.ZipInfo(name.replace("__", ".")), data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.npy", b""),
        ("truncated.npy", npy(GREY)[:-1]),
        ("no-data.npy", npy(GREY)[:128]),
        ("no-header.npy", npy(GREY)[:20]),
        ("bad-header.npy", npy(GREY).replace(b"'shape'", b"'shape(")),
        ("huge.npy", npy_claiming((10**12, 8, 8))),
        ("negative.npy", npy_claiming((-1, 8, 8))),
        ("empty.npz", b""),
        ("truncated.npz", zipped(images__npy=npy(GREY))[:-10]),
        ("half.npz", zipped(images__npy=npy(GREY))[:100]),
        ("broken-member.npz", zipped(images__npy=npy(GREY)[:-1])),
        ("flipped.npz", zipped(images__npy=npy(GREY)).replace(GREY.tobytes()[:9], b"123456789")),
        ("huge.npz", zipped(images__npy=npy_claiming((10**12, 8, 8)))),
        (
            "method.npz",
            zipped(images__npy=npy(GREY)).replace(
                b"PK\x01\x02\x14\x03\x14\0\0\0\0\0", b"PK\x01\x02\x14\x03\x14\0\0\0\x63\0"
            ),
        ),
        ("text.npz", zipped(readme__txt=b"hello")),
        ("random.npz", bytes(range(100, 200))),
    ],
)
def test_numpy_file_that_is_broken_raises(tmp_path, name, data):
    with pytest.raises(InvalidData, match=rf"{name} (is broken: .|holds )"):
        load_data(write(tmp_path / name, data))


def test_numpy_file_of_the_other_kind_is_read(tmp_path):
    assert same(load_data(write(tmp_path / "x.npy", zipped(x__npy=npy(GREY)))), GREY)
    assert same(load_data(write(tmp_path / "x.npz", npy(GREY))), GREY)


# IDX


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_is_read_with_the_labels_beside_it(tmp_path, suffix):
    pack = gzip.compress if suffix else bytes
    path = write(tmp_path / f"t10k-images-idx3-ubyte{suffix}", pack(idx(GREY[..., 0])))
    assert same(load_data(path), GREY)
    write(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", pack(idx(LABELS.astype(np.uint8))))
    assert same(load_data(path), GREY, [1, 0, 0, 2, 1, 1], ("1", "3", "7"))


def test_idx_of_colours_or_floats_is_read(tmp_path):
    assert same(load_data(write(tmp_path / "colour.idx", idx(COLOUR))), COLOUR)
    assert same(load_data(write(tmp_path / "floats.idx", idx((COLOUR / 255).astype(np.float32)))), COLOUR)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx(GREY[..., 0])[:-1], "its header says 120 bytes, it has 119"),
        (idx(GREY[..., 0]) + b"x", "its header says 120 bytes, it has more"),
        (idx(GREY[..., 0])[:10], "is broken"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**31, 2**31), "is broken"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 0, 8, 8), r"the images are \(0, 8, 8, 1\)"),
        (idx(LABELS.astype(np.uint8)), r"the images are \(6,\)"),
        (idx(GREY[..., 0].astype(np.int32)), "the images are int32"),
    ],
)
def test_idx_that_is_broken_raises(tmp_path, data, message):
    with pytest.raises(InvalidData, match=message):
        load_data(write(tmp_path / "x-ubyte", data))


@pytest.mark.parametrize("cut", [2, 30, 60, -8])
def test_idx_gz_that_is_truncated_raises(tmp_path, cut):
    with pytest.raises(InvalidData, match=r"is broken|is of no kind"):
        load_data(write(tmp_path / "x.gz", gzip.compress(idx(GREY[..., 0]))[:cut]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is broken"),
        (b"\0\0\x05\x01" + bytes(9), "is broken"),
        (idx(LABELS[:2].astype(np.uint8)), "the labels are"),
    ],
)
def test_idx_labels_beside_it_that_are_broken_raise(tmp_path, data, message):
    write(tmp_path / "a-labels", data)
    with pytest.raises(InvalidData, match=message):
        load_data(write(tmp_path / "a-images", idx(GREY[..., 0])))


@pytest.mark.parametrize("name", ["data.txt", "data", "data.gz", "data.png"])
def test_file_of_another_kind_raises_and_lists_the_kinds(tmp_path, name):
    with pytest.raises(
        InvalidData, match=r"is of no kind that can be read; give an \.npz, \.npy or IDX file, a folder"
    ):
        load_data(write(tmp_path / name, b"hello, world"))


@pytest.mark.parametrize("name", ["missing", "missing.npz"])
def test_path_that_is_missing_raises(tmp_path, name):
    with pytest.raises(InvalidData, match=r"There is no data at .*missing"):
        load_data(tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc here")
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_file_that_cannot_be_read_raises(tmp_path, name):
    (tmp_path / name).symlink_to("/proc/self/mem")  # opens, but its first bytes are no memory of anybody's
    with pytest.raises(StorageError, match=rf"Cannot read .*{name}: Input/output error"):
        load_data(tmp_path / name)


# Folders of images


def test_folder_of_images_is_read_in_the_order_of_names(tmp_path):
    for i, suffix in enumerate(("png", "bmp", "tif", "PNG", "tiff", "webp")):
        write_image(tmp_path / f"{i}.{suffix}", COLOUR[i], **({"lossless": True} if suffix == "webp" else {}))
    write(tmp_path / "notes.txt", b"")
    data = load_data(tmp_path)
    assert same(data, COLOUR)
    assert data.name == tmp_path.name


def test_folder_of_folders_has_their_names_as_labels(tmp_path):
    for i, name in enumerate(("owl", "cat", "cat", "dög", "owl", "owl")):
        write_image(tmp_path / name / f"{i}.png", GREY[i])
    write(tmp_path / "owl" / ".thumbnail.png", b"")
    write(tmp_path / ".cache" / "x.png", b"")
    order = [1, 2, 3, 0, 4, 5]
    assert same(load_data(tmp_path), GREY[order], [0, 0, 1, 2, 2, 2], ("cat", "dög", "owl"))


def test_folder_of_folders_of_numbers_has_10_after_9(tmp_path):
    for i, name in enumerate(("9", "10", "1", "09")):
        write_image(tmp_path / name / "0.png", GREY[i])
    assert same(load_data(tmp_path), GREY[[3, 2, 1, 0]], [1, 0, 3, 2], ("1", "09", "9", "10"))


def test_folder_here_has_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path / "digits")
    write_image(tmp_path / "digits" / "0.png", GREY[0])
    write_image(tmp_path / "digits" / "1.png", GREY[1])
    assert load_data(".").name == "digits"


@pytest.mark.parametrize(
    ("modes", "channels"),
    [
        (("1", "L"), 1),
        (("L", "RGB"), 3),
        (("P", "L"), 3),
        (("CMYK", "CMYK"), 3),
        (("LA", "L"), 4),
        (("RGB", "RGBA"), 4),
    ],
)
def test_folder_of_several_modes_has_the_channels_that_all_need(tmp_path, modes, channels):
    for i, mode in enumerate(modes):
        PIL.Image.new("L", (4, 5), 255 * i).convert(mode).save(tmp_path / f"{i}.tif")
    assert load_data(tmp_path).images.shape == (len(modes), 5, 4, channels)


def test_folder_of_photographs_has_them_upright(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned by a quarter
    write_image(tmp_path / "0.png", GREY[0], exif=exif)
    write_image(tmp_path / "1.png", np.rot90(GREY[1]))
    assert same(load_data(tmp_path), [np.rot90(GREY[0], -1), np.rot90(GREY[1])])


def test_folder_with_a_transparent_colour_has_alpha(tmp_path):
    for i in range(2):
        PIL.Image.new("L", (4, 5), 9).save(tmp_path / f"{i}.png", transparency=9 + i)
    assert load_data(tmp_path).images[:, 0, 0].tolist() == [[9, 9, 9, 0], [9, 9, 9, 255]]


def bomb_png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def png(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PNG = png(GREY[0, ..., 0])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is empty; images end in .bmp, .gif, .jpeg"),
        ({"a.txt": b"", "b/c.csv": b""}, "has 2 files such as a.txt, and no images; images end in"),
        ({".hidden.png": b""}, "has 1 files such as .hidden.png, and no images"),
        ({"a.png": PNG, "b.png": PNG, "c.png": png(GREY[0, 1:, :, 0])}, "4 x 5 pixels, c.png is not. .*image_size=64"),
        ({"a.png": PNG, "cat/b.png": PNG}, "1 images of its own and others in sub-folders; sub-folders are labels"),
        ({"a.png": b""}, r"can be used. 0 images read, 1 left out; unreadable: 1 \(a.png: cannot"),
        ({"a.png": b"hello"}, r"\(a.png: cannot identify image file\)"),
        ({"a.png": PNG[:-30]}, r"unreadable: 1 \(a.png: "),
        ({"a.png": PNG[:40]}, r"unreadable: 1 \(a.png: "),
        ({"a.png": bomb_png()}, r"too large: 1 \(a.png: Image size \(3600000000 pixels\) exceeds limit of \d+"),
        ({"a.png": PNG}, "data has only one image; give at least two different ones"),
        ({"a.png": PNG, "b.png": PNG, "c.png": PNG}, "different ones. 1 image read, 2 left out; copy: 2"),
        ({"a/b.png": PNG[:50], "b/c.png": b""}, "No image of data can be used"),
    ],
)  # fmt: skip
def test_folder_that_cannot_be_read_raises(tmp_path, files, message):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, data in files.items():
        write(folder / name, data)
    with pytest.raises(InvalidData, match=message):
        load_data(folder)


# Fingerprint and split


def test_fingerprint_is_of_the_content_not_of_where_it_is_from(tmp_path):
    np.savez(tmp_path / "one.npz", images=GREY, labels=LABELS)
    write(tmp_path / "two-images", idx(GREY[..., 0]))
    write(tmp_path / "two-labels", idx(LABELS.astype(np.uint8)))
    sources = [(GREY, LABELS), tmp_path / "one.npz", tmp_path / "two-images"]
    assert len({load_data(source).fingerprint for source in sources}) == 1


def test_fingerprint_differs_with_pixels_labels_names_order_and_shape():
    other = GREY.copy()
    other[3, 2, 1, 0] ^= 1
    data = [
        load_data(GREY),
        load_data(other),
        load_data(GREY[::-1]),
        load_data(GREY[:5]),
        load_data(GREY.reshape(6, 4, 5, 1)),
        load_data(GREY.reshape(2, 5, 4, 3)),
        load_data((GREY, LABELS)),
        load_data((GREY, LABELS[::-1])),
        load_data((GREY, LABELS + 1)),
    ]
    assert len({each.fingerprint for each in data}) == len(data)


def test_split_has_every_image_once_and_about_the_fractions():
    images = RNG.integers(0, 256, (4000, 4, 4), np.uint8)
    parts = load_data(images).split(0.1, 0.2)
    assert list(parts) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(4000))
    assert [round(len(part) / 4000, 1) for part in parts.values()] == [0.7, 0.1, 0.2]


def test_split_is_the_same_again_and_whatever_is_added():
    images = RNG.integers(0, 256, (500, 4, 4), np.uint8)
    small, large = load_data(images[200:]).split(0.2, 0.2), load_data(images).split(0.2, 0.2)
    again = load_data((images, np.arange(500))).split(0.2, 0.2)
    for name in large:
        assert np.array_equal(large[name], again[name])
        assert np.array_equal(small[name] + 200, large[name][large[name] >= 200])


def test_split_keeps_copies_on_one_side():
    images = np.repeat(RNG.integers(0, 256, (100, 4, 4), np.uint8), 3, axis=0)
    for part in load_data(images).split(0.3, 0.3).values():
        assert all(count == 3 for count in np.unique(part // 3, return_counts=True)[1])


def test_split_larger_validation_leaves_the_test_part_alone():
    data = load_data(RNG.integers(0, 256, (500, 4, 4), np.uint8))
    assert np.array_equal(data.split(0.1, 0.2)["test"], data.split(0.5, 0.2)["test"])
    assert len(data.split(0, 0)["train"]) == 500


def test_split_that_leaves_nothing_to_train_on_raises():
    with pytest.raises(InvalidData, match="array has 6 images and none is left to train on; use smaller fractions"):
        load_data(GREY).split(0.5, 0.5)


def test_spec_tells_shape_and_the_training_parts_frequencies():
    assert load_data(COLOUR).spec(np.arange(6)) == DataSpec((5, 4, 3), (), (), 6)
    spec = load_data((GREY, LABELS)).spec(np.array([0, 1, 4, 5]))
    assert spec == DataSpec((5, 4, 1), ("1", "3", "7"), (0.25, 0.75, 0.0), 4)


@pytest.mark.parametrize("labels", [np.array(["", "a"] * 5), np.array(["a", ""] * 5)])
def test_labels_one_is_empty_raises(labels):
    with pytest.raises(InvalidData, match="a label is empty"):
        load_data((np.zeros((10, 8, 8, 1), np.uint8), labels))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("10", "9", "1", "0"), ("0", "1", "9", "10")),
        (("7", "007", "07", "10"), ("007", "07", "7", "10")),
        (("10", "9", "1", "1" * 5000), ("1", "9", "10", "1" * 5000)),
        (("10", "9", "1", "a"), ("1", "10", "9", "a")),
        (("10", "9", "1", "²"), ("1", "10", "9", "²")),
        ((10, 9, 1, 0), ("0", "1", "9", "10")),
    ],
)
def test_labels_of_digits_sort_as_numbers_and_stay_as_they_are(labels, names):
    data = load_data((GREY[:4], np.array(labels)))
    assert same(data, GREY[:4], [names.index(str(label)) for label in labels], names)


def test_load_data_label_that_cannot_be_written_down_is_refused():
    images = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    with pytest.raises(InvalidData, match=r"udcff' is no text that can be written down"):
        load_data((images, np.array(["a", "b\udcff", "a", "a"])))


def test_load_data_impossible_path_raises_in_few_words(tmp_path):
    with pytest.raises(StorageError, match=r"^Cannot read ") as raised:
        load_data(tmp_path / ("a" * 300))
    assert len(str(raised.value)) < 500


def test_labels_in_two_unicode_forms_are_one_and_those_that_look_alike_are_named(tmp_path):
    labels = ["cafe\u0301", "caf\u00e9", "Caf\u00e9", "a b", "a\u00a0b", "a  b"]
    data = load_data((GREY, np.array(labels)))
    names = ("Caf\u00e9", "a  b", "a b", "a\u00a0b", "caf\u00e9")
    assert same(data, GREY, [4, 4, 0, 2, 3, 1], names)
    expected = [
        "labels that differ in blanks, capitals or invisible characters alone: 'Café' and 'café'",
        "labels that differ in blanks, capitals or invisible characters alone: 'a  b' and 'a b' and 'a\\xa0b'",
    ]
    assert data.report.notes == expected
    for i, (image, label) in enumerate(zip(GREY, labels, strict=True)):
        write_image(tmp_path / "folder" / label / f"{i}.png", image)
    data = load_data(tmp_path / "folder")
    assert sorted(data.label_names) == sorted(names) and np.bincount(data.labels).tolist() == [1, 1, 1, 1, 2]
    assert [note for note in data.report.notes if "alone:" in note] == expected
    names = np.array(["cafe\u0301", "x"])
    np.savez(tmp_path / "t.npz", images=GREY, labels=LABELS % 2, label_names=names)
    assert load_data(tmp_path / "t.npz").label_names == ("caf\u00e9", "x")
    np.savez(tmp_path / "t.npz", images=GREY, labels=LABELS % 2, label_names=np.array(["cafe\u0301", "caf\u00e9"]))
    with pytest.raises(InvalidData, match="a label name stands twice"):
        load_data(tmp_path / "t.npz")


def test_folder_of_a_system_is_no_label_and_one_without_images_is_named(tmp_path):
    for name, image in zip(
        ("cat/0.png", "dog/1.png", "dog/@eaDir/2.png", "@eaDir/3.png", "__MACOSX/4.png"), GREY[:5], strict=True
    ):
        write_image(tmp_path / name, image)
    for name in ("#recycle/a.png", "lost+found/a.png", "$RECYCLE.BIN/a.png", "System Volume Information/a.png"):
        write_image(tmp_path / name, GREY[5])
    write_image(tmp_path / ".thumbnails" / "a.png", GREY[5])
    write(tmp_path / "owl" / "notes.txt", b"soon")
    write(tmp_path / "bat" / "broken.png", b"no image")
    write_image(tmp_path / "copy" / "0.png", GREY[0])
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "cat")
    data = load_data(tmp_path)
    assert same(data, GREY[:2], [0, 1], ("cat", "dog"))
    systems = {
        "@eaDir",
        "__MACOSX",
        "#recycle",
        "lost+found",
        "$RECYCLE.BIN",
        "System Volume Information",
        "dog/@eaDir",
    }
    left_out = [line.split("\t") for line in data.report.left_out]
    assert {name for reason, name in left_out if reason == "system folder"} == systems
    assert "folders without images, which are no labels: empty, owl" in data.report.notes
    assert "labels of which no image can be used: bat, copy" in data.report.notes
    for name in ("cat", "dog", "bat", "copy"):
        for path in (tmp_path / name).glob("*.png"):
            path.rename(tmp_path / f"{name}-{path.name}")
    assert not any("no labels" in note for note in load_data(tmp_path).report.notes)  # none of the folders is one
