"""Readers: `.npz`, `.npy`, IDX files, folders of images, and arrays become a Dataset."""

import gzip
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.data.dataset import Dataset
from aigc_sdk.errors import InvalidData, StorageError

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Array = NDArray[Any]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
LABEL_KEYS = ("labels", "label", "y", "targets")
NAME_KEYS = ("label_names", "class_names", "classes")

# What parsing a broken file ends in, in numpy, zipfile, gzip and Pillow, besides OSError.
_BROKEN = (
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

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
        return _dataset("array", _array(source[0]), _array(source[1]), None)
    if isinstance(source, np.ndarray):
        return _dataset("array", source, None, None)
    raise InvalidData(
        f"data is of type {type(source).__name__}; give a path, an array of images, or a pair (images, labels)."
    )


def _array(values: Any) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidData(f"data is no pair of an array of images and one of labels: {error}.") from error


def _read_path(path: Path) -> Dataset:
    if not path.exists():
        raise InvalidData(f"There is no data at {path}.")
    name = path.name.partition(".")[0] or path.name
    try:
        if path.is_dir():
            return _read_folder(path)
        if path.suffix in (".npy", ".npz"):
            return _read_numpy(path, name)
        if _is_idx(path):
            return _read_idx(path, name)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    raise InvalidData(f"{path} is of no kind that can be read; give an .npz, .npy or IDX file, or a folder of images.")


def _dataset(name: str, images: Array, labels: Array | None, label_names: tuple[str, ...] | None) -> Dataset:
    """Check arrays that may hold anything and make a Dataset of them."""
    pixels = _to_pixels(images, name)
    if labels is None:
        return Dataset(name, pixels, None, ())
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iuU":
        raise InvalidData(
            f"{name}: the labels are {labels.dtype} {labels.shape}; give whole numbers or texts ({len(pixels)},)."
        )
    if "" in (labels if label_names is None else label_names):
        raise InvalidData(f"{name}: a label is empty; give every class a name.")
    if label_names is None:
        names, indices = np.unique(labels, return_inverse=True)
        return Dataset(name, pixels, indices.astype(np.int64), tuple(map(str, names.tolist())))
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(label_names):
        raise InvalidData(f"{name}: the labels are not all indices of the {len(label_names)} label names.")
    if len(set(label_names)) < len(label_names):
        raise InvalidData(f"{name}: a label name stands twice among {', '.join(label_names)}.")
    return Dataset(name, pixels, labels.astype(np.int64), label_names)


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
            loaded = np.load(file, allow_pickle=False)
            arrays = {"images": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except _BROKEN as error:
        raise _broken(path, error) from error
    return {key: array for key, array in arrays.items() if isinstance(array, np.ndarray)}


def _read_numpy(path: Path, name: str) -> Dataset:
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
    return _dataset(name, arrays[rest[0]], None if label_key is None else arrays[label_key], names)


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
    except (KeyError, gzip.BadGzipFile, *_BROKEN) as error:
        raise _broken(path, error) from error
    if len(data) != size:
        found = "more" if len(data) > size else len(data)
        raise InvalidData(f"{path} is broken: its header says {size} bytes, it has {found}.")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _open_maybe_gzip(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _read_folder(folder: Path) -> Dataset:
    """Read images of one size; the sub-folder that an image is in is its label."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder)))
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
    return _dataset(folder.resolve().name, images, labels, None)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_images(paths: list[Path]) -> Array:
    """Return uint8 (n, height, width, channels); channels are the most that any image needs."""
    images = [_read_image(path) for path in paths]
    sizes = Counter(image.size for image in images)
    if len(sizes) > 1:
        common = sizes.most_common(1)[0][0]
        other = next(path for path, image in zip(paths, images, strict=True) if image.size != common)
        raise InvalidData(
            f"The images have {len(sizes)} sizes; most are {common[0]} x {common[1]} pixels, {other} is not."
            " Bring them to one size first."
        )
    modes = {image.mode for image in images}
    mode = next(mode for mode in ("RGBA", "RGB", "L") if mode in modes)
    arrays = [np.asarray(image.convert(mode)) for image in images]
    return np.stack(arrays).reshape(len(arrays), *arrays[0].shape[:2], -1)


def _read_image(path: Path) -> "PilImage":
    """Return an image as people see it: upright, of mode L, RGB or RGBA."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise ValueError(f"its pixels are of more than 8 bits (mode {image.mode}); bring them to 8 first")
            return ImageOps.exif_transpose(image).convert(_mode(image))
    except (OSError, Image.DecompressionBombError, *_BROKEN) as error:
        raise InvalidData(f"{path} is no image that can be read: {error}.") from error


def _mode(image: "PilImage") -> Literal["L", "RGB", "RGBA"]:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"
