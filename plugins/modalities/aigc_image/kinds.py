"""The control kinds `image` and `mask`: pixels that a model is given."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_image.item import Image
from aigc_image.pixels import read_pixels
from aigc_sdk.contents import Contents
from aigc_sdk.errors import InvalidRequest
from aigc_sdk.kinds import Array, ControlKind

if TYPE_CHECKING:
    from aigc_sdk.card import Control

_CHANNELS = {1: "grey", 3: "colour", 4: "colour and alpha"}


class ImageKind(ControlKind):
    """Pixels, uint8 (height, width, channels); a default is one level for all of them, or None: it has to be given."""

    name, dtype, is_array, is_recorded = "image", "uint8", True, False
    shapes = "(height, width, 1, 3 or 4)"
    channels: tuple[int, ...] = (1, 3, 4)

    def has_shape(self, control: "Control") -> bool:
        """Tell whether it is that of an image."""
        return len(control.shape) == 3 and min(control.shape) >= 1 and control.shape[2] in self.channels

    def bounds(self, control: "Control") -> tuple[float, float]:
        """Return the levels."""
        return 0, 255

    def allowed(self, control: "Control") -> str:
        """Return the size, and in which forms it may come."""
        height, width, _ = control.shape
        return (
            f"an image of {width} x {height} pixels: a path, a PIL image, or uint8 {control.shape}"
            f"{self.meaning(control)}"
        )

    def meaning(self, control: "Control") -> str:
        """Return what the pixels mean, in words."""
        return f" ({_CHANNELS[control.shape[2]]})"

    def accepts(self, control: "Control", value: object) -> bool:
        """Tell whether it is a level, or None."""
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255)

    def split(self, control: "Control", value: Any, most: int) -> Any:
        """Return the pixels of each item, or of one image for all."""
        if isinstance(value, Contents | list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 4):
            if not 1 <= len(value) <= most:
                raise InvalidRequest(f"{control.name} has {len(value)} values; give 1 to {most}.")
            return [self._pixels(control, each, f"{control.name}[{i}]") for i, each in enumerate(value)]
        return self._pixels(control, value, control.name)

    def _pixels(self, control: "Control", value: Any, where: str) -> Array:
        if isinstance(value, np.ndarray):
            pixels: Array = value
        else:
            pixels = value.data if isinstance(value, Image) else read_pixels(value, control.shape[2], where)
        if pixels.dtype == np.bool_:
            pixels = np.where(pixels, np.uint8(255), np.uint8(0))
        if pixels.ndim == 2 and control.shape[2] == 1:
            pixels = pixels[..., None]
        if pixels.dtype != np.uint8 or pixels.shape != control.shape:
            raise InvalidRequest(f"{where} is {pixels.dtype} {pixels.shape}; give {self.allowed(control)}.")
        return pixels

    def decode(self, control: "Control", value: Any, where: str) -> Array:
        """Return the pixels; the default's are of one level."""
        if value is None:
            raise InvalidRequest(f"{where} is missing; give {self.allowed(control)}.")
        return value if isinstance(value, np.ndarray) else np.full(control.shape, value, self.dtype)

    def stack(self, control: "Control", values: Sequence[Array]) -> Array:
        """Return pixels (n, height, width, channels); one image takes no more memory than it has."""
        return values[0][None] if len(values) == 1 else np.stack(values)

    def record(self, row: Array) -> dict[str, Any]:
        """Return the hash and the shape of the pixels."""
        return {"sha256": hashlib.sha256(row.tobytes()).hexdigest(), "shape": list(row.shape)}

    def from_words(self, control: "Control", words: str) -> str:
        """Return the words, which are a path."""
        return words

    def examples(self, control: "Control", n: int, random: np.random.Generator) -> Array:
        """Return patches of one level each, which pack small."""
        height, width, channels = control.shape
        levels = self.levels(random, (n, 4, 4, channels))
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        return levels.astype(self.dtype)[:, rows[:, None], columns]

    def levels(self, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Return levels of pixels."""
        return random.integers(0, 256, shape)

    def edges(self, control: "Control") -> Array:
        """Return black and white."""
        return np.stack([np.full(control.shape, level, self.dtype) for level in (0, 255)])

    def wrong(self, control: "Control") -> list[Any]:
        """Return what is no image, or one of another size or dtype."""
        height, width, channels = control.shape
        return [{}, 7, np.zeros((height + 1, width, channels), np.uint8), np.zeros(control.shape, np.float32)]


class MaskKind(ImageKind):
    """One channel of pixels, of which 255 says keep."""

    name, shapes, channels = "mask", "(height, width, 1)", (1,)

    def meaning(self, control: "Control") -> str:
        """Return what 255 means."""
        return "; 255 says keep"

    def levels(self, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Return 0 and 255."""
        return random.integers(0, 2, shape) * 255
