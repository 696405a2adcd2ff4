"""Images as a person sees them, brought to one form; messy folders, their report, tables, and the file of pixels."""

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner
from PIL import ImageCms, ImageOps

from aigc_image import decoding as pixels
from aigc_image import images
from aigc_image.data import load_data
from aigc_image.dataset import ImageDataset
from aigc_image.images import ImageOptions, brought_to, decode, probe
from aigc_image.pixels import count_channels, read_pixels
from aigc_sdk.cli import app
from aigc_sdk.data import workers as worker_processes
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.data.workers import WorkerLost, Workers
from aigc_sdk.errors import InvalidConfig, InvalidData, StorageError
from aigc_sdk.files import cache_folder
from aigc_sdk.training import Run, loop
from test_data import COLOUR, GREY, PNG, bomb_png, png, same, write, write_image
from test_files import remove_home

RNG = np.random.default_rng(1)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixel(data, options=None, side=4):
    """Decode the bytes of a file and return its first pixel."""
    found = decode(data, (side, side, 3), options or ImageOptions(mode="rgb"))
    return found if isinstance(found, Rejected) else found[0, 0].tolist()


# One image


def test_image_of_sixteen_bits_is_scaled_to_eight():
    for kind in ("PNG", "TIFF"):
        values = np.full((4, 4), 257 * 100, np.uint16)
        assert pixel(saved(PIL.Image.fromarray(values), kind)) == [100, 100, 100]
    for value, expected in ((65535, 255), (0, 0), (128, 0), (129, 1)):
        assert pixel(saved(PIL.Image.fromarray(np.full((4, 4), value, np.uint16)), "PNG")) == [expected] * 3


