"""Reproducing: an item is made again from the provenance in its file, which may come from anywhere."""

import json
import os
import re
import subprocess
import sys
import zlib
from importlib.metadata import EntryPoint

import numpy as np
import onnx
import PIL.Image
import pytest
from click.testing import CliRunner
from PIL.PngImagePlugin import PngInfo

import aigc_sdk as sdk
from aigc_sdk import cli, generation, reproduction
from aigc_sdk.card import Golden, OutputSpec
from aigc_sdk.errors import (
    AigcError,
    InvalidProvenance,
    InvalidRequest,
    NotReproduced,
    StorageError,
    UnknownName,
)
from aigc_sdk.registry import Registry
from tiny_model import CONTROLS, SIZE, expected, make_card, make_graph, to_bytes, write_pixel_model, write_tiny_model

SUFFIXES = (".png", ".bmp", ".tif", ".jpg", ".webp")

PLUGIN = """
import aigc_sdk as sdk

@sdk.hookimpl
def aigc_register_models(register):
    files = {"generate": sdk.ModelFile("tiny.onnx", "0" * 64), "mirror": sdk.ModelFile("mirror.onnx", "0" * 64)}
    register(sdk.ModelSpec(name="tiny", package=__name__, files=files))
"""


@pytest.fixture
def ready_made(tmp_path, monkeypatch):
    """The hand-made model as a ready-made one of two tasks, the only one there is."""
    package = tmp_path / "reproduce_plugin"
    package.mkdir()
    (package / "__init__.py").write_text(PLUGIN)
    write_tiny_model(package / "tiny.onnx")
    write_tiny_model(package / "mirror.onnx", task="mirror")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry([EntryPoint(name, name, "aigc_sdk") for name in ("reproduce_plugin", "aigc_image")])
    monkeypatch.setattr(generation, "default_registry", lambda: registry)
    monkeypatch.setattr(reproduction, "default_registry", lambda: registry)
    yield
    sys.modules.pop("reproduce_plugin", None)


@pytest.fixture
def saved(tiny, tmp_path):
    """An item of the hand-made model and its PNG."""
    item = tiny.generate(3, seed=7, label="owl", gain=0.7, flip=True)[2]
    return item, item.save(tmp_path / "item.png")


def forge(path, item, text):
    """Save the item's pixels with another text as its provenance."""
    info = PngInfo()
    info.add_itxt("aigc.provenance", text)
    item.to_pil().save(path, "PNG", pnginfo=info)
    return path


def beside(path, item):
    """Write the item's provenance beside a file."""
    path.with_name(f"{path.name}.json").write_text(json.dumps(item.provenance), encoding="utf-8")
    return path


