"""Images: uint8 (height, width, channels)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from aigc_image.item import Image
from aigc_sdk.modality import Modality

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec
    from aigc_sdk.kinds import ControlKind


class ImageModality(Modality):
    """Images of one size: grey, colour, or colour and alpha."""

    name, plural, item, samples = "image", "images", Image, 64
    facets: ClassVar[Mapping[str, str]] = {
        "data": "aigc_image.data:ImageData",
        "training": "aigc_image.training:ImageTraining",
        "evaluation": "aigc_image.evaluation:ImageEvaluation",
        "reproduction": "aigc_image.reproduction:ImageReproduction",
        "examples": "aigc_image.examples:ImageExamples",
    }

    @property
    def kinds(self) -> "tuple[type[ControlKind], ...]":
        """Pixels, and which of them to keep."""
        from aigc_image.kinds import ImageKind, MaskKind

        return ImageKind, MaskKind

    def check_output(self, output: "OutputSpec") -> None:
        """Raise ValueError for another dtype or shape."""
        if output.dtype != "uint8" or len(output.shape) != 3 or output.shape[2] not in (1, 3, 4):
            raise ValueError(f"{output.dtype} {output.shape}; an image is uint8 (height, width, 1, 3 or 4)")
