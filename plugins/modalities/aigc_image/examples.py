"""Small images for checks."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.modality import ModalityExamples

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec


class ImageExamples(ModalityExamples):
    """Stripes and noise."""

    def data(self, n: int, size: int, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return stripes, uint8 (n, size, size, 1), labelled by their direction."""
        rows, columns = np.indices((size, size))
        labels = np.arange(n) % classes
        images = [(rows * (1 + i) + columns * label * 5) % 16 * 17 for i, label in enumerate(labels)]
        return np.stack(images).astype(np.uint8)[..., None], labels

    def contents(self, output: "OutputSpec", n: int, random: np.random.Generator) -> NDArray[np.uint8]:
        """Return noise."""
        return random.integers(0, 256, (n, *output.shape), np.uint8)
