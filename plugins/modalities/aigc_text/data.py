"""Reading texts."""

from collections.abc import Mapping
from typing import Any

from aigc_sdk.card import checked
from aigc_sdk.data import TextDataset, TextDetails, load_texts
from aigc_sdk.modality import ModalityData


class TextData(ModalityData):
    """Texts: files, lines, rows of a table, or one long stream."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> TextDataset:
        """Read texts; `documents` of the options says what one is."""
        return load_texts(source, (config or {}).get("documents", "file"))

    def dump(self, details: TextDetails) -> dict[str, Any]:
        """Return the characters, and whether they are of a stream."""
        return {"characters": dict(details.characters), "is_stream": details.is_stream, "music": None}

    def load(self, values: Mapping[str, Any]) -> TextDetails:
        """Return what `dump` was given; version 0.1 wrote the field of music too."""
        if values.get("music") is not None:
            raise ValueError("these are not the details of texts")
        return checked(TextDetails, {name: value for name, value in values.items() if name != "music"})
