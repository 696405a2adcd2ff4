"""Reading music."""

from collections.abc import Mapping
from typing import Any

from aigc_sdk.data import MusicDataset, load_music
from aigc_sdk.modality import ModalityData


class MusicData(ModalityData):
    """MIDI, ABC and MusicXML."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> MusicDataset:
        """Read pieces; only a training takes them in other keys too."""
        options = config or {}
        full_bars, pedal = options.get("full_bars", False), options.get("pedal", False)
        return load_music(source, options.get("transpose", 0) if trains else 0, full_bars=full_bars, pedal=pedal)
