"""Readers: `.npz`, `.npy`, IDX files, folders of images, and arrays become a Dataset."""

import gzip
import math
import os
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.data.dataset import Dataset
from aigc_sdk.errors import InvalidData, StorageError

Array = NDArray[Any]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
LABEL_KEYS = ("labels", "label", "y", "targets")
NAME_KEYS = ("label_names", "class_names", "classes")

_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load_data(source: Any) -> Dataset:
    """Read training data.

    Args:
        source: a path, an array uint8 (n, height, width[, channels]), or a pair of such an array and
            labels (n,). Floats from 0 to 1 and booleans are taken as pixels too.

    Raises:
        InvalidData: it is nothing of this kind, or broken; says what to do.
        StorageError: it cannot be opened.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, str | os.PathLike):
        return _read_path(Path(source))
    if isinstance(source, tuple) and len(source) == 2:
        return _dataset("array", np.asarray(source[0]), np.asarray(source[1]), None)
    if isinstance(source, np.ndarray):
        return _dataset("array", source, None, None)
    raise InvalidData(
        f"data is of type {type(source).__name__}; give a path, an array of images, or a pair (images, labels)."
    )


def _read_path(path: Path) -> Dataset:
    if not path.exists():
        raise InvalidData(f"There is no data at {path}.")
    name = path.name.partition(".")[0] or path.name
    try:
        if path.is_dir():
            return _read_folder(path)
        if path.suffix == ".npz":
            return _read_npz(path, name)
        if path.suffix == ".npy":
            return _dataset(name, _read_npy(path), None, None)
        if _is_idx(path):
            return _read_idx(path, name)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    raise InvalidData(
        f"{path} is of no kind that can be read; give an .npz, .npy or IDX file, or a folder of images."
    )


def _dataset(name: str, images: Array, labels: Array | None, label_names: tuple[str, ...] | None) -> Dataset:
    """Check arrays that may hold anything and make a Dataset of them."""
    pixels = _to_pixels(images, name)
    if labels is None:
        return Dataset(name, pixels, None, ())
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iuUS":
        raise InvalidData(
            f"{name}: the labels are {labels.dtype} {labels.shape}; give whole numbers or names ({len(pixels)},)."
        )
    if label_names is None:
        names, indices = np.unique(labels, return_inverse=True)
        return Dataset(name, pixels, indices.astype(np.int64), tuple(map(str, names.tolist())))
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(label_names):
        raise InvalidData(f"{name}: the labels are not all indices of the {len(label_names)} label names.")
    return Dataset(name, pixels, labels.astype(np.int64), label_names)


def _to_pixels(images: Array, name: str) -> NDArray[np.uint8]:
    """Return uint8 (n, height, width, channels)."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise InvalidData(f"{name}: the images are {images.shape}; give (n, height, width) or (n, height, width, channels).")
    if images.shape[3] not in (1, 3, 4):
        hint = " Channels go last: images.transpose(0, 2, 3, 1)." if images.shape[1] in (1, 3, 4) else ""
        raise InvalidData(f"{name}: the images have {images.shape[3]} channels; 1, 3 or 4 are possible.{hint}")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype.kind == "f" and bool(np.all((images >= 0) & (images <= 1))):
        return np.rint(images * 255).astype(np.uint8)
    low, high = (images.min(), images.max()) if images.dtype.kind in "iuf" else ("?", "?")
    raise InvalidData(
        f"{name}: the images are {images.dtype} from {low} to {high}; give uint8 from 0 to 255, or floats from 0 to 1."
    )


def _read_npy(path: Path) -> Array:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _not_plain(path, error) from error


