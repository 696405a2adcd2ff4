"""Comparing a file with the text that was made again."""

from pathlib import Path

from aigc_sdk.contents import Item
from aigc_sdk.errors import NotReproduced, shown
from aigc_sdk.files import read_file
from aigc_sdk.likeness import IDENTICAL
from aigc_sdk.modality import ModalityReproduction


class TextReproduction(ModalityReproduction):
    """Of a .txt file, whose provenance lies beside it."""

    def compare(self, path: Path, made: Item) -> str:
        """Compare every byte."""
        if read_file(path) != str(made).encode():
            raise NotReproduced(
                f"{path} is not what its model makes here, which is {shown(str(made))}. The text was edited, its"
                " provenance is another's, or the model runs differently here (`aigc selftest` tells)."
            )
        return IDENTICAL
