"""`load_data`: arrays, .npz, .npy and IDX files, folders and tables of images, and plugins' files become a Dataset."""

import gzip
import logging
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_image.cleaning import cleaned
from aigc_image.dataset import ImageDataset
from aigc_image.decoding import decode_all
from aigc_image.folders import csv_source, folder_source, parquet_source
from aigc_image.images import ImageOptions, brought_to
from aigc_image.plugin_files import plugin_source
from aigc_sdk.broken import BROKEN
from aigc_sdk.data.dataset import DataReport
from aigc_sdk.data.labels import check_names, label_notes, named_labels
from aigc_sdk.data.tables import LABEL_KEYS
from aigc_sdk.errors import AigcError, InvalidData
from aigc_sdk.files import as_path, storage_error
from aigc_sdk.modality import ModalityData

Array = NDArray[Any]


NAME_KEYS = ("label_names", "class_names", "classes")

_log = logging.getLogger("aigc_sdk")

_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load_data(source: Any, options: ImageOptions | None = None, *, workers: int | None = None) -> ImageDataset:
    """Read a data set; what was left out and why is in its `report`, and logged.

    Args:
        source: a path, an array uint8 (n, height, width[, channels]), or a pair of such an array and
            labels (n,). Floats from 0 to 1 and booleans are taken as pixels too. A Dataset is returned as it is.
        options: what the images are brought to; without them, they must be of one size.
        workers: how many processes decode images from files; 0 is none, and without it as many as there are cores.

    Raises:
        InvalidData: it is nothing of this kind, or broken, or holds less than two different images; says what to do.
        InvalidRequest: an empty path.
        StorageError: it cannot be opened, or its pixels find no room in the cache.
        MissingPackage: a .parquet table without pyarrow.
        PluginError: a reader of a plugin failed.

    Example:
        >>> data = load_data(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), ImageOptions(size=2, mode="rgb"))
        >>> data.images.shape
        (4, 2, 2, 3)
    """
    options = options or ImageOptions()
    if isinstance(source, ImageDataset):
        return source
    if isinstance(source, str | os.PathLike):
        data = _read_path(as_path(source, "data"), options, workers)
    elif isinstance(source, tuple) and len(source) == 2:
        data = _dataset("array", _array(source[0]), _array(source[1]), None, options)
    elif isinstance(source, np.ndarray):
        data = _dataset("array", source, None, None, options)
    else:
        raise InvalidData(
            f"data is of type {type(source).__name__}; give a path, an array of images, or a pair (images, labels)."
        )
    if data.n < 2 or len(np.unique(data.digests)) < 2:
        found = "only one image" if data.n < 2 else "images that are all the same"
        raise InvalidData(f"{data.name} has {found}; give at least two different ones. {data.report.line}.")
    check_names(data.name, *data.label_names)
    _log.log(logging.WARNING if data.report.skipped else logging.INFO, "%s: %s", data.name, data.report)
    return data


def _array(values: Any) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidData(f"data is no pair of an array of images and one of labels: {error}.") from error


def _read_path(path: Path, options: ImageOptions, workers: int | None) -> ImageDataset:
    name, suffix = path.name.partition(".")[0] or path.name, path.suffix.lower()
    try:
        if not path.exists():
            raise InvalidData(f"There is no data at {path}.")
        if not path.is_file() and not path.is_dir():
            raise InvalidData(f"{path} is no file and no folder.")
        if suffix in (".npy", ".npz") and path.is_file():
            return _read_numpy(path, name, options)
        if path.is_file() and suffix not in (".csv", ".tsv", ".parquet") and _is_idx(path):
            return _read_idx(path, name, options)
        report = DataReport(what="image")
        if path.is_dir():
            source = folder_source(path, report)
        elif suffix in (".csv", ".tsv"):
            source = csv_source(path, report)
        else:
            source = parquet_source(path, report) if suffix == ".parquet" else plugin_source(path)
        return cleaned(source, decode_all(source, options, workers), report)
    except AigcError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise storage_error("read", path, error) from error


def _dataset(
    name: str, images: Array, labels: Array | None, label_names: tuple[str, ...] | None, options: ImageOptions
) -> ImageDataset:
    """Check arrays that may hold anything and make a Dataset of them; all of it is kept, copies are only counted."""
    pixels = brought_to(_to_pixels(images, name), options)
    indices, names = named_labels(name, len(pixels), labels, label_names)
    data = ImageDataset(name, pixels, indices, names, DataReport(len(pixels), what="image"))
    if copies := data.n - len(np.unique(data.digests)):
        data.report.notes.append(f"{copies:,} are exact copies of others, and kept")
    data.report.notes += label_notes("image", names)
    return data