def changed(item, **changes):
    return json.dumps({**item.provenance, **changes})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reproduce_makes_the_same_item_from_every_format(tiny, tiny_path, tmp_path, suffix, caplog):
    for i, item in enumerate(tiny.generate(seed=3, label=[0, 1, 2], gain=[0.3, 1, 2], shift=[9, 0, 1])):
        path = item.save(tmp_path / f"{i}{suffix}")
        again = sdk.reproduce(path, model=tiny_path)
        assert again == sdk.Contents([item])
        assert again[0].save(tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()
    assert caplog.records == []


@pytest.mark.parametrize("task", ["generate", "mirror"])
def test_reproduce_finds_a_ready_made_model_by_name_and_task(ready_made, tmp_path, task):
    item = sdk.generate("tiny", seed=5, task=task)[0]
    assert sdk.reproduce(str(item.save(tmp_path / "item.png")))[0] == item


def test_reproduce_takes_the_model_in_every_form(saved, tiny, tiny_path, tmp_path):
    item, path = saved
    run = tmp_path / "run"
    run.mkdir()
    write_tiny_model(run / "model.onnx")
    for model in (tiny, tiny_path, str(tiny_path), run):
        assert sdk.reproduce(path, model=model)[0] == item


def test_reproduce_in_another_process_gives_the_same(saved, tiny_path):
    item, path = saved
    code = "import sys, aigc_sdk as sdk; print(sdk.reproduce(sys.argv[1], model=sys.argv[2])[0].data.tobytes().hex())"
    done = subprocess.run([sys.executable, "-c", code, path, tiny_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == item.data.tobytes().hex()


def test_reproduce_reads_the_sidecar_of_a_png_without_text(saved, tiny_path):
    item, path = saved
    item.to_pil().save(path)
    path.with_name("item.png.json").write_text(json.dumps(item.provenance), encoding="utf-8")
    assert sdk.reproduce(path, model=tiny_path)[0] == item


def test_reproduce_within_the_tolerance_warns(saved, tiny_path, caplog):
    item, path = saved
    near = item.data.copy()
    near[2, 3] += 1 if near[2, 3] < 255 else -1
    forge(path, sdk.Image(near, item.seed, item._origin, item._controls), json.dumps(item.provenance))
    assert sdk.reproduce(path, model=tiny_path)[0] == item
    assert f"{path} was reproduced within the tolerance: 1.6e-02 of the values differ, by at most 1" in caplog.messages
    assert aigc(path, "--model", tiny_path).stdout == f"{path}: 1.6e-02 of the values differ, by at most 1\n"


@pytest.mark.parametrize("edit", ["one pixel", "another item"])
def test_reproduce_edited_pixels_say_how_much_differs(saved, tiny, tiny_path, edit):
    item, path = saved
    data = item.data.copy()
    data[2, 3] ^= 64
    wrong = data if edit == "one pixel" else tiny.generate(seed=99)[0].data
    share = (wrong != item.data).mean()
    forge(path, sdk.Image(wrong, item.seed, item._origin, item._controls), json.dumps(item.provenance))
    with pytest.raises(NotReproduced, match=re.escape(f"{share:.1e} of the values differ, by at most")):
        sdk.reproduce(path, model=tiny_path)


def tinted(image):
    """Return the grey image in colours of the same grey."""
    grey = np.asarray(image).astype(int)
    tint = np.where((grey >= 40) & (grey < 150), 1, 0)
    image = PIL.Image.fromarray(np.stack([grey - 40 * tint, grey, grey + 105 * tint], -1).astype(np.uint8))
    assert np.array_equal(image.convert("L"), grey) and tint.any()
    return image


SECOND_FRAME = {"save_all": True, "append_images": [PIL.Image.new("L", (SIZE, SIZE), 99)]}
CLEAR = PIL.Image.new("L", (SIZE, SIZE))


@pytest.mark.parametrize(
    ("suffix", "edit", "options", "words"),
    [
        (".png", tinted, {}, "has mode RGB, channels 3, frames 1; .* as PNG, mode L, channels 1, frames 1"),
        (".png", lambda grey: grey.convert("P"), {}, "has mode P"),
        (".png", lambda grey: PIL.Image.merge("LA", (grey, CLEAR)), {}, "has mode LA, channels 4"),
        (".png", lambda grey: PIL.Image.merge("RGBA", (grey, grey, grey, CLEAR)), {}, "has mode RGBA, channels 4"),
        (".png", lambda grey: PIL.Image.fromarray(np.asarray(grey) * np.uint16(257)), {}, "has mode I;16"),
        (".png", lambda grey: grey, {"transparency": 255}, "has mode L, channels 4, frames 1"),
        (".png", lambda grey: grey, SECOND_FRAME, "has mode L, channels 1, frames 2"),
        (".png", lambda grey: grey, SECOND_FRAME | {"default_image": True}, "has mode L, channels 1, frames 2"),
        (".bmp", tinted, {}, "has mode RGB, channels 3, frames 1; .* as BMP, mode L"),
        (".tif", tinted, {}, "has mode RGB, channels 3, frames 1; .* as TIFF, mode L"),
        (".tif", lambda grey: grey, SECOND_FRAME, "has mode L, channels 1, frames 2"),
        (".jpg", lambda grey: grey.convert("RGB"), {}, "has mode RGB, channels 3, frames 1; .* as JPEG, mode L"),
        (".webp", tinted, {"lossless": True}, "of the values differ"),
        (".webp", lambda grey: PIL.Image.merge("LA", (grey, CLEAR)), {}, "has mode RGBA, .* as WEBP, mode RGB,"),
        (".webp", lambda grey: grey, SECOND_FRAME, "frames 2; .* as WEBP, mode RGB, channels 3, frames 1"),
    ],
)
def test_reproduce_edited_image_of_the_same_grey_raises(tiny, tiny_path, tmp_path, suffix, edit, options, words):
    item = tiny.generate(seed=7)[0]
    path = beside(tmp_path / f"item{suffix}", item)
    edit(item.to_pil()).save(path, **options)
    with pytest.raises(NotReproduced, match=words):
        sdk.reproduce(path, model=tiny_path)


def write_colour_model(path, channels):
    """Write the hand-made model with its grey in each of several channels."""
    model = make_graph()
    model.graph.node[-1].output[0] = "grey"
    model.graph.node.append(onnx.helper.make_node("Concat", ["grey"] * channels, ["content"], axis=3))
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = channels
    seeds = np.array([0, 1], np.int64)
    feeds = {control.name: np.full(2, control.default, control.dtype) for control in CONTROLS}
    output = OutputSpec(dtype="uint8", shape=(SIZE, SIZE, channels))
    golden = Golden.of(seeds, feeds, expected(seeds).repeat(channels, 3))
    path.write_bytes(to_bytes(model, make_card(model, output=output, golden=golden)))
    return path


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reproduce_takes_colour_and_alpha_from_every_format(tmp_path, suffix, channels):
    model = write_colour_model(tmp_path / "colour.onnx", channels)
    item = sdk.generate(model, seed=7)[0]
    path = tmp_path / f"item{suffix}"
    if suffix in (".bmp", ".jpg") and channels == 4:
        item.to_pil().convert("RGB").save(beside(path, item))
        with pytest.raises(InvalidProvenance, match=r"cannot hold what its model makes: .* has no alpha channel"):
            sdk.reproduce(path, model=model)
    else:
        assert sdk.reproduce(item.save(path), model=model)[0] == item


def test_reproduce_another_size_raises_before_unpacking(saved, tiny_path):
    item, path = saved
    info = PngInfo()
    info.add_itxt("aigc.provenance", json.dumps(item.provenance))
    PIL.Image.new("L", (9000, 9000)).save(path, pnginfo=info)
    with pytest.raises(NotReproduced, match=f"9000 x 9000 pixels; its model makes {SIZE} x {SIZE}"):
        sdk.reproduce(path, model=tiny_path)


def test_reproduce_model_that_is_gone_says_what_to_give(saved):
    with pytest.raises(UnknownName, match=r"made by tiny 1\.0, which is no ready-made model.* an \.onnx file"):
        sdk.reproduce(saved[1])


def test_reproduce_model_that_changed_raises(saved, tmp_path):
    graph = make_graph()
    graph.graph.name = "trained-again"
    other = tmp_path / "other.onnx"
    other.write_bytes(to_bytes(graph, make_card(graph)))
    with pytest.raises(NotReproduced, match="so it is another model, or was trained again"):
        sdk.reproduce(saved[1], model=other)


def test_reproduce_provenance_of_another_processor_and_release_is_taken(saved, tiny_path):
    item, path = saved
    forge(path, item, changed(item, provider="another (onnxruntime 9)", sdk_version="99.0"))
    assert np.array_equal(sdk.reproduce(path, model=tiny_path)[0].data, item.data)


@pytest.mark.parametrize("change", [{"version": "9"}, {"model": "else"}])
def test_reproduce_ready_made_model_of_another_version_raises(ready_made, tmp_path, change):
    item = sdk.generate("tiny", seed=5)[0]
    path = forge(tmp_path / "item.png", item, changed(item, **change))
    with pytest.raises((InvalidProvenance, UnknownName), match=r"made by (tiny 9, says|else .* no ready-made)"):
        sdk.reproduce(path)


def test_reproduce_model_of_another_task_raises(tiny, tmp_path):
    path = tiny.generate(seed=1)[0].save(tmp_path / "item.png")
    mirror = write_tiny_model(tmp_path / "mirror.onnx", task="mirror")
    with pytest.raises(UnknownName, match="no task of tiny 'generate'"):
        sdk.reproduce(path, model=mirror)


def test_reproduce_never_takes_a_path_from_the_file(saved, monkeypatch):
    item, path = saved
    monkeypatch.chdir(path.parent)
    for name in ("tiny.onnx", "item"):
        forge(path, item, changed(item, model=name))
        with pytest.raises(UnknownName, match="which is no ready-made model here"):
            sdk.reproduce(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not strict JSON"),
        ("{", "not strict JSON"),
        ("[]", "wrong at the whole"),
        ("null", "wrong at the whole"),
        ("{}", "wrong at model: "),
        ("[" * 50_000, "not strict JSON"),
        (' {"seed": 1, "seed": 1}', "a key stands twice"),
        (' {"seed": NaN}', "NaN is not JSON"),
        ('{"a": "' + "x" * 2**19 + '"}', "wrong at"),
    ],
)
def test_reproduce_broken_provenance_raises(saved, tiny_path, text, message):
    item, path = saved
    with pytest.raises(InvalidProvenance, match=message):
        sdk.reproduce(forge(path, item, text), model=tiny_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"seed": -1}, InvalidProvenance, "wrong at seed: .* greater than or equal to 0"),
        ({"seed": 2**53}, InvalidProvenance, "wrong at seed: .* less than or equal to 9007199254740991"),
        ({"seed": "7"}, InvalidProvenance, "wrong at seed: "),
        ({"seed": 7.0}, InvalidProvenance, "wrong at seed: "),
        ({"seed": True}, InvalidProvenance, "wrong at seed: "),
        ({"seed": [1, 2]}, InvalidProvenance, "wrong at seed: "),
        ({"seed": 8}, NotReproduced, "of the values differ"),
        ({"model": "../../secret.onnx"}, InvalidProvenance, "wrong at model: "),
        ({"model": 3}, InvalidProvenance, "wrong at model: "),
        ({"task": "../evil"}, InvalidProvenance, "wrong at task: "),
        ({"task": "paint"}, UnknownName, "no task of tiny 'paint'"),
        ({"graph_sha256": "f" * 64}, NotReproduced, "with the graph ffffffffffff"),
        (
            {"model": "cats"},
            InvalidProvenance,
            r"made by cats 1\.0, says its .* model with that graph is tiny 1\.0",
        ),
        ({"version": "9"}, InvalidProvenance, r"made by tiny 9, says its provenance; .* is tiny 1\.0"),
        ({"version": "9" * 10**5}, InvalidProvenance, r"made by tiny 9{100}, says its"),
        ({"x" * 10**5: 1}, InvalidProvenance, "wrong at x{100}: "),
        ({"graph_sha256": "7"}, InvalidProvenance, "wrong at graph_sha256: "),
        ({"controls": []}, InvalidProvenance, "wrong at controls: "),
        ({"controls": {}}, InvalidProvenance, "has the controls none; tiny has label, gain"),
        ({"controls": {"frog": 1}}, InvalidProvenance, "has the controls frog; tiny has label"),
        ({"extra": 1}, InvalidProvenance, "wrong at extra: "),
    ],
)
def test_reproduce_forged_provenance_raises(saved, tiny_path, changes, error, message):
    item, path = saved
    with pytest.raises(error, match=message):
        sdk.reproduce(forge(path, item, changed(item, **changes)), model=tiny_path)


