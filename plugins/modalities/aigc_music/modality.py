"""Music: notes, float32 (length, 6), with tempo, metre and key."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from aigc_music.events import METER_UNITS
from aigc_music.item import Music
from aigc_music.keys import KEYS, respelled
from aigc_sdk.card import OutputPart
from aigc_sdk.modality import Array, Modality

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec
    from aigc_sdk.kinds import ControlKind

_PARTS = (
    OutputPart(name="tempo", dtype="float32", minimum=1, maximum=1000, help="quarter notes a minute"),
    OutputPart(name="meter", dtype="int64", shape=(2,), help="beats and their unit, such as 6 and 8; 0 and 0 for none"),
    OutputPart(name="key", dtype="int64", minimum=-1, maximum=len(KEYS) - 1, help="index in KEYS; -1 for none"),
)


class MusicModality(Modality):
    """Pieces of notes, of variable length."""

    name, plural, item, samples = "music", "pieces", Music, 4
    has_labels = False
    facets: ClassVar[Mapping[str, str]] = {
        "data": "aigc_music.data:MusicData",
        "training": "aigc_music.training:MusicTraining",
        "evaluation": "aigc_music.evaluation:MusicEvaluation",
        "reproduction": "aigc_music.reproduction:MusicReproduction",
        "examples": "aigc_music.examples:MusicExamples",
    }

    @property
    def kinds(self) -> "tuple[type[ControlKind], ...]":
        """A piece to go on from."""
        from aigc_music.kinds import MusicKind

        return (MusicKind,)

    def check_output(self, output: "OutputSpec") -> None:
        """Raise ValueError for another dtype or shape, or without a length."""
        if output.dtype != "float32" or output.shape[1:] != (6,) or output.shape[0] < 1 or not output.length:
            raise ValueError(f"{output}; music is float32 (at most so many notes, 6), with a length")

    def implied_parts(self, output: "OutputSpec") -> tuple[OutputPart, ...]:
        """Return how a piece is written."""
        return _PARTS

    def check_values(self, output: "OutputSpec", parts: Mapping[str, Array]) -> None:
        """Raise ValueError where a metre is not valid."""
        beats, unit = parts["meter"][:, 0], parts["meter"][:, 1]
        is_meter = ((beats == 0) & (unit == 0)) | ((beats >= 1) & (beats <= 64) & np.isin(unit, METER_UNITS))
        if not is_meter.all():
            raise ValueError("a metre other than 1 to 64 beats of 1, 2, 4, 8, 16 or 32, or 0 and 0")

    def respelled(self, choice: str) -> str:
        """Return the name that KEYS has for a key."""
        return respelled(choice)
