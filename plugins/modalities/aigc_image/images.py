"""One image: opened as a person sees it, and brought to the size and the channels that a model takes."""

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from aigc_image.orientation import upright_size
from aigc_image.pixels import as_seen, count_channels, over_white, to_channels
from aigc_sdk.broken import BROKEN
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.errors import InvalidConfig

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Array = NDArray[Any]
Fit = Literal["crop", "pad", "stretch"]
Mode = Literal["auto", "grey", "rgb", "rgba"]

MAX_SIDE = 4096
CHANNELS = {"grey": 1, "rgb": 3, "rgba": 4}


@dataclass(frozen=True)
class ImageOptions:
    """How images are brought to one form.

    Attributes:
        size: pixels a side, or (height, width), 1 to 4096; without it, images must be of one size.
        fit: how an image of another aspect gets there: "crop" cuts equally from two sides, "pad" adds black (or
            transparent) ones, "stretch" changes its aspect.
        mode: the channels; "auto" takes the most that any image needs. What is transparent is laid over white
            where they leave no room for it.

    Raises:
        InvalidConfig: a value that is not possible; says which are.

    Example:
        >>> ImageOptions(size=32, fit="pad").shape
        (32, 32)
    """

    size: int | Sequence[int] | None = None
    fit: Fit = "crop"
    mode: Mode = "auto"

    def __post_init__(self) -> None:
        if self.size is not None and not (
            len(self.shape or ()) == 2 and all(type(side) is int and 1 <= side <= MAX_SIDE for side in self.shape or ())
        ):
            raise InvalidConfig(
                f"The image size is {self.size!r}; give pixels a side, or (height, width), of 1 to {MAX_SIDE}."
            )
        for name, value, allowed in (("fit", self.fit, Fit), ("mode", self.mode, Mode)):
            if value not in get_args(allowed):
                raise InvalidConfig(f"The image {name} is {value!r}; there are {', '.join(get_args(allowed))}.")

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "ImageOptions":
        """Return the options of a model's config: its `image_size`, `image_fit` and `image_mode`.

        Example:
            >>> ImageOptions.of_config({"image_size": [24, 32], "latent": 8}).shape
            (24, 32)
        """
        names = [field.name for field in fields(cls) if f"image_{field.name}" in config]
        return cls(**{name: config[f"image_{name}"] for name in names})

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(height, width), or None without a size."""
        if self.size is None:
            return None
        return tuple(self.size) if isinstance(self.size, Sequence) else (self.size, self.size)


def probe(items: list[Any], options: ImageOptions) -> list[tuple[int, int, int] | None]:
    """Return (height, width, channels) of each image from its header, None for those that cannot be opened.

    Args:
        items: each a path, the bytes of a file, an array uint8 (height, width[, channels]) or a Pillow image.
        options: what the images are brought to.
    """
    return [_probe(item, options) for item in items]


def decode(item: Any, shape: tuple[int, int, int], options: ImageOptions) -> "NDArray[np.uint8] | Rejected":
    """Return an image's pixels, uint8 of the shape (height, width, channels), or why it has none.

    Args:
        item: as for `probe`.
        shape: the shape to bring it to; without a size in the options, one of another size is rejected.
        options: how to bring it there.
    """
    try:
        return _decode(item, shape, options)
    except _Unreadable as error:
        return error.why


def decode_into_file(
    items: list[Any], start: int, path: str, shape: tuple[int, int, int], options: ImageOptions
) -> list[int | Rejected]:
    """Decode images into the rows of a file, from row `start` on, and return their digests, or why they have none."""
    results: list[int | Rejected] = []
    with open(path, "rb+") as file:
        for i, item in enumerate(items, start):
            pixels = decode(item, shape, options)
            if not isinstance(pixels, Rejected):
                file.seek(i * pixels.nbytes)
                file.write(pixels.tobytes())
            results.append(pixels if isinstance(pixels, Rejected) else pixel_digest(pixels))
    return results


def pixel_digest(pixels: Array) -> int:
    """Return 64 bits that tell pixels apart: by them copies are found, and images are split."""
    return int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "big")


def brought_to(images: NDArray[np.uint8], options: ImageOptions) -> NDArray[np.uint8]:
    """Bring images uint8 (n, height, width, channels) to the size and the channels of the options."""
    from PIL import Image

    shape = (*(options.shape or images.shape[1:3]), CHANNELS.get(options.mode, images.shape[3]))
    if shape == images.shape[1:]:
        return images
    made = np.empty((len(images), *shape), np.uint8)
    for image, row in zip(images, made, strict=True):
        row[...] = _fitted(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), shape, options)
    return made


class _Unreadable(Exception):
    def __init__(self, why: Rejected) -> None:
        super().__init__(why.detail)
        self.why = why


@contextmanager
def _opened(item: Any) -> "Iterator[PilImage]":
    """Open an image; whatever is wrong with it, there or in the block, becomes _Unreadable."""
    from PIL import Image

    try:
        with warnings.catch_warnings():  # on a large or an odd image, which is read all the same
            warnings.simplefilter("ignore")
            if isinstance(item, np.ndarray):
                yield Image.fromarray(item.squeeze(-1) if item.shape[-1] == 1 and item.ndim == 3 else item)
            elif isinstance(item, str | bytes):
                if isinstance(item, str) and not stat.S_ISREG(Path(item).stat().st_mode):
                    raise ValueError("it is no file")  # but a pipe, on which one would wait for ever
                with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
                    yield image
            else:
                yield item
    except PermissionError as error:
        raise _Unreadable(Rejected("no permission", os.strerror(error.errno or 13))) from error
    except FileNotFoundError as error:
        raise _Unreadable(Rejected("missing", "there is no such file")) from error
    except Image.DecompressionBombError as error:
        raise _Unreadable(Rejected("too large", str(error).partition(", could")[0])) from error
    except (OSError, *BROKEN) as error:
        # Pillow names a file or an object in memory, of which the name is said already.
        reason = "cannot identify image file" if type(error).__name__ == "UnidentifiedImageError" else str(error)
        raise _Unreadable(Rejected("unreadable", reason or type(error).__name__)) from error


def _probe(item: Any, options: ImageOptions) -> tuple[int, int, int] | None:
    try:
        with _opened(item) as image:
            height, width = options.shape or upright_size(image)
            return height, width, CHANNELS.get(options.mode) or count_channels(image)
    except _Unreadable:
        return None


def _decode(item: Any, shape: tuple[int, int, int], options: ImageOptions) -> NDArray[np.uint8]:
    """Return uint8 (height, width, channels); raises _Unreadable."""
    with _opened(item) as image:
        if options.shape is not None and hasattr(image, "draft"):
            # A JPEG can be decoded at a half, a quarter or an eighth of its size; still three times what is needed.
            image.draft(None, (3 * max(shape[:2]), 3 * max(shape[:2])))
        seen = as_seen(image)
        if options.shape is None and (seen.height, seen.width) != shape[:2]:
            raise _Unreadable(Rejected("wrong shape", f"{seen.width} x {seen.height} pixels"))
        return _fitted(seen, shape, options)


def _fitted(image: "PilImage", shape: tuple[int, ...], options: ImageOptions) -> NDArray[np.uint8]:
    """Bring an image of mode L, RGB or RGBA to (height, width, channels), with high quality; Pillow minds the alpha."""
    from PIL import Image, ImageOps

    size = (shape[1], shape[0])
    image = image if shape[2] == 4 else over_white(image)
    if image.size != size:
        lanczos = Image.Resampling.LANCZOS
        if options.fit == "crop":
            image = ImageOps.fit(image, size, lanczos)
        elif options.fit == "pad":
            image = ImageOps.pad(image.resize(_inner_size(image, size), lanczos), size, lanczos)
        else:
            image = image.resize(size, lanczos)
    return to_channels(image, shape[2])


def _inner_size(image: "PilImage", size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) of an image that fits into a size: of a strip a line of pixels is left at least."""
    if image.width / image.height > size[0] / size[1]:
        return size[0], max(1, round(image.height / image.width * size[0]))
    return max(1, round(image.width / image.height * size[1])), size[1]