@pytest.mark.parametrize("value", [99, -2, "frog", None, {"a": 1}, {"sha256": "0", "shape": [8, 8, 1]}, [0, 1], [[]]])
def test_reproduce_forged_control_raises(saved, tiny_path, value):
    item, path = saved
    text = changed(item, controls={**item.provenance["controls"], "label": value})
    with pytest.raises(AigcError, match=r"item\.png cannot be made again: .*label"):
        sdk.reproduce(forge(path, item, text), model=tiny_path)


def test_reproduce_control_that_takes_a_reserved_name_raises(saved, tiny_path):
    item, path = saved
    for name in ("n", "seeds", "batch_size", "deadline_s"):
        text = changed(item, controls={**item.provenance["controls"], name: 10**9})
        with pytest.raises(InvalidProvenance, match="its provenance has the controls"):
            sdk.reproduce(forge(path, item, text), model=tiny_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reproduce_without_provenance_raises(saved, tmp_path, suffix):
    path = tmp_path / f"plain{suffix}"
    saved[0].to_pil().save(path)
    with pytest.raises(InvalidProvenance, match=rf"has no provenance, neither inside nor as plain{suffix}\.json"):
        sdk.reproduce(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated", "cut", "nul", "long", "bomb"])
def test_reproduce_file_that_cannot_be_read_raises(saved, tmp_path, tiny_path, kind):
    path = saved[1]
    if kind == "missing":
        path = tmp_path / "missing.png"
    elif kind == "folder":
        path = tmp_path
    elif kind == "nul":
        path = "a\0b.png"
    elif kind == "long":
        path = "a" * 5000 + ".png"
    elif kind == "bomb":
        data = path.read_bytes()
        header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + data[24:29]
        path.write_bytes(data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:])
    else:
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"no image", "truncated": data[:-30], "cut": data[:-60]}[kind])
    error = {"missing": StorageError, "folder": StorageError, "long": StorageError, "nul": InvalidRequest}
    with pytest.raises(error.get(kind, InvalidProvenance)) as raised:
        sdk.reproduce(path, model=tiny_path)
    message = str(raised.value)
    assert len(message) < 400 and "<PIL" not in message and not message.endswith("..")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (2**20 + 5), b"{}"])