def _read_npz(path: Path, name: str) -> Dataset:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _not_plain(path, error) from error
    label_key = next((key for key in LABEL_KEYS if key in arrays), None)
    name_key = next((key for key in NAME_KEYS if key in arrays), None)
    rest = [key for key in arrays if key not in (label_key, name_key)]
    if len(rest) != 1:
        raise InvalidData(
            f"{path} holds the arrays {', '.join(arrays) or 'none'}; give one of images, and labels as 'labels'."
        )
    names = None if name_key is None else tuple(map(str, arrays[name_key].tolist()))
    return _dataset(name, arrays[rest[0]], None if label_key is None else arrays[label_key], names)


def _not_plain(path: Path, error: Exception) -> InvalidData:
    if "pickle" in str(error) or "Object arrays" in str(error):
        return InvalidData(
            f"{path} holds Python objects, which are never loaded because they can run code."
            " Save a plain array of numbers instead."
        )
    return InvalidData(f"{path} is broken: {error}.")


def _is_idx(path: Path) -> bool:
    with _open_maybe_gzip(path) as file:
        try:
            magic = file.read(4)
        except (OSError, EOFError, zlib.error):
            return False
    return len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in _IDX_DTYPES and 1 <= magic[3] <= 4


def _read_idx(path: Path, name: str) -> Dataset:
    """Read images in the format of the MNIST site; labels lie beside as ...labels-idx1..."""
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    labels = _read_idx_array(beside) if beside != path and beside.exists() else None
    return _dataset(name, _read_idx_array(path), labels, None)


def _read_idx_array(path: Path) -> Array:
    try:
        with _open_maybe_gzip(path) as file:
            _, _, code, rank = struct.unpack("4B", file.read(4))
            shape = struct.unpack(f">{rank}I", file.read(4 * rank))
            dtype = np.dtype(_IDX_DTYPES[code])
            size = math.prod(shape) * dtype.itemsize
            data = file.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error, KeyError, OverflowError, MemoryError) as error:
        raise InvalidData(f"{path} is broken: {error}.") from error
    if len(data) != size:
        raise InvalidData(f"{path} is broken: its header says {size} bytes, it has {'more' if len(data) > size else len(data)}.")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _open_maybe_gzip(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _read_folder(folder: Path) -> Dataset:
    """Read images of one size; the sub-folder that an image is in is its label."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not pictures:
        found = f"{len(files)} files such as {files[0].name}" if files else "nothing"
        raise InvalidData(f"{folder} has no images, but {found}; images end in {', '.join(sorted(IMAGE_SUFFIXES))}.")
    groups = [path.relative_to(folder).parts[0] if path.parent != folder else "" for path in pictures]
    if "" in groups and len(set(groups)) > 1:
        raise InvalidData(
            f"{folder} has {groups.count('')} images of its own and others in sub-folders; sub-folders are labels,"
            " so put every image into one, or none."
        )
    images = _read_images(pictures)
    labels = None if groups[0] == "" else np.array(groups)
    return _dataset(folder.name, images, labels, None)


def _read_images(paths: list[Path]) -> Array:
    """Return uint8 (n, height, width, channels); channels are the most that any image needs."""
    from PIL import Image

    modes, sizes = Counter[Literal["L", "RGB", "RGBA"]](), Counter[tuple[int, int]]()
    opened = []
    for path in paths:
        try:
            with Image.open(path) as image:
                mode = _mode(image)
                opened.append(image.convert(mode))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InvalidData(f"{path} is no image that can be read: {error}.") from error
        modes[mode] += 1
        sizes[image.size] += 1
    if len(sizes) > 1:
        common = sizes.most_common(1)[0][0]
        other = next(path for path, image in zip(paths, opened, strict=True) if image.size != common)
        raise InvalidData(
            f"The images have {len(sizes)} sizes; most are {common[0]} x {common[1]} pixels, {other} is not."
            " Bring them to one size first."
        )
    mode = "RGBA" if modes["RGBA"] else "RGB" if modes["RGB"] else "L"
    arrays = [np.asarray(image.convert(mode)) for image in opened]
    return np.stack(arrays).reshape(len(arrays), *arrays[0].shape[:2], -1)


def _mode(image: Any) -> Literal["L", "RGB", "RGBA"]:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"
