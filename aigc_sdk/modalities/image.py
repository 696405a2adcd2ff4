"""Images: uint8 (height, width, channels)."""

from typing import TYPE_CHECKING

from aigc_sdk.contents import Image
from aigc_sdk.modality import Modality

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec


class ImageModality(Modality):
    """Images of one size: grey, colour, or colour and alpha."""

    name, plural, item = "image", "images", Image

    def check_output(self, output: "OutputSpec") -> None:
        """Raise ValueError for another dtype or shape."""
        if output.dtype != "uint8" or len(output.shape) != 3 or output.shape[2] not in (1, 3, 4):
            raise ValueError(f"{output.dtype} {output.shape}; an image is uint8 (height, width, 1, 3 or 4)")
