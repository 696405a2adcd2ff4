"""Controls that are pixels: what may be given for an image or a mask, and what the provenance keeps of them."""

import hashlib
import io
import json
import os
import zlib

import numpy as np
import PIL.Image
import pytest

import aigc_sdk as sdk
from aigc_sdk import cli
from aigc_sdk.card import ModelCard
from aigc_sdk.errors import InvalidModel, InvalidRequest, StorageError
from aigc_sdk.generation import selftest
from aigc_sdk.runtime.safety import check_model
from tiny_model import SIZE, write_pixel_model


@pytest.fixture
def path(tmp_path):
    return write_pixel_model(tmp_path / "pixels.onnx")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 1)).astype(np.uint8)


@pytest.fixture
def half():
    mask = np.zeros((SIZE, SIZE, 1), np.uint8)
    mask[:, : SIZE // 2] = 255
    return mask


def test_pixels_one_image_serves_all_items(path, image, half):
    made = sdk.generate(path, 3, seed=7, image=image, mask=half)
    for item in made:
        assert np.array_equal(item.data, np.where(half == 255, image, np.uint8(item.seed & 255)))


def test_pixels_left_out_take_the_default_level(path, image):
    assert np.array_equal(sdk.generate(path, image=image)[0].data, image)


@pytest.mark.parametrize(
    "form", ["array", "flat", "list", "tuple", "pil", "colour", "sixteen bits", "path", "text", "contents", "item"]
)
def test_pixels_may_be_given_in_many_forms(path, image, form, tmp_path):
    picture = PIL.Image.fromarray(image[..., 0])
    picture.save(tmp_path / "image.png")
    forms = {
        "array": image,
        "flat": image[..., 0],
        "list": [image],
        "tuple": (picture,),
        "pil": picture,
        "colour": picture.convert("RGB"),
        "sixteen bits": PIL.Image.fromarray(image[..., 0] * np.uint16(257)),
        "path": tmp_path / "image.png",
        "text": str(tmp_path / "image.png"),
        "contents": sdk.generate(path, image=image),
        "item": sdk.generate(path, image=image)[0],
    }
    (made,) = sdk.generate(path, image=forms[form])
    assert np.array_equal(made.data, image)


def test_pixels_that_are_transparent_lie_on_white(path):
    image = PIL.Image.new("RGBA", (SIZE, SIZE), (9, 9, 9, 0))
    image.paste((9, 9, 9, 255), (0, 0, SIZE, 1))
    (made,) = sdk.generate(path, image=image)
    assert (made.data[0] == 9).all() and (made.data[1:] == 255).all()


def test_pixels_for_each_item_say_how_many(path, image, half):
    images = np.stack([image, image[::-1], image[:, ::-1]])
    for given in (images, list(images), sdk.generate(path, image=images)):
        made = sdk.generate(path, seed=1, image=given, mask=half)
        assert np.array_equal(made.to_numpy()[:, :, : SIZE // 2], images[:, :, : SIZE // 2])


def test_pixels_of_a_mask_may_be_true_and_false(path, image, half):
    wanted = sdk.generate(path, seed=1, image=image, mask=half)
    assert np.array_equal(sdk.generate(path, seed=1, image=image, mask=half == 255).to_numpy(), wanted.to_numpy())


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({}, "image is missing; give an image of 8 x 8 pixels: a path, a PIL image, or uint8"),
        ({"image": np.zeros((9, 8, 1), np.uint8)}, r"image is uint8 \(9, 8, 1\); give an image of 8 x 8"),
        ({"image": np.zeros((8, 8, 3), np.uint8)}, r"image is uint8 \(8, 8, 3\)"),
        ({"image": np.zeros((8, 8, 1))}, r"image is float64 \(8, 8, 1\)"),
        ({"image": PIL.Image.new("L", (9, 8))}, r"image is uint8 \(8, 9, 1\)"),
        ({"image": 7}, "image is 7; give a path, a PIL image or an array"),
        ({"image": None}, "image is None; give a path"),
        ({"image": []}, "image has 0 values"),
        ({"image": np.zeros((0, 8, 8, 1), np.uint8)}, "image has 0 values"),
        ({"image": ""}, "image is ''; give a path"),
        ({"image": [np.zeros((8, 8), np.uint8), 3]}, r"image\[1\] is 3"),
        ({"image": [np.zeros((8, 8), np.uint8)] * 2, "n": 3}, "image has 2 values for 3 items"),
        ({"image": np.zeros((8, 8), np.uint8), "mask": np.zeros((8, 7), bool)}, r"mask is uint8 \(8, 7, 1\)"),
    ],
)
def test_pixels_that_cannot_be_used_are_refused(path, controls, message):
    with pytest.raises(InvalidRequest, match=message):
        sdk.generate(path, **controls)


def test_pixels_of_files_that_are_no_images_are_refused(path, image, tmp_path):
    for name, reason in ((".", "it is no file"), ("nothing.png", "No such file"), ("a" * 5000, "File name too long")):
        with pytest.raises(StorageError, match=rf"image: .*{name[:9]}.* cannot be read: {reason}") as raised:
            sdk.generate(path, image=tmp_path / name)
        assert len(str(raised.value)) < 400
    picture = tmp_path / "picture.png"
    PIL.Image.fromarray(image[..., 0]).save(picture)
    whole = picture.read_bytes()
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + whole[24:29]
    bomb = whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]
    for data, reason in ((b"text", r"\."), (whole[:60], ": .*truncated"), (bomb, r": .*limit of \d+ pixels\.")):
        picture.write_bytes(data)
        with pytest.raises(InvalidRequest, match=rf"image: .*picture\.png is no image that can be read{reason}"):
            sdk.generate(path, image=picture)
    opened = PIL.Image.open(io.BytesIO(whole[:60]))
    with pytest.raises(InvalidRequest, match=r"^image is no image that can be read: .*truncated"):
        sdk.generate(path, image=opened)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pixels_of_a_pipe_are_refused_instead_of_waited_for(path, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(StorageError, match=r"pipe\.png cannot be read: it is no file"):
        sdk.generate(path, image=tmp_path / "pipe.png")


def test_pixels_are_in_the_provenance_as_hash_and_shape(path, image):
    (made,) = sdk.generate(path, image=image)
    assert made.provenance["controls"]["image"] == {
        "sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        "shape": [SIZE, SIZE, 1],
    }
    json.dumps(made.provenance)


def test_pixels_on_the_command_line_are_a_path(path, image, tmp_path, monkeypatch):
    PIL.Image.fromarray(image[..., 0]).save(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["aigc", "generate", str(path), "-c", "image=in.png", "-o", "out"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    with PIL.Image.open(tmp_path / "out" / "00.png") as made:
        assert np.array_equal(np.asarray(made), image[..., 0])


def test_pixels_of_golden_items_are_fed_and_checked(path):
    passed, measured = selftest(path)
    assert passed and measured.startswith("0.0e+00")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fed: fed | {"image": [1, 2]}, "'image' in the form of another kind"),
        (lambda fed: fed | {"image": fed["image"] | {"shape": [2, 8, 4, 2]}}, r"'image' of shape \(2, 8, 4, 2\)"),
        (lambda fed: fed | {"image": fed["image"] | {"data": "?"}}, "cannot be unpacked"),
        (lambda fed: fed | {"image": {"shape": [2, 8, 8, 1]}}, "golden"),
    ],
)
def test_pixels_of_golden_items_that_do_not_fit_are_refused(path, change, message):
    import onnx

    model = onnx.load(path)
    card = json.loads(model.metadata_props[0].value)
    card["golden"]["controls"] = change(card["golden"]["controls"])
    model.metadata_props[0].value = json.dumps(card)
    with pytest.raises(InvalidModel, match=message):
        check_model(model.SerializeToString(), "pixels.onnx")


def test_pixels_in_a_card_are_read_alike_with_and_without_checks(path):
    import onnx

    text = onnx.load(path).metadata_props[0].value
    assert ModelCard.from_checked_json(text) == ModelCard.from_json(text)