def test_image_of_floats_from_0_to_1_is_scaled_and_of_others_rejected():
    assert pixel(saved(PIL.Image.fromarray(np.full((4, 4), 0.2, np.float32)), "TIFF")) == [51, 51, 51]
    for value in (1.5, -0.1, np.nan):
        found = pixel(saved(PIL.Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF"))
        assert found.reason == "unreadable" and "not within 0 and 1" in found.detail


def test_image_of_one_bit_is_black_and_white():
    assert pixel(saved(PIL.Image.new("1", (4, 4), 1), "PNG")) == [255, 255, 255]


def test_image_with_a_palette_has_its_colours_and_its_transparency():
    image = PIL.Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert pixel(saved(image, "PNG")) == [10, 20, 30]
    found = decode(saved(image, "PNG", transparency=1), (4, 4, 4), ImageOptions())
    assert found[0, 0].tolist() == [10, 20, 30, 0]


def test_image_of_printing_colours_looks_right():
    for kind in ("JPEG", "TIFF"):
        red = PIL.Image.new("CMYK", (4, 4), (0, 255, 255, 0))
        r, g, b = pixel(saved(red, kind))
        assert r > 240 and g < 15 and b < 15


def test_image_with_a_profile_of_other_colours_is_brought_to_srgb():
    # The profile of a screen on which red and blue are exchanged.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = srgb.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    other = other.replace("sRGB".encode("utf-16-be"), "none".encode("utf-16-be"))
    image = PIL.Image.new("RGB", (4, 4), (120, 100, 60))
    assert np.allclose(pixel(saved(image, "PNG", icc_profile=other)), [60, 100, 120], atol=1)
    for profile in (srgb, b"no profile at all", other[:200]):
        assert pixel(saved(image, "PNG", icc_profile=profile)) == [120, 100, 60]
    found = decode(saved(image.convert("RGBA"), "PNG", icc_profile=other), (4, 4, 4), ImageOptions())
    assert np.allclose(found[0, 0], [60, 100, 120, 255], atol=1)


def test_image_that_moves_is_its_first_frame():
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ((200, 10, 10), (10, 200, 10), (10, 10, 200))]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.allclose(pixel(data), [200, 10, 10], atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_turned_by_the_camera_is_upright_and_of_the_upright_size(tmp_path, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    big = np.repeat(np.repeat(COLOUR, 8, 1), 8, 2)
    for i in range(2):
        write_image(tmp_path / f"{i}.jpg", big[i], exif=exif, quality=95)
    found = load_data(tmp_path).images
    with PIL.Image.open(tmp_path / "1.jpg") as image:
        assert np.array_equal(found[1], np.asarray(ImageOps.exif_transpose(image)))
    assert found.shape[1:3] == ((40, 32) if orientation < 5 else (32, 40))


def halves(width, height):
    """Red at the left, blue at the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return PIL.Image.fromarray(pixels)


def test_fit_crops_pads_or_stretches():
    wide = saved(halves(40, 20), "PNG")
    crop, pad, stretch = (decode(wide, (8, 8, 3), ImageOptions(8, fit)) for fit in ("crop", "pad", "stretch"))
    assert crop[0, 0].tolist() == [255, 0, 0] and crop[7, 7].tolist() == [0, 0, 255]
    assert pad[0].max() == pad[7].max() == 0 and pad[4, 0, 0] == 255 and pad[4, 7, 2] == 255
    assert stretch[0, 0].tolist() == [255, 0, 0] and np.array_equal(stretch[0], stretch[7])
    framed = saved(ImageOps.expand(halves(20, 20), (10, 0), (0, 255, 0)), "PNG")
    assert decode(framed, (20, 20, 3), ImageOptions(20))[..., 1].max() == 0  # both sides were cut


def test_fit_of_a_transparent_image_pads_with_nothing_and_mixes_no_hidden_colour():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 1] = 255  # green, where it is not seen
    pixels[:, ::2] = (255, 0, 0, 255)
    found = decode(saved(PIL.Image.fromarray(pixels), "PNG"), (4, 4, 4), ImageOptions(4))
    assert found[..., 1].max() == 0 and found[..., 0].min() == 255
    padded = decode(saved(halves(8, 4).convert("RGBA"), "PNG"), (8, 8, 4), ImageOptions(8, "pad"))
    assert padded[0].max() == 0 and padded[4, 0].tolist() == [255, 0, 0, 255]


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 100), (51, 224)])
def test_image_that_is_transparent_lies_on_white_where_alpha_is_left_out(alpha, expected):
    image = PIL.Image.new("RGBA", (4, 4), (100, 100, 100, alpha))
    for options in (ImageOptions(mode="rgb"), ImageOptions(8, "pad", "rgb")):
        assert decode(saved(image, "PNG"), (*(options.shape or (4, 4)), 3), options)[1, 1].tolist() == [expected] * 3
    assert decode(saved(image, "PNG"), (4, 4, 1), ImageOptions(mode="grey"))[0, 0].tolist() == [expected]
    assert brought_to(np.asarray(image)[None], ImageOptions(mode="grey"))[0, 0, 0].tolist() == [expected]
    padded = decode(saved(image.crop((0, 0, 4, 2)), "PNG"), (4, 4, 3), ImageOptions(4, "pad", "rgb"))
    assert padded[0, 0].tolist() == [0, 0, 0]  # as around an image that is not transparent


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(samples, depth, colour, before=b"", behind=b""):
    """Write samples (height, width, channels) of a depth by hand, with chunks before and behind the pixels."""
    height, width = samples.shape[:2]
    bits = (samples.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
    rows = b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in bits)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + behind + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("level", [None, 0, 1, -1])
def test_grey_of_every_depth_has_its_levels_and_its_transparent_one(depth, level):
    most = 2**depth - 1
    samples = np.array([[0, 1, most, most // 2], [most, 0, 1, 1]])[..., None]
    key = most if level == -1 else level
    before = b"" if key is None else chunk(b"tRNS", struct.pack(">H", key))
    wanted = np.rint(samples * (255 / most)).astype(np.uint8)
    if key is not None:
        wanted = np.dstack([wanted, wanted, wanted, np.where(samples == key, 0, 255)]).astype(np.uint8)
    data = png_of(samples, depth, 0, before)
    assert probe([data], ImageOptions()) == [wanted.shape]
    assert np.array_equal(decode(data, wanted.shape, ImageOptions()), wanted)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("key", [None, (1, 2, 3), (700, 2, 65535)])
def test_colour_of_every_depth_has_its_transparent_one(depth, key):
    colours = np.array([[[1, 2, 3], [3, 2, 1]], [[0, 0, 0], [255, 255, 255]]]) * (257 if depth == 16 else 1)
    key = None if key is None or (depth == 8 and max(key) > 255) else key
    if key is not None:
        colours[0, 0] = key
    before = b"" if key is None else chunk(b"tRNS", struct.pack(">HHH", *key))
    wanted = colours >> (depth - 8)
    if key is not None:  # 16 bits are compared by their upper 8, which (0, 0, 0) has too
        alpha = np.array([[0, 255], [0 if depth == 16 and max(key) < 256 else 255, 255]])
        wanted = np.dstack([wanted, alpha])
    found = decode(png_of(colours, depth, 2, before), wanted.shape, ImageOptions())
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [[0], [255, 0], [10, 200]])
def test_palette_of_every_depth_has_the_alpha_of_each_colour(depth, alphas):
    palette = RNG.integers(0, 256, (2**depth, 3))
    samples = RNG.integers(0, 2**depth, (6, 7, 1))
    before = chunk(b"PLTE", palette.astype(np.uint8).tobytes()) + chunk(b"tRNS", bytes(alphas))
    alpha = np.array([*alphas, *[255] * (2**depth - len(alphas))])
    wanted = np.dstack([palette[samples[..., 0]], alpha[samples[..., 0]]])
    assert np.array_equal(decode(png_of(samples, depth, 3, before), (6, 7, 4), ImageOptions()), wanted)


@pytest.mark.parametrize(("colour", "channels"), [(4, 2), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_alpha_of_every_depth_is_kept(colour, channels, depth):
    samples = RNG.integers(0, 2**depth, (6, 7, channels))
    eight = samples >> (depth - 8)
    wanted = eight if channels == 4 else eight[..., [0, 0, 0, 1]]
    assert np.array_equal(decode(png_of(samples, depth, colour), (6, 7, 4), ImageOptions()), wanted)


def tiff_of(data, **tags):
    """Write a TIFF of 4 x 3 pixels by hand; tags in the place of those of 16 bits of grey."""
    given = {"width": 4, "height": 3, "bits": 16, "compression": 1, "photometric": 1, "samples": 1, "planes": 1}
    given |= {"format": 1, "orientation": 1, **tags}
    names = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "orientation": 274}
    names |= {"samples": 277, "planes": 284, "format": 339}
    places = {"offsets": 8, "sizes": len(data)}
    samples, end = given["samples"], 8 + len(data)
    lists, entries = b"", list[tuple[int, int, int, int]]()
    if given["planes"] == 2 and samples > 1:
        size = len(data) // samples
        places = {"offsets": [8 + i * size for i in range(samples)], "sizes": [size] * samples}
    for number, values in [(273, places["offsets"]), (279, places["sizes"])]:
        if isinstance(values, list):
            entries.append((number, 4, len(values), end + len(lists)))
            lists += struct.pack(f"<{len(values)}I", *values)
        else:
            entries.append((number, 4, 1, values))
    for name, number in names.items():
        if name in ("bits", "format") and samples > 2:
            entries.append((number, 3, samples, end + len(lists)))
            lists += struct.pack(f"<{samples}H", *[given[name]] * samples)
        else:
            entries.append((number, 3, 1, given[name]))
    entries.append((278, 3, 1, given["height"]))
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    start = end + len(lists)
    return struct.pack("<2sHI", b"II", 42, start) + data + lists + struct.pack("<H", len(entries)) + table + bytes(4)


def test_tiff_whose_zero_is_white_and_one_of_twelve_bits_are_read_right():
    levels = RNG.integers(0, 65536, (3, 4))
    for photometric, wanted in ((1, levels), (0, 65535 - levels)):
        data = tiff_of(levels.astype("<u2").tobytes(), photometric=photometric)
        assert np.array_equal(decode(data, (3, 4, 1), ImageOptions())[..., 0], np.rint(wanted / 257))
    floats = RNG.random((3, 4))
    for photometric, wanted in ((1, floats), (0, 1 - floats)):
        data = tiff_of(floats.astype("<f4").tobytes(), bits=32, format=3, photometric=photometric)
        assert np.abs(decode(data, (3, 4, 1), ImageOptions())[..., 0] - wanted * 255).max() <= 0.51
    twelve = levels >> 4
    pairs = (twelve.ravel()[::2] << 12) | twelve.ravel()[1::2]
    packed = b"".join(int(pair).to_bytes(3, "big") for pair in pairs)
    found = decode(tiff_of(packed, bits=12), (3, 4, 1), ImageOptions())
    assert np.array_equal(found[..., 0], np.rint(twelve * (255 / 4095)))


def test_tiff_that_pillow_reads_as_other_pixels_is_rejected():
    found = decode(tiff_of(bytes(12), bits=8, format=2), (3, 4, 1), ImageOptions())
    assert found == Rejected("unreadable", "its levels are signed numbers of 8 bits")
    planes = RNG.integers(0, 65536, (3, 3, 4))
    data = planes.astype("<u2").tobytes()
    found = decode(tiff_of(data, photometric=2, samples=3, planes=2), (3, 4, 3), ImageOptions())
    assert found.reason == "unreadable" and "planes of their own" in found.detail
    together = planes.transpose(1, 2, 0).astype("<u2").tobytes()
    found = decode(tiff_of(together, photometric=2, samples=3), (3, 4, 3), ImageOptions())
    assert np.array_equal(found, planes.transpose(1, 2, 0) >> 8)


EXIF_PROFILE, XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"


def exif_of(lies):
    exif = PIL.Image.Exif()
    exif[0x0112] = lies
    return exif.tobytes()


def profile(lies):
    data = b"Exif\0\0" + exif_of(lies).removeprefix(b"Exif\0\0")
    return f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()


# What says how a PNG lies, as a chunk.
SAID_BY = {
    "eXIf": lambda lies: chunk(b"eXIf", exif_of(lies).removeprefix(b"Exif\0\0")),
    "tEXt": lambda lies: chunk(b"tEXt", EXIF_PROFILE + b"\0" + profile(lies)),
    "zTXt": lambda lies: chunk(b"zTXt", EXIF_PROFILE + b"\0\0" + zlib.compress(profile(lies))),
    "iTXt": lambda lies: chunk(b"iTXt", EXIF_PROFILE + bytes(5) + profile(lies)),
    "XMP": lambda lies: chunk(b"iTXt", XMP + bytes(5) + b'<x tiff:Orientation="%d"/>' % lies),
    "packed XMP": lambda lies: chunk(
        b"iTXt", XMP + b"\0\1\0\0\0" + zlib.compress(b"<tiff:Orientation>%d</tiff:Orientation>" % lies)
    ),
}


def upright_by_hand(pixels, lies):
    turns = {5: 0, 6: -1, 7: 2, 8: 1, 1: 0, 2: 0, 3: 2, 4: 2}
    turned = np.rot90(pixels, turns[lies])
    if lies in (2, 4):
        turned = turned[:, ::-1]
    return turned.transpose(1, 0, 2) if lies in (5, 7) else turned


@pytest.mark.parametrize("lies", range(1, 9))
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("said_by", SAID_BY)
def test_png_is_turned_and_known_to_be_by_all_that_says_how_it_lies(said_by, behind, lies):
    told = SAID_BY[said_by](lies)
    data = png_of(COLOUR[0], 8, 2, b"" if behind else told, told if behind else b"")
    wanted = upright_by_hand(COLOUR[0], lies)
    assert probe([data], ImageOptions()) == [wanted.shape]
    assert np.array_equal(decode(data, wanted.shape, ImageOptions()), wanted)
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(ImageOps.exif_transpose(image), wanted)  # another who reads it


@pytest.mark.parametrize("lies", range(1, 9))
@pytest.mark.parametrize("how", ["exif", "xmp"])
@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "JPEG", "MPO"])
def test_file_of_every_kind_is_turned_and_known_to_be(kind, how, lies):
    pixels = np.kron(COLOUR[0], np.ones((8, 8, 1), np.uint8))
    xmp = b'<x tiff:Orientation="%d"/>' % lies
    said = {"exif": exif_of(lies)} if how == "exif" else {"xmp": xmp}
    if kind == "TIFF":
        said = {"tiffinfo": {0x0112: lies} if how == "exif" else {700: xmp}}
    options = {"WEBP": {"lossless": True}, "MPO": {"save_all": True}}.get(kind, {})
    data = saved(PIL.Image.fromarray(pixels), kind, **said, **options)
    if kind in ("JPEG", "MPO"):
        pixels = np.asarray(PIL.Image.open(io.BytesIO(saved(PIL.Image.fromarray(pixels), "JPEG"))))
    wanted = upright_by_hand(pixels, lies)
    assert probe([data], ImageOptions()) == [wanted.shape]
    assert np.array_equal(decode(data, wanted.shape, ImageOptions()), wanted)


@pytest.mark.parametrize("lies", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGBA"])
def test_tiff_that_lies_on_its_side_is_the_same_in_a_file_and_in_memory(tmp_path, mode, lies):
    levels = RNG.integers(0, 256, (4, 6, 4), dtype=np.uint8)
    grey, deep = levels[..., 0], levels[..., 0].astype(np.uint16) * 257
    pixels = {"L": grey, "P": grey, "I;16": deep, "RGBA": levels}[mode]
    image = PIL.Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    data = saved(image, "TIFF", tiffinfo={0x0112: lies})
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    shape = (4, 6, count_channels(image))
    wanted = upright_by_hand(decode(saved(image, "TIFF"), shape, ImageOptions()), lies)
    for item in (data, str(path)):
        assert probe([item], ImageOptions()) == [wanted.shape]
        assert np.array_equal(decode(item, wanted.shape, ImageOptions()), wanted)
    with PIL.Image.open(path) as opened:
        assert np.array_equal(read_pixels(opened, wanted.shape[2], "image"), wanted)
        assert opened.filename == str(path)


@pytest.mark.parametrize("broken", [b"\nexif\n 8\nzz\n", b"", b"\n\n\n\xff", b"\nexif\n 4\n45786966\n"])
def test_image_whose_orientation_cannot_be_read_is_taken_as_it_is(broken):
    for before in (chunk(b"tEXt", EXIF_PROFILE + b"\0" + broken), chunk(b"eXIf", broken)):
        for told in ((before, b""), (b"", before)):
            data = png_of(COLOUR[0], 8, 2, *told)
            assert probe([data], ImageOptions()) == [(5, 4, 3)]
            assert np.array_equal(decode(data, (5, 4, 3), ImageOptions()), COLOUR[0])


def test_folder_of_png_turned_by_what_is_behind_their_pixels_is_read_without_a_size(tmp_path):
    for i, image in enumerate(COLOUR):
        told = SAID_BY["eXIf" if i % 2 else "XMP"](6)
        write(tmp_path / f"{i}.png", png_of(image, 8, 2, behind=told))
    assert same(load_data(tmp_path), np.stack([upright_by_hand(image, 6) for image in COLOUR]))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (2, 400), (7, 3), (65, 1)])
def test_fit_of_a_strip_shows_it(fit, shape):
    data = png(np.full((*shape, 3), 200, np.uint8))
    for size in (32, (16, 48)):
        found = decode(data, (*(ImageOptions(size).shape), 3), ImageOptions(size, fit))
        seen = found[found.any(2)]
        assert len(seen) >= (16 if fit == "pad" else found[..., 0].size) and (seen == 200).all()


def test_fit_of_a_large_jpeg_is_close_to_that_of_the_whole_image():
    image = PIL.Image.fromarray(RNG.integers(0, 256, (12, 16, 3), np.uint8)).resize((1600, 1200), 3)
    found = decode(saved(image, "JPEG", quality=95), (32, 32, 3), ImageOptions(32))
    expected = np.asarray(ImageOps.fit(image, (32, 32), 1))
    assert np.abs(found.astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 5000}, {"size": (3,)}, {"size": (3, -1)}, {"size": 2.5}])
def test_option_of_an_impossible_size_raises(options):
    with pytest.raises(InvalidConfig, match=r"The image size is .*; give pixels a side, or \(height, width\), of 1 to"):
        ImageOptions(**options)


@pytest.mark.parametrize("options", [{"fit": "squash"}, {"mode": "L"}])
def test_option_that_is_unknown_raises_and_names_the_known(options):
    with pytest.raises(InvalidConfig, match=r"there are (crop, pad, stretch|auto, grey, rgb, rgba)"):
        ImageOptions(**options)


def test_options_of_arrays_bring_them_to_the_same_form_as_those_of_files(tmp_path):
    options = ImageOptions((8, 6), "pad", "rgb")
    for i, image in enumerate(GREY):
        write_image(tmp_path / f"{i}.png", image)
    assert same(load_data(GREY, options), load_data(tmp_path, options).images)
    assert load_data(GREY, options).images.shape == (6, 8, 6, 3)


# Messy folders


def test_folder_with_everything_in_it_gives_the_good_ones_and_tells_of_the_others(tmp_path, caplog):
    for i in range(30):
        label = "cat" if i % 2 else "dog"
        write(tmp_path / label / f"{i:02}.png", png(RNG.integers(0, 256, (6, 6, 3), np.uint8)))
    first = (tmp_path / "cat" / "01.png").read_bytes()
    write(tmp_path / "cat" / "copy.png", first)
    write(tmp_path / "dog" / "copy.bmp", saved(PIL.Image.open(io.BytesIO(first)), "BMP"))
    write(tmp_path / "dog" / "broken.png", first[:-30])
    write(tmp_path / "dog" / "bomb.png", bomb_png())
    write(tmp_path / "dog" / "small.png", PNG)
    write(tmp_path / "dog" / ".hidden.png", b"")
    write(tmp_path / "owl" / "only.png", png(RNG.integers(0, 256, (6, 6, 3), np.uint8)))
    write(tmp_path / "owl" / "Thumbs.db", b"")
    (tmp_path / "dog" / "loop").symlink_to(tmp_path)
    (tmp_path / "dog" / "gone.png").symlink_to("nowhere")
    (tmp_path / "dog" / "itself.png").symlink_to("itself.png")
    os.mkfifo(tmp_path / "dog" / "pipe.png")

    data = load_data(tmp_path)

    assert (data.n, data.label_names) == (31, ("cat", "dog", "owl"))
    assert np.bincount(data.labels).tolist() == [15, 15, 1]
    report = data.report.to_json()
    assert json.loads(json.dumps(report)) == report
    assert report["n"] == 31
    assert {reason: skipped["count"] for reason, skipped in report["skipped"].items()} == {
        "folder seen already": 1,
        "hidden": 1,
        "no image by its name": 1,
        "copy": 1,
        "copy with another label": 1,
        "unreadable": 3,
        "too large": 1,
        "wrong shape": 1,
        "missing": 1,
    }
    assert report["skipped"]["copy with another label"]["examples"] == ["dog/copy.bmp: of cat/01.png"]
    assert len(data.report.left_out) == 11 and "copy\tcat/copy.png: of cat/01.png" in data.report.left_out
    assert report["skipped"]["wrong shape"]["examples"] == ["dog/small.png: 4 x 5 pixels"]
    assert "31 images read, 11 left out" in caplog.text and "only one image of each of these labels: owl" in caplog.text


def test_folder_of_all_sizes_is_read_with_a_size(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.png", png(RNG.integers(0, 256, (4 + i, 9 - i), np.uint8)))
    with pytest.raises(InvalidData, match=r"4 sizes; 1 of 4 are 9 x 4 pixels, 1\.png is not"):
        load_data(tmp_path)
    assert load_data(tmp_path, ImageOptions(8)).images.shape == (4, 8, 8, 1)
    assert load_data(tmp_path, ImageOptions(8, mode="rgba")).images[..., 3].min() == 255


def test_folder_linked_into_a_folder_is_a_label_as_well(tmp_path):
    for i, where in enumerate(("elsewhere/a.png", "elsewhere/b.png", "data/cat/c.png")):
        write_image(tmp_path / where, GREY[i])
    (tmp_path / "data" / "an owl").symlink_to(tmp_path / "elsewhere")
    assert same(load_data(tmp_path / "data"), GREY[:3], [0, 0, 1], ("an owl", "cat"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="takes root to become another user")
def test_folder_that_one_may_not_read_in_part_is_read_without_it(own_cache):
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as cache:
        for i in range(3):
            write_image(Path(name, "cat", f"{i}.png"), GREY[i])
        write_image(Path(name, "dog", "3.png"), GREY[3])
        Path(name).chmod(0o755)
        Path(name, "cat", "0.png").chmod(0)
        Path(name, "dog").chmod(0)
        Path(cache).chmod(0o777)
        os.environ["AIGC_SDK_CACHE"] = cache
        os.seteuid(65534)
        try:
            report = load_data(name).report
        finally:
            os.seteuid(0)
        assert report.n == 2
        assert report.skipped["no permission"].examples == ["dog", "cat/0.png: Permission denied"]


def test_array_keeps_its_copies_and_tells_of_them():
    data = load_data(np.concatenate([GREY, GREY[:2]]))
    assert data.n == 8 and data.report.skipped == {}
    assert data.report.notes == ["2 are exact copies of others, and kept"]


@pytest.mark.parametrize("images", [GREY[:1], np.zeros((9, 4, 4), np.uint8)])
def test_array_of_one_image_or_of_all_the_same_raises(images):
    with pytest.raises(
        InvalidData, match=r"has (only one image|images that are all the same); give at least two different ones"
    ):
        load_data(images)


def test_folder_of_photographs_trains_with_options_and_the_run_tells_them(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_export_all", lambda run, family: None)  # it takes long, and is tested elsewhere
    for i in range(24):
        size = (12 + i % 5, 10 + i % 3, 3)
        write(tmp_path / "data" / "ab"[i % 2] / f"{i}.png", png(RNG.integers(0, 256, size, np.uint8)))
    broken = [write(tmp_path / "data" / "a" / f"broken\n{i}.png", PNG[:40]).name for i in range(7)]
    options = ["image_size=[8, 16]", "image_fit=stretch", "image_mode=grey", "steps=2", "latent=2", "width=8"]
    out = tmp_path / "run"
    arguments = [argument for option in options for argument in ("-c", option)]
    done = CliRunner().invoke(app, ["train", "vae", str(tmp_path / "data"), "--out", str(out), *arguments])
    assert done.exit_code == 0, done.output
    record = Run.open(out).record
    assert record.shape == (8, 16, 1)
    left_out = (out / "left_out.txt").read_text().splitlines()
    assert len(left_out) == len(broken) == 7 and left_out[0].startswith("unreadable\ta/broken\\n0.png: ")
    # With what the run says, the same data is read again.
    again = load_data(tmp_path / "data", ImageOptions.of_config(record.config))
    assert again.fingerprint == record.data.fingerprint


# The file of pixels


@pytest.fixture
def colours(tmp_path):
    """A folder of 40 images with labels, some of which are left out, and what it gives when read into memory."""
    for i in range(40):
        write(tmp_path / "f" / f"{i % 3}" / f"{i:02}.png", png(RNG.integers(0, 256, (6, 5, 3), np.uint8)))
    write(tmp_path / "f" / "0" / "broken.png", PNG[:40])
    write(tmp_path / "f" / "1" / "copy.png", (tmp_path / "f" / "1" / "01.png").read_bytes())
    return tmp_path / "f", load_data(tmp_path / "f")


@pytest.fixture
def no_memory(monkeypatch):
    """Let no data set be held in memory."""
    from aigc_image import cleaning

    monkeypatch.setattr(pixels, "MEMORY_BYTES", 0)
    monkeypatch.setattr(cleaning, "MEMORY_BYTES", 0)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_file_of_pixels_gives_the_same_data_as_memory(colours, no_memory, workers):
    folder, expected = colours
    data = load_data(folder, workers=workers)
    assert isinstance(data.images, pixels.PixelFile) and isinstance(expected.images, np.ndarray)
    assert same(data, expected.images, expected.labels, expected.label_names)
    assert data.fingerprint == expected.fingerprint and data.report == expected.report
    for ours, theirs in zip(data.split(0.2, 0.2).values(), expected.split(0.2, 0.2).values(), strict=True):
        assert np.array_equal(ours, theirs)
    rows = np.array([3, 0, 39, 3])
    assert np.array_equal(data.pixels(rows), expected.images[rows])
    for index in (5, slice(2, 9), np.array([], np.int64), np.arange(40) % 2 == 0):
        assert np.array_equal(data.images[index], expected.images[index])


def test_fingerprint_is_what_it_always_was():
    # By the rule itself, written out once more: cards in the field depend on it.
    labels = np.array([1, 0, 1, 1, 0, 0])
    header = json.dumps([[6, 5, 4, 1], ["0", "1"]]).encode()
    expected = hashlib.sha256(header + GREY.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    assert load_data((GREY, labels)).fingerprint == expected
    place = [int.from_bytes(hashlib.blake2b(each.tobytes(), digest_size=8).digest(), "big") / 2**64 for each in GREY]
    assert load_data(GREY).split(0, 0.5)["test"].tolist() == [i for i in range(6) if place[i] < 0.5]


def test_file_of_pixels_is_used_again_until_something_changes(colours, no_memory, monkeypatch):
    folder, _ = colours
    first = load_data(folder, workers=1)
    assert len(list((cache_folder() / "pixels").iterdir())) == 2
    monkeypatch.setattr(pixels, "_decode_to_file", None)  # is not called
    assert load_data(folder).fingerprint == first.fingerprint
    monkeypatch.undo()


def test_file_of_pixels_that_was_cut_or_is_of_other_files_is_made_again(colours, no_memory):
    folder, _ = colours
    first = load_data(folder, workers=0).fingerprint
    (path,) = (cache_folder() / "pixels").glob("*.bin")
    path.write_bytes(path.read_bytes()[:-1])
    assert load_data(folder, workers=0).fingerprint == first
    path.with_suffix(".json").write_bytes(b"{")
    assert load_data(folder, workers=0).fingerprint == first
    write(folder / "0" / "00.png", png(RNG.integers(0, 256, (6, 5, 3), np.uint8)))
    assert load_data(folder, workers=0).fingerprint != first
    assert load_data(folder, ImageOptions(4), workers=0).images.shape == (40, 4, 4, 3)


def test_file_of_pixels_that_fits_into_memory_is_opened_once(colours, monkeypatch):
    folder, expected = colours
    monkeypatch.setattr(pixels.PixelFile, "take", None)  # is not called
    assert same(load_data(folder, workers=1), expected.images, expected.labels, expected.label_names)


def test_file_of_pixels_that_shrinks_in_use_raises(colours, no_memory):
    data = load_data(colours[0], workers=0)
    (path,) = (cache_folder() / "pixels").glob("*.bin")
    os.truncate(path, 100)
    with pytest.raises(StorageError, match=r"is cut short; it was changed while it was in use"):
        data.pixels(np.arange(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_file_of_pixels_is_read_right_by_processes_that_were_forked(tmp_path):
    rows = np.arange(256, dtype=np.uint8).repeat(12).reshape(256, 2, 2, 3)
    file = pixels.PixelFile(Path(write(tmp_path / "rows.bin", rows.tobytes())), (2, 2, 3), np.arange(256))
    script = RNG.integers(0, 256, (4, 3000))
    children = []
    for order in script:
        if not (child := os.fork()):
            right = all(np.array_equal(file[row], rows[row]) for row in order)
            os._exit(0 if right else 1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_file_of_pixels_is_read_right_where_there_is_no_pread(tmp_path, monkeypatch):
    rows = np.arange(40, dtype=np.uint8).repeat(12).reshape(40, 2, 2, 3)
    file = pixels.PixelFile(Path(write(tmp_path / "rows.bin", rows.tobytes())), (2, 2, 3), np.arange(40)[::-1])
    wanted = file[np.array([3, 39, 0, 3])]
    monkeypatch.delattr(os, "pread")
    assert np.array_equal(wanted, rows[[36, 0, 39, 36]]) and np.array_equal(file[np.array([3, 39, 0, 3])], wanted)


def test_cache_loses_what_is_old_when_something_new_comes(colours, no_memory):
    folder = cache_folder() / "pixels"
    days = {"old.bin": 31, "old.json": 31, "new.bin": 29, ".left.tmp": 2, ".under-way.tmp": 0}
    for name, age in days.items():
        write(folder / name, b"")
        os.utime(folder / name, (time.time() - age * 86400,) * 2)
    load_data(colours[0], workers=0)
    assert {path.name for path in folder.iterdir()} & days.keys() == {"new.bin", ".under-way.tmp"}


def test_disk_that_is_too_full_raises_before_anything_is_written(colours, no_memory, monkeypatch):
    usage = pixels.shutil.disk_usage(colours[0])._replace(free=100)
    monkeypatch.setattr(pixels.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"takes 0.0 GB as pixels and .* has 0.0 GB left; make room"):
        load_data(colours[0], workers=0)
    assert list((cache_folder() / "pixels").iterdir()) == []


def test_few_images_need_no_cache_and_many_say_how_to_name_one(colours, monkeypatch):
    remove_home(monkeypatch)
    folder, expected = colours
    assert same(load_data(folder), expected.images, expected.labels, expected.label_names)
    with pytest.raises(StorageError, match="name a folder in AIGC_SDK_CACHE"):
        load_data(folder, workers=1)


def test_script_without_a_main_guard_can_use_workers(colours, tmp_path):
    script = (
        "from aigc_image.data import load_data\nimport sys\nprint('once')\nprint(load_data(sys.argv[1], workers=2).n)"
    )
    write(tmp_path / "script.py", script.encode())
    write(tmp_path / "random.py", b"raise SystemExit('the wrong random')")  # where the user is
    done = subprocess.run(
        [sys.executable, "-P", tmp_path / "script.py", colours[0]], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "once\n40\n"), done.stderr


def test_worker_that_dies_costs_its_call_alone():
    with Workers(2) as workers:
        found = list(workers.map(os._exit, [(0,), (1,)]))
        assert [type(each) for each in found] == [WorkerLost, WorkerLost]
        assert list(workers.map(abs, [(-i,) for i in range(20)])) == list(range(20))
        with pytest.raises(ZeroDivisionError):
            list(workers.map(divmod, [(1, 0)]))
        with pytest.raises(AttributeError):
            list(workers.map(abs, [(lambda: 1,)]))  # cannot be pickled
        assert list(workers.map(abs, [(-3,)] * 3)) == [3, 3, 3]


def test_worker_that_hangs_costs_its_call_alone_and_says_how_long_it_took():
    with Workers(2) as workers:
        assert list(workers.map(abs, [(-1,)] * 4)) == [1] * 4
        found = list(workers.map(time.sleep, [(0,), (600,), (0,), (0,)], limit_s=3))
        assert [type(each) for each in found] == [type(None), WorkerLost, type(None), type(None)]
        assert str(found[1]) == "it took longer than 3 s"
        assert list(workers.map(abs, [(-3,)] * 3)) == [3, 3, 3]


def test_worker_that_hangs_does_not_hold_up_one_who_stops_waiting():
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        for _ in workers.map(time.sleep, [(0,), (600,), (600,), (600,)]):
            raise KeyboardInterrupt
    assert time.monotonic() - began < 300


class Deadly:
    """Ends the process that unpickles it, as an image does that crashes a decoder; or hangs."""

    def __init__(self, *, hangs=False):
        self.hangs = hangs

    def __reduce__(self):
        return (time.sleep, (600,)) if self.hangs else (os._exit, (1,))


@pytest.mark.parametrize(("hangs", "detail"), [(False, "its process ended"), (True, "it took longer than 15 s")])
def test_image_that_ends_its_process_or_hangs_is_left_out_and_named(monkeypatch, hangs, detail):
    monkeypatch.setattr(worker_processes, "_CHUNK_S", 2.0)
    monkeypatch.setattr(worker_processes, "_ITEM_S", 15.0)
    items = [np.full((4, 4), i, np.uint8) for i in range(40)]
    items[20] = Deadly(hangs=hangs)
    source = pixels.ImageSource("x", lambda: [pixels.Entry(f"{i}", item, None) for i, item in enumerate(items)], 40, [])
    found = pixels.decode_all(source, ImageOptions(), 2)
    rejected = [name for name, result in zip(found.names, found.results, strict=True) if isinstance(result, Rejected)]
    assert rejected == ["20"] and found.results[20] == Rejected("hangs or crashes", detail)
    items[20] = items[0]  # the next time it may not end
    assert not any(isinstance(result, Rejected) for result in pixels.decode_all(source, ImageOptions(), 2).results)


def test_image_that_may_not_be_read_is_tried_again(colours, no_memory, monkeypatch):
    folder, expected = colours
    assert load_data(folder, workers=0).n == 40
    (path,) = (cache_folder() / "pixels").glob("*.bin")
    path.write_bytes(b"")  # what is known of these rows does not hold for the next ones
    with monkeypatch.context() as patched:
        refused = Rejected("no permission", "Permission denied")
        decode = images.decode
        patched.setattr(images, "decode", lambda item, *rest: refused if "00.png" in item else decode(item, *rest))
        assert load_data(folder, workers=0).report.skipped["no permission"].count == 1
    assert same(load_data(folder, workers=0), expected.images, expected.labels, expected.label_names)


def test_workers_end_when_one_is_done():
    import psutil

    def children():
        return {child.pid for child in psutil.Process().children()}

    before = children()  # another test may have left some
    with Workers(2) as workers:
        list(workers.map(abs, [(1,)] * 8))
        assert len(children() - before) == 2
    assert children() <= before


def test_dataset_made_by_hand_splits_and_has_a_fingerprint():
    data = ImageDataset("by hand", GREY, None, ())
    assert data.fingerprint == load_data(GREY).fingerprint
    assert np.array_equal(data.digests, load_data(GREY).digests)
