"""Reading images."""

from collections.abc import Mapping
from typing import Any

from aigc_sdk.data import Dataset, ImageOptions, load_data
from aigc_sdk.modality import ModalityData


class ImageData(ModalityData):
    """Arrays, folders and tables of images, brought to one size."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> Dataset:
        """Read images; without options they have to be of one size already."""
        options = None if config is None else ImageOptions.of_config(config)
        return load_data(source, options, workers=(config or {}).get("workers") if trains else None)
