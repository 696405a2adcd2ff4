"""Contents: images, their files with provenance, and the batch."""

import base64
import copy
import gc
import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import aigc_sdk as sdk
from aigc_image.item import Image, ImageContents
from aigc_sdk.contents import Contents, Item, Origin
from aigc_sdk.errors import InvalidRequest, StorageError
from test_files import FULL_DISK
from tiny_model import SIZE, expected, write_pixel_model

DATA = Path(__file__).parent / "data"

PROVENANCE = {
    "model": "handmade-ö",
    "version": "1.0",
    "graph_sha256": "0" * 64,
    "task": "generate",
    "seed": 7,
    "controls": {"label": 3, "gain": 0.5, "flip": True},
    "sdk_version": "0.1.0",
    "provider": "none",
}


def make_image(channels=3, height=5, width=4, seed=7) -> Image:
    data = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    origin = Origin("handmade-ö", "1.0", "0" * 64, "generate", "0.1.0", "none", ("label", "gain", "flip"))
    return Image(data, seed, origin, (3, 0.5, True))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_image_to_pil_keeps_every_pixel(channels, mode):
    image = make_image(channels)
    shown = image.to_pil()
    assert (shown.mode, shown.size) == (mode, (4, 5))
    assert np.array_equal(np.asarray(shown).reshape(5, 4, channels), image.data)


def test_image_of_a_slice_of_memory_keeps_every_pixel():
    whole = np.arange(10 * 8 * 6, dtype=np.uint8).reshape(10, 8, 6)
    image = Image(whole[::2, 1:5, :3], 0, make_image()._origin, (3, 0.5, True))
    assert np.array_equal(np.asarray(image.to_pil()), whole[::2, 1:5, :3])


def test_item_provenance_is_complete_and_plain():
    image = make_image()
    assert image.provenance == PROVENANCE
    assert json.loads(json.dumps(image.provenance)) == PROVENANCE


@pytest.mark.parametrize(
    ("suffix", "channels"), [*product([".png", ".PNG", ".tif", ".tiff"], [1, 3, 4]), (".bmp", 1), (".bmp", 3)]
)
def test_image_save_without_loss_keeps_every_pixel(tmp_path, suffix, channels):
    image = make_image(channels)
    path = image.save(tmp_path / f"image{suffix}")
    with PIL.Image.open(path) as read:
        assert np.array_equal(np.asarray(read).reshape(image.data.shape), image.data)


@pytest.mark.parametrize(("suffix", "channels"), [*product([".jpg", ".jpeg", ".webp"], [1, 3]), (".webp", 4)])
def test_image_save_with_loss_keeps_size_and_provenance(tmp_path, suffix, channels):
    path = make_image(channels).save(str(tmp_path / f"image{suffix}"))
    with PIL.Image.open(path) as read:
        assert read.size == (4, 5)
    assert json.loads((tmp_path / f"image{suffix}.json").read_text("utf-8")) == PROVENANCE
    assert names(tmp_path) == [f"image{suffix}", f"image{suffix}.json"]


def test_image_save_png_carries_its_provenance_inside(tmp_path):
    path = make_image().save(tmp_path / "image.png")
    with PIL.Image.open(path) as read:
        assert json.loads(read.text["aigc.provenance"]) == PROVENANCE
    assert names(tmp_path) == ["image.png"]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".bmp"])
def test_image_save_alpha_without_a_place_raises_and_writes_nothing(tmp_path, suffix):
    with pytest.raises(InvalidRequest, match=r"no alpha channel; save as \.png, \.webp or \.tif"):
        make_image(4).save(tmp_path / f"image{suffix}")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["image.gif", "image", "image.png.txt", ".png"])
def test_image_save_wrong_suffix_raises_and_lists_the_right_ones(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequest, match=r"use one of \.png, \.jpg"):
        make_image().save(name)
    assert names(tmp_path) == []


