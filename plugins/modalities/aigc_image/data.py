"""Reading images."""

from collections.abc import Mapping
from typing import Any

from aigc_sdk.data import Dataset, ImageOptions, load_data
from aigc_sdk.modality import ModalityData

# Fields that every run.json of version 0.1 has, whatever it is of.
_FIELDS: dict[str, Any] = {"characters": {}, "is_stream": False, "music": None}


class ImageData(ModalityData):
    """Arrays, folders and tables of images, brought to one size."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> Dataset:
        """Read images; without options they have to be of one size already."""
        options = None if config is None else ImageOptions.of_config(config)
        return load_data(source, options, workers=(config or {}).get("workers") if trains else None)

    def dump(self, details: Any) -> dict[str, Any]:
        """Return the fields of other kinds, empty."""
        return dict(_FIELDS)

    def load(self, values: Mapping[str, Any]) -> None:
        """Return None: images have no details."""
        if {**_FIELDS, **values} != _FIELDS:
            raise ValueError("these are not the details of images")