def test_reproduce_broken_sidecar_raises(saved, tmp_path, tiny_path, content):
    path = saved[0].save(tmp_path / "item.jpg")
    path.with_name("item.jpg.json").write_bytes(content)
    with pytest.raises(InvalidProvenance, match=r"item\.jpg: its provenance is"):
        sdk.reproduce(path, model=tiny_path)


def test_reproduce_sidecar_of_a_file_that_is_no_image_raises(saved, tmp_path, tiny_path):
    path = saved[0].save(tmp_path / "item.jpg")
    path.write_bytes(b"no image")
    with pytest.raises(InvalidProvenance, match="is no image that can be read"):
        sdk.reproduce(path, model=tiny_path)


def test_reproduce_format_that_the_sdk_never_saves_raises(saved, tmp_path, tiny_path):
    path = saved[0].save(tmp_path / "item.bmp")
    saved[0].to_pil().save(path, "GIF")
    with pytest.raises(InvalidProvenance, match="of the format GIF, in which this SDK saves no image"):
        sdk.reproduce(path, model=tiny_path)


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "mkfifo"), reason="needs pipes")
def test_reproduce_pipe_raises_instead_of_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(StorageError, match="it is no file"):
        sdk.reproduce(tmp_path / "pipe.png")


@pytest.fixture
def filled(tmp_path):
    """A model with image controls, what was given to it, and the file of what it made."""
    path = write_pixel_model(tmp_path / "pixels.onnx")
    given = {
        "image": np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 1)).astype(np.uint8),
        "mask": np.full((SIZE, SIZE, 1), 255, np.uint8),
    }
    given["mask"][:, :3] = 0
    item = sdk.generate(path, seed=7, **given)[0]
    return path, given, item, item.save(tmp_path / "item.png")