def test_image_save_long_name_is_not_repeated_whole(tmp_path):
    with pytest.raises(InvalidRequest, match=r"use one of \.png, \.jpg") as raised:
        make_image().save(tmp_path / ("a" * 5000))
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("path", ["", None, 3, b"image.png"])
def test_save_to_no_path_raises(tmp_path, monkeypatch, tiny, path):
    monkeypatch.chdir(tmp_path)
    for saved in (make_image(), tiny.generate(1)):
        with pytest.raises(InvalidRequest, match=r"is (''|None|3|b'image.png'); give a path\."):
            saved.save(path)
    assert names(tmp_path) == ["tiny.onnx"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_image_save_missing_folder_raises(tmp_path, suffix):
    with pytest.raises(StorageError, match=r"Cannot write .*No such file"):
        make_image().save(tmp_path / "missing" / f"image{suffix}")


def test_image_save_without_room_for_the_sidecar_leaves_no_image(tmp_path):
    (tmp_path / "image.jpg.json").mkdir()
    with pytest.raises(StorageError):
        make_image().save(tmp_path / "image.jpg")
    assert names(tmp_path) == ["image.jpg.json"]


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.webp", "image.bmp", "image.tif"])
def test_image_save_full_disk_raises_and_leaves_nothing(tmp_path, name):
    code = """
import numpy as np
from aigc_image.item import Image, ImageContents
from aigc_sdk.contents import Origin
from aigc_sdk.errors import StorageError
noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
try:
    Image(noise, 0, Origin("", "", "", "", "", ""), ()).save(sys.argv[1])
except StorageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK + code, str(tmp_path / name)], capture_output=True, text=True
    )
    assert done.stdout.startswith(f"Cannot write {tmp_path / name}: "), done.stderr
    assert names(tmp_path) == []


def test_contents_is_a_sequence(tiny):
    contents = tiny.generate(4, seed=7)
    assert len(contents) == len(list(contents)) == 4
    assert contents[-1] is contents[3]
    assert [item.seed for item in contents[1:3]] == [contents[1].seed, contents[2].seed]
    assert [item.seed for item in contents[:1] + contents[2:]] == [contents[i].seed for i in (0, 2, 3)]
    assert isinstance(contents[1:3], Contents)
    assert repr(contents) == "<Contents: 4 x Image>"
    assert repr(contents[4:]) == "<Contents: 0 x item>"
    with pytest.raises(TypeError):
        contents + [contents[0]]  # noqa: RUF005 - that this is no list is the point
    with pytest.raises(IndexError):
        contents[4]


@pytest.mark.parametrize("part", [slice(None, None, -1), slice(4, 0, -2), slice(1, None, 2), slice(9, 20)])
def test_contents_slices_keep_the_provenance(tiny, part):
    contents = tiny.generate(6, seed=7, gain=np.linspace(0, 2, 6))
    assert [item.provenance for item in contents[part]] == [item.provenance for item in list(contents)[part]]


def test_contents_sum_keeps_the_provenance(tiny):
    owls, dogs = tiny.generate(2, seed=1, label="owl"), tiny.generate(2, seed=1, label="dog")
    both = owls + dogs
    assert [item.provenance["controls"]["label"] for item in both] == [2, 2, 1, 1]
    assert both[:2] == owls and both[2:] == dogs


def test_contents_are_equal_where_data_and_provenance_are(tiny):
    contents = tiny.generate(3, seed=7, gain=0.0)
    assert contents == tiny.generate(3, seed=7, gain=0.0)
    assert contents[0] == contents[0] and contents[0] != contents[1]  # black both, of other seeds
    assert contents != contents[:2] and contents != contents[::-1] and contents != list(contents)
    assert contents[0] != contents[0].data.tobytes()
    assert contents != tiny.generate(3, seed=7, gain=0.0, shift=1)
    with pytest.raises(TypeError, match="unhashable"):
        {contents[0]}


def test_contents_to_numpy_stacks_the_items(tiny):
    contents = tiny.generate(seeds=[1, 2, 3])
    assert np.array_equal(contents.to_numpy(), expected([1, 2, 3]))
    assert np.array_equal(contents[1:].to_numpy(), expected([2, 3]))


@pytest.mark.parametrize("items", [[], [make_image(1), make_image(3)]])
def test_contents_of_no_one_shape_are_no_array_and_no_grid(items):
    with pytest.raises(InvalidRequest, match="is no array"):
        Contents(items).to_numpy()
    with pytest.raises(InvalidRequest, match="has no grid; only images of one size"):
        ImageContents(items).grid()
    assert ImageContents(items).overview() is None


def test_contents_of_another_modality_have_no_grid():
    class Word(Item):
        def save(self, path):
            return path

    word = Word(np.zeros(3), 0, make_image()._origin, (3, 0.5, True))
    assert not hasattr(Contents([word]), "grid") and Contents([word]).overview() is None
    assert not hasattr(Contents([word]) + Contents([make_image()]), "grid")


class Labelled(Image):
    """A class of others, which has no slots."""


def test_item_of_a_class_without_slots_is_copied_and_pickled_whole():
    image = make_image()
    item = Labelled(image.data, 7, image._origin, (3, 0.5, True))
    item.label = "seven"
    assert pickle.loads(pickle.dumps(item)).label == copy.copy(item).label == "seven"


def test_contents_are_of_the_class_that_their_items_have_for_many():
    few = Contents([make_image(), make_image()])
    assert type(few) is type(few[:1]) is type(few[:0]) is type(few + few) is ImageContents
    assert type(pickle.loads(pickle.dumps(few))) is ImageContents
    assert type(Contents([])) is Contents


@pytest.mark.parametrize(
    ("file", "model", "controls"), [("item", "digits-vae", {}), ("music", "folk-tunes", {"max_length": 40})]
)
def test_item_of_version_0_1_is_unpickled(file, model, controls):
    """Its classes were at other places, origins had no card, and items no parts."""
    with pytest.warns(DeprecationWarning, match=r"aigc_sdk\.contents\.\w+\.\w+ is aigc_\w+\.item\.\w+ now"):
        item = pickle.loads((DATA / f"{file}-0.1.pickle").read_bytes())
    made = sdk.generate(model, seed=7, **controls)[0]
    assert np.array_equal(item.data, made.data) and item.provenance["seed"] == 7
    assert item.card is None and item.parts == {} and made.card.name == model


@pytest.mark.parametrize(
    ("n", "first", "last"),
    [(1, "00.png", "00.png"), (3, "00.png", "02.png"), (100, "00.png", "99.png"), (101, "000.png", "100.png")],
)
def test_contents_save_names_sort_in_order(tmp_path, tiny, n, first, last):
    contents = tiny.generate(n, seed=7)
    paths = contents.save(tmp_path / "new" / "out")
    assert paths == sorted(tmp_path.glob("new/out/*"))
    assert (len(paths), paths[0].name, paths[-1].name) == (n, first, last)
    with PIL.Image.open(paths[-1]) as read:
        assert np.array_equal(np.asarray(read), contents[-1].data[..., 0])
        assert json.loads(read.text["aigc.provenance"]) == contents[-1].provenance


def test_contents_save_of_batches_goes_on_numbering(tmp_path, tiny):
    whole = tiny.generate(120, seed=7)
    wanted = [path.name for path in whole.save(tmp_path / "whole")]
    parts = [whole[i : i + 50].save(tmp_path / "parts", start=i, total=120) for i in (0, 50, 100)]
    assert [path.name for part in parts for path in part] == wanted
    assert whole[:1].save(tmp_path / "more", start=100)[0].name == "100.png"


def test_contents_save_of_one_item_may_name_a_file(tmp_path, tiny):
    contents = tiny.generate(2, seed=1)
    (path,) = contents[:1].save(tmp_path / "one.bmp")
    assert path == tmp_path / "one.bmp" and path.read_bytes()[:2] == b"BM"
    for several, start in ((contents, 0), (contents[:1], 1)):
        with pytest.raises(
            InvalidRequest, match=r"two\.png is the name of one file, and there are 2 items; give a folder"
        ):
            several.save(tmp_path / "two.png", start=start)
    (tmp_path / "is.png").mkdir()
    assert [path.parent.name for path in contents.save(tmp_path / "is.png")] == ["is.png"] * 2
    assert not (tmp_path / "two.png").exists()


def test_contents_save_to_a_name_that_no_file_can_have_raises(tmp_path, tiny):
    for n in (1, 2):
        with pytest.raises(StorageError if n == 1 else InvalidRequest):
            tiny.generate(n).save(tmp_path / "out" / f"{'x' * 300}.png")
    assert not (tmp_path / "out").exists()


def test_contents_save_file_in_the_folders_place_raises(tmp_path, tiny):
    (tmp_path / "out").touch()
    with pytest.raises(StorageError, match=r"Cannot make .*out"):
        tiny.generate().save(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "written"),
    [({}, "Of 3 items 2"), ({"start": 5}, "Of 8 items 7"), ({"start": 5, "total": 20}, "Of 20 items 7")],
)
def test_contents_save_that_fails_counts_the_batches_before(tmp_path, tiny, options, written):
    (tmp_path / "out" / f"{options.get('start', 0) + 2:02}.png").mkdir(parents=True)
    with pytest.raises(StorageError, match=f"{written} were written before"):
        tiny.generate(3, seed=7).save(tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("n", "columns", "size"),
    [(1, None, (1, 1)), (4, None, (2, 2)), (5, None, (3, 2)), (5, 5, (5, 1)), (5, 1, (1, 5)), (2, 3, (3, 1))],
)
def test_contents_grid_has_every_item_in_its_place(tiny, n, columns, size):
    contents = tiny.generate(n, seed=7)
    grid = np.asarray(contents.grid(columns))
    step = SIZE + 2
    assert grid.shape == (size[1] * step - 2, size[0] * step - 2)
    covered = np.zeros(grid.shape, bool)
    for i, item in enumerate(contents):
        row, column = divmod(i, size[0])
        place = np.s_[row * step : row * step + SIZE, column * step : column * step + SIZE]
        assert np.array_equal(grid[place], item.data[..., 0])
        covered[place] = True
    assert (grid[~covered] == 255).all()


@pytest.mark.parametrize(("channels", "white"), [(1, 255), (3, (255,) * 3), (4, (255,) * 4)])
def test_contents_grid_is_white_between_items_of_any_mode(channels, white):
    grid = Contents([make_image(channels)] * 2).grid(2)
    assert grid.size == (10, 5)
    assert grid.getpixel((4, 2)) == white
    assert np.array_equal(np.asarray(grid.crop((6, 0, 10, 5))).reshape(5, 4, channels), make_image(channels).data)


@pytest.mark.parametrize("columns", [0, -1, 1.5, "2", True, 65, 10**9])
def test_contents_grid_bad_columns_raises(tiny, columns):
    with pytest.raises(InvalidRequest, match=r"columns is .*; give a whole number from 1 to 64"):
        tiny.generate(3).grid(columns)


def test_contents_grid_may_have_as_many_columns_as_items(tiny):
    contents = tiny.generate(70)
    assert contents.grid(70).size == (70 * (SIZE + 2) - 2, SIZE)
    with pytest.raises(InvalidRequest, match="columns is 71"):
        contents.grid(71)


@pytest.mark.parametrize(("items", "words"), [([1], "number 0 of these is 1"), (3, "of 3;"), (None, "of None;")])
def test_contents_of_something_else_raise(items, words):
    with pytest.raises(InvalidRequest, match=words):
        Contents(items)


@pytest.mark.parametrize("name", ["start", "total"])
@pytest.mark.parametrize("value", ["1", 1.5, -1, True, 10**99])
def test_contents_save_numbers_that_are_none_raise_and_write_nothing(tmp_path, tiny, name, value):
    with pytest.raises(InvalidRequest, match=rf"{name} is .*; give a whole number from 0 to "):
        tiny.generate().save(tmp_path / "out", **{name: value})
    assert names(tmp_path) == ["tiny.onnx"]


@pytest.mark.parametrize(
    ("size", "shown"), [((28, 28), (112, 112)), ((5, 4), (110, 88)), ((1, 1), (112, 112)), ((300, 20), (300, 20))]
)
def test_image_in_a_notebook_shows_its_pixels_as_squares(size, shown):
    image = make_image(3, *size)
    with PIL.Image.open(io.BytesIO(image._repr_png_())) as read:
        assert read.size == shown[::-1]
        factor = shown[0] // size[0]
        assert np.array_equal(np.asarray(read)[::factor, ::factor], image.data)


def picture(html):
    data = html.partition("base64,")[2].partition('"')[0]
    return PIL.Image.open(io.BytesIO(base64.b64decode(data)))


def test_contents_in_a_notebook_show_a_grid_and_how_many_more(tiny):
    contents = tiny.generate(100, seed=7)
    html = contents._repr_html_()
    assert html.endswith("<br>100 x Image; 36 more are not shown")
    assert picture(html).size == (8 * 58 - 2, 8 * 58 - 2)
    assert np.array_equal(np.asarray(picture(html))[:56:7, :56:7], contents[0].data[..., 0])
    assert contents[:4]._repr_html_().endswith("<br>4 x Image")


def test_contents_of_large_images_are_shrunk_in_a_notebook():
    image = make_image(3, 400, 200)
    assert picture(Contents([image] * 4)._repr_html_()).size == (28 * 2 + 2, 56 * 2 + 2)
    assert image.data.shape == (400, 200, 3)


def test_contents_without_a_grid_are_left_to_repr():
    assert Contents([])._repr_html_() is None
    assert Contents([make_image(1), make_image(3)])._repr_html_() is None


# ---------------------------------------------------------------- an item owns what it needs


def live_bytes(make) -> int:
    """Return how many bytes stay while what `make` returns is kept."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = make()
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        assert kept is not None
        return size
    finally:
        tracemalloc.stop()


def pixel_model(tmp_path):
    model = sdk.load(write_pixel_model(tmp_path / "pixels.onnx"))
    images = np.random.default_rng(0).integers(0, 256, (4000, 8, 8, 1), np.uint8)
    model.generate(2, image=images[:2])  # what is made at the first use is not counted
    return model, images


def test_item_kept_holds_nothing_of_its_batch(tmp_path):
    model, images = pixel_model(tmp_path)
    assert live_bytes(lambda: model.generate(4000, image=images)[7]) < 20_000  # of 256 kB made, and as much fed
    assert live_bytes(lambda: model.generate(4000, image=images)) > 256_000


def test_item_pickled_holds_itself_alone(tmp_path):
    model, images = pixel_model(tmp_path)
    few, many = (model.generate(n, image=images[:n], seed=7)[0] for n in (1, 4000))
    assert len(pickle.dumps(many)) == len(pickle.dumps(few)) < 2500
    for kept in (pickle.loads(pickle.dumps(many)), copy.copy(many), copy.deepcopy(many)):
        assert kept == few and kept.provenance == few.provenance
        assert kept.data.base is None


@pytest.mark.parametrize("model", ["names", "folk-tunes"])
def test_item_of_variable_length_pickled_holds_itself_alone(model):
    items = sdk.generate(model, 3, seed=7, max_length=20)
    alone = sdk.generate(model, 1, seed=7, max_length=20)[0]
    assert len(pickle.dumps(items[0])) == len(pickle.dumps(alone))
    assert pickle.loads(pickle.dumps(items[0])) == alone
    assert all(item.data.base is None for item in items)


def test_item_provenance_changed_by_its_reader_stays(tmp_path):
    model, images = pixel_model(tmp_path)
    item = model.generate(1, image=images[0])[0]
    item.provenance["controls"]["image"].clear()
    assert item.provenance["controls"]["image"]["shape"] == [8, 8, 1]
