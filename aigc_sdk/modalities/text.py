"""Texts: Unicode code points, int32 (length,)."""

from typing import TYPE_CHECKING

from aigc_sdk.contents import Text
from aigc_sdk.contents.codes import decode
from aigc_sdk.modality import Array, Modality

if TYPE_CHECKING:
    from aigc_sdk.card import OutputSpec


class TextModality(Modality):
    """Texts of variable length."""

    name, plural, item = "text", "texts", Text
    filler, has_words = -1, True

    def check_output(self, output: "OutputSpec") -> None:
        """Raise ValueError for another dtype or shape, or without a length."""
        if output.dtype != "int32" or len(output.shape) != 1 or output.shape[0] < 1 or not output.length:
            raise ValueError(f"{output}; a text is int32 (at most so many,), with a length")

    def streamed(self, data: Array) -> str:
        """Return the characters."""
        return decode(data)
