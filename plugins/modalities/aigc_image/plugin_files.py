"""Files that a plugin's reader reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aigc_image.decoding import Entry, ImageSource
from aigc_sdk.errors import InvalidData, PluginError, blamed
from aigc_sdk.names import composed
from aigc_sdk.registry import default_registry


def plugin_source(path: Path) -> ImageSource:
    """Find the reader of a file by its suffix.

    Raises:
        InvalidData: there is none.
        PluginError: there are several; or, when the images are read, it failed.
    """
    registry = default_registry()
    readers = registry.readers(path.name)
    if not readers:
        raise InvalidData(
            f"{path} is of no kind that can be read; give an .npz, .npy or IDX file, a folder of images,"
            " a .csv, .tsv or .parquet table, or install a plugin that reads it (`aigc plugins` lists them)."
        )
    if len(readers) > 1:
        names = ", ".join(f"{plugin.name} of {plugin.distribution}" for plugin, _ in readers)
        raise PluginError(f"Several plugins read {path.name}: {names}; name the one to use in AIGC_SDK_PLUGINS.")
    ((plugin, spec),) = readers
    reader = spec.resolve()

    first_n: int | None = None

    def entries() -> Iterator[Entry]:
        nonlocal first_n
        other = f"it gave {first_n} images the first time, and another number now"
        n = 0
        with blamed(f"The reader {spec.name!r} of {plugin.distribution} failed on {path}"):
            for image, label in reader(path):
                if n == first_n:
                    raise ValueError(other)
                yield Entry(f"image {n}", _checked_image(image), _checked_label(label))
                n += 1
            if first_n not in (None, n):
                raise ValueError(other)
            first_n = n

    status = path.stat()
    key = [str(path.resolve()), status.st_size, status.st_mtime_ns, plugin.distribution, plugin.version, spec.name]
    return ImageSource(path.stem, entries, None, key)


def _checked_image(image: Any) -> Any:
    """Return an image as the decoder takes it: an array or a loaded Pillow image."""
    from PIL import Image

    if isinstance(image, Image.Image):
        image.load()
        return image
    is_array = isinstance(image, np.ndarray) and image.dtype == np.uint8 and 0 not in image.shape
    if is_array and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
        return image
    found = f"an array {image.dtype} {image.shape}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
    raise TypeError(f"it gave {found}, not uint8 (height, width[, 1, 3 or 4]) or a Pillow image")


def _checked_label(label: Any) -> str | int | None:
    if label is None or isinstance(label, str):
        return label and composed(label)
    if isinstance(label, int | np.integer) and not isinstance(label, bool):
        return int(label)
    raise TypeError(f"it gave the label {label!r}, not a text, a whole number or None")
