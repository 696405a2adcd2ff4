"""Texts: Unicode code points, int32 (length,)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from aigc_sdk.codes import decode
from aigc_sdk.contents import Contents
from aigc_sdk.files import write_bytes
from aigc_sdk.modality import Array, Modality
from aigc_text.item import Text

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec
    from aigc_sdk.kinds import ControlKind


class TextModality(Modality):
    """Texts of variable length."""

    name, plural, item = "text", "texts", Text
    filler, has_words = -1, True
    facets: ClassVar[Mapping[str, str]] = {
        "data": "aigc_text.data:TextData",
        "training": "aigc_text.training:TextTraining",
        "evaluation": "aigc_text.evaluation:TextEvaluation",
        "reproduction": "aigc_text.reproduction:TextReproduction",
        "examples": "aigc_text.examples:TextExamples",
    }

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
