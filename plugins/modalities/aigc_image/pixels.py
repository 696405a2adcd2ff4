"""Pixels as people see them, from whatever Pillow can open.

They are uint8 (height, width, channels), sRGB, with 1 (grey), 3 (colour) or 4 (colour and alpha) channels.
"""

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from aigc_image.orientation import orientation, upright
from aigc_sdk.broken import BROKEN
from aigc_sdk.errors import AigcError, InvalidRequest, StorageError, shown
from aigc_sdk.files import as_path

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

# Pillow's mode, by the number of channels.
MODES: dict[int, Literal["L", "RGB", "RGBA"]] = {1: "L", 3: "RGB", 4: "RGBA"}

# Tags of a TIFF.
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 259, 262, 284, 339


@contextmanager
def reading(what: str, broken: type[AigcError] = InvalidRequest) -> Iterator[None]:
    """Make an error of ours of whatever Pillow ends in on an image that may hold anything.

    Args:
        what: what messages call the image.
        broken: the error to raise where the data is not an image.

    Raises:
        StorageError: the file cannot be read, and not because of what it holds.
    """
    import PIL.Image

    what = what if len(what) <= 300 else f"{what[:150]}...{what[-50:]}"
    try:
        yield
    except AigcError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise broken(f"{what} is no image that can be read.") from error
    except (PIL.Image.DecompressionBombError, OSError, *BROKEN) as error:
        if isinstance(error, OSError) and error.errno:
            raise StorageError(f"{what} cannot be read: {error.strerror}.") from error
        words = str(error).partition(", could be decompression bomb")[0].rstrip(".")
        raise broken(f"{what} is no image that can be read: {words or type(error).__name__}.") from error


def read_pixels(source: object, channels: int, name: str) -> NDArray[np.uint8]:
    """Return the pixels of a PIL image or of an image file, upright, uint8 (height, width, channels).

    Args:
        source: a path or a PIL image.
        channels: 1 (grey), 3 (colour) or 4 (colour and alpha), to which the image is brought.
        name: what messages call it.

    Raises:
        InvalidRequest: it is neither, or no image that can be read.
        StorageError: the file cannot be read.
    """
    import PIL.Image

    if isinstance(source, PIL.Image.Image):
        with reading(name):
            return to_channels(as_seen(source), channels)
    if not isinstance(source, str | os.PathLike):
        raise InvalidRequest(f"{name} is {shown(source)}; give a path, a PIL image or an array uint8.")
    path = as_path(source, name)
    with reading(f"{name}: {path}"):
        if not stat.S_ISREG(path.stat().st_mode):
            raise StorageError(f"{name}: {path} cannot be read: it is no file.")  # on a pipe one would wait for ever
        with PIL.Image.open(path) as image:
            return to_channels(as_seen(image), channels)


def as_seen(image: "PilImage") -> "PilImage":
    """Return the image upright, in mode L, RGB or RGBA, see `eight_bits`."""
    if image.format == "TIFF":  # Pillow turns it while it loads
        _load_tiff(image)
    lies = orientation(image)  # which PNG tells before it is loaded
    return upright(eight_bits(image), lies)


def _load_tiff(image: "PilImage") -> None:
    """Load a TIFF without its path, from which Pillow maps the rows of one that lies on its side in a wrong width."""
    path, image.filename = getattr(image, "filename", ""), ""  # type: ignore[attr-defined]  # a file's image has it
    try:
        image.load()
    finally:
        image.filename = path  # type: ignore[attr-defined]  # a file's image has it


def count_channels(image: "PilImage") -> int:
    """Return how many channels an image needs: 1, 3, or 4 where something is transparent."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return 4
    return 1 if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;") else 3


def eight_bits(image: "PilImage") -> "PilImage":
    """Return the image in mode L, RGB or RGBA, in sRGB where it says which colours it is in."""
    import PIL.Image

    tags = _tiff_tags(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image)
        most = 1 if image.mode == "F" else 4095 if tags.get(_BITS) == (12,) else 65535
        greys = _scaled(values, most)
        grey = PIL.Image.fromarray(255 - greys if tags.get(_PHOTOMETRIC) == 0 else greys)  # 0 is white
        if "transparency" not in image.info:
            return grey
        alpha = np.where(values == image.info["transparency"], np.uint8(0), np.uint8(255))
        return PIL.Image.merge("RGBA", (grey, grey, grey, PIL.Image.fromarray(alpha)))
    image = _with_true_transparency(image)
    mode = MODES[count_channels(image)]
    profile = image.info.get("icc_profile")
    if profile and mode != "L":
        source = image if image.mode == "CMYK" else image.convert(mode)
        if convert := _to_srgb(profile, source.mode, mode):
            from PIL import ImageCms

            return ImageCms.applyTransform(source, convert) or source
    return image.convert(mode)


def _with_true_transparency(image: "PilImage") -> "PilImage":
    """Return an image whose transparent colour is one of its pixels', which Pillow scales to 8 bits without it."""
    key = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    depth = str(tiles[0][3]).partition(";")[2] if image.format == "PNG" and tiles else ""
    if image.mode == "L" and depth in ("2", "4"):
        key = None if key is None else key * (255 // (2 ** int(depth) - 1))
    elif image.mode == "RGB" and isinstance(key, tuple) and (depth == "16B" or max(key) > 255):
        key = tuple(level >> 8 for level in key)
    if key == image.info.get("transparency"):
        return image
    image = image.copy()
    image.info["transparency"] = key
    return image


def _tiff_tags(image: "PilImage") -> Mapping[int, Any]:
    """Return the tags of a TIFF, and none of another file; raises ValueError for what Pillow reads as other pixels."""
    if image.format != "TIFF":
        return {}
    tags: Mapping[int, Any] = image.tag_v2  # type: ignore[attr-defined]  # a TIFF has them
    bits, signs = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    if max(bits) <= 8 and 2 in signs:
        raise ValueError("its levels are signed numbers of 8 bits")
    if max(bits) > 8 and len(bits) > 1 and tags.get(_PLANES) == 2 and tags.get(_COMPRESSION) == 1:
        raise ValueError("its colours of 16 bits lie in planes of their own; save it compressed, or with them together")
    return tags


def _scaled(values: NDArray[Any], most: int) -> NDArray[np.uint8]:
    """Scale grey values of more than 8 bits: whole ones are of 16 or 12 bits, floats from 0 to 1."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= most):
        raise ValueError(f"its greys are from {low:.6g} to {high:.6g}, which is not within 0 and {most}")
    scaled: NDArray[np.uint8] = np.rint(values * (255 / most)).astype(np.uint8)
    return scaled


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes, source_mode: str, mode: str) -> Any:
    """Return the transform from an ICC profile's colours; None when they are sRGB already, or the profile is broken."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), source_mode, mode)
    except (ImageCms.PyCMSError, OSError, *BROKEN):
        return None


def to_channels(image: "PilImage", channels: int) -> NDArray[np.uint8]:
    """Return an image of mode L, RGB or RGBA as uint8 (height, width, channels), over white where alpha is left out."""
    made = (over_white(image) if channels < 4 else image).convert(MODES[channels])
    return np.asarray(made).reshape(made.height, made.width, channels)


def over_white(image: "PilImage") -> "PilImage":
    """Return the image as it is, or, if something may be transparent, as it looks on white, of mode RGB."""
    import PIL.Image

    if image.mode != "RGBA":
        return image
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image).convert("RGB")
