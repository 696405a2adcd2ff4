"""Images: uint8 (height, width, channels)."""

from typing import TYPE_CHECKING

from aigc_image.item import Image
from aigc_sdk.modality import (
    Modality,
    ModalityData,
    ModalityEvaluation,
    ModalityExamples,
    ModalityReproduction,
    ModalityTraining,
)

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec
    from aigc_sdk.kinds import ControlKind


class ImageModality(Modality):
    """Images of one size: grey, colour, or colour and alpha."""

    name, plural, item, samples = "image", "images", Image, 64

    @property
    def kinds(self) -> "tuple[type[ControlKind], ...]":
        """Pixels, and which of them to keep."""
        from aigc_image.kinds import ImageKind, MaskKind

        return ImageKind, MaskKind

    def check_output(self, output: "OutputSpec") -> None:
        """Raise ValueError for another dtype or shape."""
        if output.dtype != "uint8" or len(output.shape) != 3 or output.shape[2] not in (1, 3, 4):
            raise ValueError(f"{output.dtype} {output.shape}; an image is uint8 (height, width, 1, 3 or 4)")

    @property
    def reproduction(self) -> ModalityReproduction:
        """Comparing files with what is made again."""
        from aigc_image.reproduction import ImageReproduction

        return ImageReproduction()

    @property
    def data(self) -> ModalityData:
        """Reading."""
        from aigc_image.data import ImageData

        return ImageData()

    @property
    def evaluation(self) -> ModalityEvaluation:
        """Comparing."""
        from aigc_image.evaluation import ImageEvaluation

        return ImageEvaluation()

    @property
    def examples(self) -> ModalityExamples:
        """For checks."""
        from aigc_image.examples import ImageExamples

        return ImageExamples()

    @property
    def training(self) -> ModalityTraining:
        """Learning."""
        from aigc_image.training import ImageTraining

        return ImageTraining()