def _to_pixels(images: Array, name: str) -> NDArray[np.uint8]:
    """Return uint8 (n, height, width, channels)."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise InvalidData(
            f"{name}: the images are {images.shape}; give (n, height, width) or (n, height, width, channels)."
        )
    if images.shape[3] not in (1, 3, 4):
        hint = " Channels go last: images.transpose(0, 2, 3, 1)." if images.shape[1] in (1, 3, 4) else ""
        raise InvalidData(f"{name}: the images have {images.shape[3]} channels; 1, 3 or 4 are possible.{hint}")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype == np.bool_:
        return np.where(images, np.uint8(255), np.uint8(0))
    if images.dtype.kind == "f" and bool(np.all((images >= 0) & (images <= 1))):
        pixels: NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
        return pixels
    low, high = (images.min(), images.max()) if images.dtype.kind in "iuf" else ("?", "?")
    raise InvalidData(
        f"{name}: the images are {images.dtype} from {low} to {high}; give uint8 from 0 to 255, or floats from 0 to 1."
    )


def _load_numpy(path: Path) -> dict[str, Array]:
    """Return the arrays of an .npz file by name, or the one of an .npy file; never runs what is inside."""
    try:
        with open(path, "rb") as file:  # numpy itself leaves a broken .npz open
            # Whatever is neither of NumPy's formats nor a pickle, numpy would take for a pickle.
            if not (beginning := file.read(6)).startswith((b"\x93NUMPY", b"PK", b"\x80")):
                raise ValueError(f"it begins with {beginning!r}, as no NumPy file does")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            arrays = {"images": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except BROKEN as error:
        raise _broken(path, error) from error
    return {key: array for key, array in arrays.items() if isinstance(array, np.ndarray)}


def _read_numpy(path: Path, name: str, options: ImageOptions) -> ImageDataset:
    arrays = _load_numpy(path)
    label_key = next((key for key in LABEL_KEYS if key in arrays), None)
    name_key = next((key for key in NAME_KEYS if key in arrays), None)
    rest = [key for key in arrays if key not in (label_key, name_key)]
    if len(rest) != 1:
        raise InvalidData(
            f"{path} holds the arrays {', '.join(arrays) or 'none'}; give one of images, and labels as 'labels'."
        )
    names = None
    if name_key is not None:
        if arrays[name_key].ndim != 1 or arrays[name_key].dtype.kind != "U":
            raise InvalidData(f"{path}: {name_key!r} is no array of texts (classes,).")
        names = tuple(arrays[name_key].tolist())
    return _dataset(name, arrays[rest[0]], None if label_key is None else arrays[label_key], names, options)


def _broken(path: Path, error: Exception) -> InvalidData:
    if "pickle" in str(error) or "Object arrays" in str(error):
        return InvalidData(
            f"{path} holds Python objects, which are never loaded because they can run code."
            " Save a plain array of numbers instead."
        )
    return InvalidData(f"{path} is broken: {str(error) or type(error).__name__}.")


def _is_idx(path: Path) -> bool:
    with _open_maybe_gzip(path) as file:
        try:
            magic = file.read(4)
        except (OSError, EOFError, zlib.error):
            return False
    return len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in _IDX_DTYPES and 1 <= magic[3] <= 4


def _read_idx(path: Path, name: str, options: ImageOptions) -> ImageDataset:
    """Read images in the format of the MNIST site; labels lie beside as ...labels-idx1..."""
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    labels = _read_idx_array(beside) if beside != path and beside.exists() else None
    return _dataset(name, _read_idx_array(path), labels, None, options)


def _read_idx_array(path: Path) -> Array:
    try:
        with _open_maybe_gzip(path) as file:
            _, _, code, rank = struct.unpack("4B", file.read(4))
            shape = struct.unpack(f">{rank}I", file.read(4 * rank))
            dtype = np.dtype(_IDX_DTYPES[code])
            size = math.prod(shape) * dtype.itemsize
            data = file.read(size + 1)
    except (KeyError, gzip.BadGzipFile, *BROKEN) as error:
        raise _broken(path, error) from error
    if len(data) != size:
        found = "more" if len(data) > size else len(data)
        raise InvalidData(f"{path} is broken: its header says {size} bytes, it has {found}.")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _open_maybe_gzip(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


# Fields that every run.json of version 0.1 has, whatever it is of.
_FIELDS: dict[str, Any] = {"characters": {}, "is_stream": False, "music": None}


class ImageData(ModalityData):
    """Arrays, folders and tables of images, brought to one size."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> ImageDataset:
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
