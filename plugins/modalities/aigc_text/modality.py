"""Texts: Unicode code points, int32 (length,)."""

from pathlib import Path
from typing import TYPE_CHECKING

from aigc_sdk.codes import decode
from aigc_sdk.contents import Contents
from aigc_sdk.files import write_bytes
from aigc_sdk.modality import (
    Array,
    Modality,
    ModalityData,
    ModalityEvaluation,
    ModalityExamples,
    ModalityReproduction,
    ModalityTraining,
)
from aigc_text.item import Text

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec
    from aigc_sdk.kinds import ControlKind


class TextModality(Modality):
    """Texts of variable length."""

    name, plural, item = "text", "texts", Text
    filler, has_words = -1, True

    @property
    def kinds(self) -> "tuple[type[ControlKind], ...]":
        """Characters."""
        from aigc_text.kinds import TextKind

        return (TextKind,)

    def check_output(self, output: "OutputSpec") -> None:
        """Raise ValueError for another dtype or shape, or without a length."""
        if output.dtype != "int32" or len(output.shape) != 1 or output.shape[0] < 1 or not output.length:
            raise ValueError(f"{output}; a text is int32 (at most so many,), with a length")

    def streamed(self, data: Array, output: "OutputSpec") -> str:
        """Return the characters."""
        return decode(data)

    def write_samples(self, contents: Contents, path: Path) -> None:
        """Write all into one file."""
        write_bytes(path.with_suffix(".txt"), f"\n\n{'-' * 8}\n\n".join(map(str, contents)).encode())

    @property
    def reproduction(self) -> ModalityReproduction:
        """Comparing files with what is made again."""
        from aigc_text.reproduction import TextReproduction

        return TextReproduction()

    @property
    def data(self) -> ModalityData:
        """Reading."""
        from aigc_text.data import TextData

        return TextData()

    @property
    def evaluation(self) -> ModalityEvaluation:
        """Comparing."""
        from aigc_text.evaluation import TextEvaluation

        return TextEvaluation()

    @property
    def examples(self) -> ModalityExamples:
        """For checks."""
        from aigc_text.examples import TextExamples

        return TextExamples()

    @property
    def training(self) -> ModalityTraining:
        """Learning."""
        from aigc_text.training import TextTraining

        return TextTraining()
