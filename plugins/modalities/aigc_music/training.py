"""Music as a family learns from it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from aigc_music.data import MusicDataset, moved_key
from aigc_music.events import transposed
from aigc_sdk.modality import ModalityTraining
from aigc_sdk.training.batches import padded
from aigc_sdk.training.family import Batch, FamilyConfig


class MusicFamilyConfig(FamilyConfig):
    """The options that every family of music has."""

    transpose: int = Field(
        5, ge=0, le=12, description="move each piece by up to so many semitones up or down, anew each time"
    )
    full_bars: bool = Field(
        False,
        description="leave out, and never make, pieces with a note across a bar line or a part of a bar at the end",
    )
    pedal: bool = Field(False, description="let the sustain pedal of MIDI files prolong notes")


class MusicTraining(ModalityTraining):
    """Batches of "codes", int32 (n, t), -1 after the end, and int64 (n,) "keys", indices in KEYS, and "meters"."""

    unit = "pieces"

    def batch(
        self, data: MusicDataset, rows: NDArray[np.int64], device: torch.device, options: Any, *, varied: bool
    ) -> Batch:
        """Return the events, moved to other keys where they are varied."""
        codes, keys = [data.row_codes(row) for row in rows.tolist()], data.keys[rows].tolist()
        if varied:
            for i, row in enumerate(rows.tolist()):
                moves = data.moves(row)
                move = moves[int(torch.randint(len(moves), ()))]
                codes[i], keys[i] = transposed(codes[i], move), moved_key(keys[i], move)
        made = {
            "codes": torch.from_numpy(padded(codes)),
            "keys": torch.tensor(keys),
            "meters": torch.from_numpy(data.meters[rows]),
        }
        return {name: part.to(device) for name, part in made.items()}

    def weight(self, batch: Mapping[str, Any]) -> int:
        """Return how many events there are."""
        return int((batch["codes"] >= 0).sum())
