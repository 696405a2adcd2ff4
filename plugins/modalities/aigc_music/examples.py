"""Small pieces for checks."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aigc_music.data import Piece
from aigc_sdk.modality import ModalityExamples

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec


class MusicExamples(ModalityExamples):
    """Random notes."""

    def data(self, n: int, size: int, classes: int) -> tuple[list[Piece], NDArray[np.int64]]:
        """Return pieces of at most `size` chords of two, in two keys and metres; the labels are of no use."""
        return [_piece(i, 4 + i % (size - 3)) for i in range(n)], np.arange(n) % classes

    def contents(self, output: "OutputSpec", n: int, random: np.random.Generator) -> NDArray[np.float32]:
        """Return pieces of a few notes."""
        length = min(12, output.shape[0])
        columns = [random.integers(low, high, (n, length)) for low, high in ((48, 72), (60, 100))]
        onset, ones = np.arange(length) / 2 + np.zeros((n, 1)), np.ones((n, length))
        notes = np.stack([*columns, onset, ones / 2, ones * 0, ones * 0], 2).astype(np.float32)
        return np.where((np.arange(length) <= np.arange(n)[:, None] % length)[..., None], notes, np.float32(0))


def _piece(i: int, size: int) -> Piece:
    ticks = (24, 48)[i % 2]
    steps = np.random.default_rng(i).integers(0, 5, size)
    notes = [
        (60 + 2 * int(step) + 12 * above, 80 + 16 * (k % 2), k * ticks, ticks, above, 40 * above)
        for k, step in enumerate(steps)
        for above in (0, 1)
    ]
    return Piece(f"piece {i}", np.array(notes), key=(0, 7)[i % 2], meter=("4/4", "6/8")[i % 2])
