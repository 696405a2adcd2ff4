"""Reading texts."""

from collections.abc import Mapping
from typing import Any

from aigc_sdk.data import TextDataset, load_texts
from aigc_sdk.modality import ModalityData


class TextData(ModalityData):
    """Texts: files, lines, rows of a table, or one long stream."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> TextDataset:
        """Read texts; `documents` of the options says what one is."""
        return load_texts(source, (config or {}).get("documents", "file"))
