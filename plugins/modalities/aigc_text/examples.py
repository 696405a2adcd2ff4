"""Small texts for checks."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.modality import ModalityExamples

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec


class TextExamples(ModalityExamples):
    """Random letters."""

    def data(self, n: int, size: int, classes: int) -> tuple[list[str], NDArray[np.int64]]:
        """Return texts of at most `size` letters, labelled by which letters they are of."""
        letters = np.random.default_rng(0).integers(0, 4, (n, size))
        labels = np.arange(n) % classes
        texts = [
            "".join(map(chr, 97 + row[: 3 + i % (size - 2)] + label))
            for i, (row, label) in enumerate(zip(letters, labels, strict=True))
        ]
        return texts, labels

    def contents(self, output: "OutputSpec", n: int, random: np.random.Generator) -> NDArray[np.int32]:
        """Return texts of a few letters."""
        letters = random.integers(97, 123, (n, min(12, *output.shape)), np.int32)
        return np.where(np.arange(letters.shape[1]) <= np.arange(n)[:, None] % letters.shape[1], letters, -1)
