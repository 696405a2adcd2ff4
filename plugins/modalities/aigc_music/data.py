"""Reading music."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aigc_sdk.card import checked
from aigc_sdk.data import MusicDataset, MusicDetails, load_music
from aigc_sdk.modality import ModalityData


class MusicData(ModalityData):
    """MIDI, ABC and MusicXML."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> MusicDataset:
        """Read pieces; only a training takes them in other keys too."""
        options = config or {}
        full_bars, pedal = options.get("full_bars", False), options.get("pedal", False)
        return load_music(source, options.get("transpose", 0) if trains else 0, full_bars=full_bars, pedal=pedal)

    def dump(self, details: MusicDetails) -> dict[str, Any]:
        """Return the events where texts have their characters, and the rest."""
        values = asdict(details)
        events = values.pop("events")
        values["bars"] = {str(n): share for n, share in details.bars.items()}
        return {"characters": events, "is_stream": False, "music": values}

    def load(self, values: Mapping[str, Any]) -> MusicDetails:
        """Return what `dump` was given."""
        if not isinstance(music := values.get("music"), Mapping) or values.keys() - {
            "characters",
            "is_stream",
            "music",
        }:
            raise ValueError("these are not the details of music")
        return checked(MusicDetails, {"events": values.get("characters"), **music})