def test_reproduce_with_the_images_it_was_made_from(filled):
    model, given, item, path = filled
    assert sdk.reproduce(path, model=model, **given)[0] == item


def test_reproduce_without_the_image_or_with_another_raises(filled):
    model, given, _, path = filled
    with pytest.raises(InvalidRequest, match=r"image is missing; give an image of 8 x 8 pixels"):
        sdk.reproduce(path, model=model)
    with pytest.raises(InvalidRequest, match="was made from another mask than this one"):
        sdk.reproduce(path, model=model, image=given["image"])
    with pytest.raises(InvalidRequest, match="was made from another image than this one"):
        sdk.reproduce(path, model=model, image=given["image"] ^ 1, mask=given["mask"])
    with pytest.raises(UnknownName, match="no control to be given for"):
        sdk.reproduce(path, model=model, label=3, **given)


def test_reproduce_scalar_control_cannot_be_given(saved, tiny_path):
    with pytest.raises(UnknownName, match="no control to be given for tiny 'label'"):
        sdk.reproduce(saved[1], model=tiny_path, label=2)


def aigc(*arguments):
    return CliRunner().invoke(cli.app, ["reproduce", *map(str, arguments)], catch_exceptions=False)


def test_aigc_reproduce_tells_of_every_file_and_fails_when_one_differs(saved, tiny, tiny_path, tmp_path):
    item, path = saved
    done = aigc(path, tiny.generate(seed=4)[0].save(tmp_path / "b.png"), "--model", tiny_path)
    assert (done.exit_code, done.stdout) == (0, f"{path}: identical\n{tmp_path / 'b.png'}: identical\n")
    edited = forge(tmp_path / "c.png", item, changed(item, seed=8))
    done = aigc(edited, path, tmp_path / "missing.png", "--model", tiny_path)
    first, second, third = done.stdout.splitlines()
    assert done.exit_code == 1
    assert first.startswith(f"{edited}: FAILED: ") and "of the values differ" in first
    assert second == f"{path}: identical"
    assert third.startswith(f"{tmp_path / 'missing.png'}: FAILED: Cannot read")


def test_aigc_reproduce_takes_images_as_paths(filled, tmp_path):
    model, given, _, path = filled
    for name, pixels in given.items():
        PIL.Image.fromarray(pixels[..., 0]).save(tmp_path / f"{name}.bmp")
    images = [part for name in given for part in ("-c", f"{name}={tmp_path / name}.bmp")]
    assert aigc(path, "--model", model, *images).stdout == f"{path}: identical\n"
