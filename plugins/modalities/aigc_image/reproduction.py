"""Comparing a file with the image that was made again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aigc_image.item import FORMATS, Image
from aigc_image.pixels import count_channels, read_pixels, reading
from aigc_sdk.contents import PROVENANCE_KEY, Item
from aigc_sdk.errors import InvalidProvenance, InvalidRequest, NotReproduced
from aigc_sdk.likeness import IDENTICAL, compare_arrays
from aigc_sdk.modality import ModalityReproduction

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


class ImageReproduction(ModalityReproduction):
    """Of a PNG, which holds its provenance, and of other images."""

    def provenance(self, path: Path) -> str | None:
        """Return the text of a PNG that holds it."""
        if path.suffix.lower() != ".png":
            return None
        with _opened(path) as image:
            found = image.info.get(PROVENANCE_KEY) if image.format == "PNG" else None
        return None if found is None else str(found)

    def compare(self, path: Path, made: Item) -> str:
        """Compare the pixels, and what else the image is."""
        assert isinstance(made, Image)
        return _measured(path, *_saved_pixels(path, made))


@contextmanager
def _opened(path: Path) -> "Iterator[PilImage]":
    """Open an image file that may hold anything."""
    import PIL.Image

    with reading(str(path), InvalidProvenance), PIL.Image.open(path) as image:
        yield image


def _saved_pixels(path: Path, made: Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the pixels of an image file, and those that a file of its format holds of what was made."""
    height, width, _ = made.data.shape
    with _opened(path) as image:
        if image.format not in FORMATS.values():
            raise InvalidProvenance(f"{path} is of the format {image.format}, in which this SDK saves no image.")
        if image.size != (width, height):  # before it is unpacked, which may take all memory
            raise NotReproduced(
                f"{path} has {image.width} x {image.height} pixels; its model makes {width} x {height}."
            )
        try:
            saved = made.as_saved(str(image.format))
        except InvalidRequest as error:
            raise InvalidProvenance(f"{path} cannot hold what its model makes: {error}") from error
        # Before the pixels, because bringing them to the channels of the model's may hide what differs.
        if _form(image) != _form(saved):
            raise NotReproduced(
                f"{path} has {_form(image)}; what its model makes has, as {image.format}, {_form(saved)}. The image was"
                " edited, or its provenance is another's."
            )
        image.load()
        channels = count_channels(saved)
        return read_pixels(image, channels, str(path)), read_pixels(saved, channels, str(path))


def _form(image: "PilImage") -> str:
    """Say what an image is besides its pixels."""
    return f"mode {image.mode}, channels {count_channels(image)}, frames {getattr(image, 'n_frames', 1)}"


def _measured(path: Path, found: NDArray[np.uint8], made: NDArray[np.uint8]) -> str:
    """Return what was measured, within the tolerance of golden samples, or raise NotReproduced."""
    if np.array_equal(found, made):
        return IDENTICAL
    # One value of a small image is more than the share of golden items, but no less a matter of rounding.
    likeness = compare_arrays(found, made, least=1)
    if not likeness.passed:
        raise NotReproduced(
            f"{path} is not what its model makes here: {likeness.measured}. The image was edited, its provenance"
            " is another's, or the model runs differently here (`aigc selftest` tells)."
        )
    return likeness.measured
