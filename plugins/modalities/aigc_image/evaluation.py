"""Comparing images: by the features of a network, or pixel by pixel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_image.item import Image, paste_grid, png_bytes
from aigc_sdk.contents import Contents
from aigc_sdk.errors import InvalidData
from aigc_sdk.exhibits import Exhibit
from aigc_sdk.modality import ModalityEvaluation

# The measure that was trained for images of one shape; all others are left to the general one.
SPECIAL_EXTRACTORS: dict[tuple[int, ...], str] = {(28, 28, 1): "digits-features"}
GENERAL_EXTRACTOR = "efficientnet-lite0"

# Images are enlarged to so many pixels.
_SIDE = 64


class ImageEvaluation(ModalityEvaluation):
    """Images of one size, uint8 (n, height, width, channels)."""

    has_features, on_page = True, 64

    def items_of(self, given: Any) -> NDArray[np.uint8] | None:
        """Return the pixels."""
        array = given if isinstance(given, np.ndarray) else self.to_array(given)
        return array if array is not None and array.dtype == np.uint8 and array.ndim == 4 else None

    def to_array(self, given: Any) -> NDArray[Any] | None:
        """Return the pixels."""
        return Contents(given).to_numpy() if all(isinstance(item, Image) for item in given) else None

    def check_form(self, dataset: Any, shape: tuple[int, ...] | None, what: str) -> None:
        """Raise InvalidData where the images are of another size than the generated ones."""
        if dataset.images.shape[1:] != shape:
            raise InvalidData(
                f"{what}: the images of {dataset.name} are {dataset.images.shape[1:]}, the generated ones {shape}"
                " (height, width, channels); bring them to one size first."
            )

    def extractor(self, shape: tuple[int, ...]) -> str:
        """Return the name of the one for this size."""
        return SPECIAL_EXTRACTORS.get(shape, GENERAL_EXTRACTOR)

    def exhibits(self, items: Sequence[Any], caption: str) -> list[Exhibit]:
        """Return all side by side, small ones enlarged."""
        import PIL.Image

        images = np.asarray(items)
        scale = max(1, _SIDE // images.shape[1])
        large = images.repeat(scale, 1).repeat(scale, 2)
        sheet = paste_grid([PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in large])
        return [Exhibit("image/png", png_bytes(sheet), caption)]
