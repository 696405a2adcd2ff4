"""Comparing pieces of music, as they are."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_music.data import Piece, checked
from aigc_music.item import Music
from aigc_music.keys import KEYS
from aigc_music.sound import piano_roll
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.errors import InvalidRequest
from aigc_sdk.exhibits import Exhibit
from aigc_sdk.modality import ModalityEvaluation

# What is shown of a longer piano roll: some eight bars.
_MOST_PIXELS = 800


class MusicEvaluation(ModalityEvaluation):
    """Pieces, as `aigc_music.data.Piece`, with their notes in ticks."""

    def items_of(self, given: Any) -> tuple[Piece, ...] | None:
        """Return generated items, or Pieces, as Pieces."""
        if isinstance(given, np.ndarray) or not all(isinstance(item, Music | Piece) for item in given):
            return None
        return tuple(_piece(item, i) for i, item in enumerate(given))

    def to_array(self, given: Any) -> NDArray[np.float32] | None:
        """Return the notes of all pieces, float32 (n, t, 6), zeros behind the end of each."""
        if not all(isinstance(item, Music) for item in given):
            return None
        notes = np.zeros((len(given), max(1, *(len(piece.data) for piece in given)), 6), np.float32)
        for row, piece in zip(notes, given, strict=True):
            row[: len(piece.data)] = piece.data
        return notes

    def exhibits(self, items: Sequence[Any], caption: str) -> list[Exhibit]:
        """Return the beginning of the piano roll of each."""
        return [Exhibit("image/png", _roll_png(piece), f"piano roll of one of the {caption}") for piece in items]


def _piece(item: Music | Piece, i: int) -> Piece:
    if isinstance(item, Music):
        key = None if item.key is None else KEYS.index(item.key)
        return Piece(f"item {i}", item.to_ticks(), key, item.meter or "4/4", item.tempo)
    read = checked((item.notes, item.key, str(item.meter), item.tempo))
    if isinstance(read, Rejected):
        raise InvalidRequest(f"Piece {i} of what to evaluate cannot be used: {': '.join(filter(None, read))}.")
    return Piece(item.name, *read[:4])


def _roll_png(piece: Piece) -> bytes:
    roll, buffer = piano_roll(piece.notes, piece.meter), io.BytesIO()
    roll.crop((0, 0, min(roll.width, _MOST_PIXELS), roll.height)).save(buffer, "PNG")
    return buffer.getvalue()
