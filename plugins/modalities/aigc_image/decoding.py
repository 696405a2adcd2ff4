"""Pixels of many images: decoded once, by several processes, into memory or into one file of the cache.

The file holds the rows one after the other, and a JSON file beside it what became of each image. Both are named by
what they were made from: paths, sizes and times of the files, and the options. A data set that has been read before
is there at once. Files that no data set has used for 30 days are removed when a new one is made.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aigc_image.images import CHANNELS, ImageOptions, decode, decode_into_file, pixel_digest, probe
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.data.workers import WorkerLost, Workers, available_workers
from aigc_sdk.errors import InvalidData, StorageError
from aigc_sdk.files import atomic_write, cache_folder, make_folder, remove_unused, storage_error, write_bytes

MEMORY_BYTES = 256 * 2**20  # pixels up to here are held in memory

_FEW = 128  # images are decoded sooner than processes start that could help
_CHUNK = 16  # images in a call of a worker
_STRAYS = 0.1  # images of another size are left out up to this share, and more are an error
_LOST = "hangs or crashes"
_FORMAT = 3  # counts up when the same files and options give other pixels


_log = logging.getLogger("aigc_sdk")


class Entry(NamedTuple):
    """One image of a source: its name, what `probe` and `decode` take, and its label."""

    name: str
    item: Any
    label: str | int | None


@dataclass(frozen=True)
class ImageSource:
    """Where images come from.

    Attributes:
        name: what people call the data.
        entries: yields the images, the same ones each time.
        n: how many there are; None when only going through them tells, and then no worker helps.
        key: what the pixels depend on, besides the options: as JSON can hold it.
        label_names: the names of labels that are indices.
    """

    name: str
    entries: Callable[[], Iterable[Entry]]
    n: int | None
    key: list[Any]
    label_names: tuple[str, ...] | None = None


class PixelFile:
    """Rows of pixels in a file, read when they are asked for; it can be indexed like an array by its first axis.

    Args:
        path: the file, rows of uint8 one after the other.
        shape: (height, width, channels) of a row.
        rows: int64 (n,), which rows of the file, in which order.
    """

    dtype = np.dtype(np.uint8)
    _lock = threading.Lock()  # of the position, on Windows, which has no forks and no os.pread

    def __init__(self, path: Path, shape: tuple[int, int, int], rows: NDArray[np.int64]) -> None:
        self._path, self._row_shape, self._rows = path, shape, rows
        try:
            # Not mapped into memory: what was read would count as the process's own.
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed when the last user lets go of it
        except OSError as error:
            raise storage_error("read", path, error) from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, height, width, channels)."""
        return len(self._rows), *self._row_shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        rows = self._rows[index]
        pixels = np.empty((*np.shape(rows), *self._row_shape), np.uint8)
        size = math.prod(self._row_shape)
        for row, target in zip(np.ravel(rows), pixels.reshape(-1, size), strict=True):
            if self._read_into(target, int(row) * size) != size:
                raise StorageError(f"{self._path} is cut short; it was changed while it was in use. Start again.")
        return pixels

    def _read_into(self, target: NDArray[np.uint8], offset: int) -> int:
        """Read bytes from an offset, and return how many there were; processes that were forked share the position."""
        if hasattr(os, "pread"):
            found = os.pread(self._file.fileno(), target.nbytes, offset)
            target[: len(found)] = np.frombuffer(found, np.uint8)
            return len(found)
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(target.data) or 0

    def take(self, rows: NDArray[np.int64]) -> "PixelFile":
        """Return the file with these of its rows."""
        return PixelFile(self._path, self._row_shape, self._rows[rows])


@dataclass
class Decoded:
    """A source after decoding: for each image its name, its label, and its digest or why it has none."""

    shape: tuple[int, int, int]
    images: NDArray[np.uint8] | PixelFile
    names: list[str] = field(default_factory=list)
    labels: list[str | int | None] = field(default_factory=list)
    results: list[int | Rejected] = field(default_factory=list)

    def add(self, entry: Entry, result: int | Rejected) -> None:
        """Note what became of the next image."""
        self.names.append(entry.name)
        self.labels.append(entry.label)
        self.results.append(result)


def decode_all(source: ImageSource, options: ImageOptions, workers: int | None) -> Decoded:
    """Decode every image of a source, or find it decoded in the cache.

    Args:
        source: where the images come from.
        options: what they are brought to.
        workers: how many processes help; 0 is none, and without it as many as the machine has cores.

    Raises:
        InvalidData: no image can be opened, or they are of too many sizes.
        StorageError: the disk is full, or the cache cannot be written.
    """
    key = _key(source, options)
    if (decoded := _load(key)) is not None:
        return decoded
    if source.n is None or (workers is None and source.n <= _FEW):
        workers = 0
    with Workers(available_workers() if workers is None else workers) as pool:
        shape, n = _shape(source, options, pool)
        if workers == 0 and n * math.prod(shape) <= MEMORY_BYTES:
            return _decode_in_memory(source, n, shape, options)
        return _decode_to_file(source, n, shape, options, pool, _path(key))


def _key(source: ImageSource, options: ImageOptions) -> str:
    from PIL import __version__

    made_from = [_FORMAT, __version__, options.shape, options.fit, options.mode, source.key]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]


def _path(key: str) -> Path:
    """Return the file of pixels of that key; raises StorageError when there is no place for a cache."""
    return cache_folder() / "pixels" / f"{key}.bin"


def _shape(source: ImageSource, options: ImageOptions, pool: Workers) -> tuple[tuple[int, int, int], int]:
    """Return (height, width, channels) to bring the images to, and how many there are."""
    if options.shape is not None and options.mode != "auto" and source.n is not None:
        return (*options.shape, CHANNELS[options.mode]), source.n  # type: ignore[return-value]  # shape has two sides
    n, sizes, channels, first = 0, Counter[tuple[int, int]](), 1, dict[tuple[int, int], str]()
    for chunk, found in _run(pool, source, probe, lambda _, items: (items, options)):
        n += len(chunk)
        for entry, size in zip(chunk, found, strict=True):
            if size is not None and not isinstance(size, Rejected):
                sizes[size[:2]] += 1
                channels = max(channels, size[2])
                first.setdefault(size[:2], entry.name)
    (height, width), count = sizes.most_common(1)[0] if sizes else ((1, 1), 0)
    if count < (1 - _STRAYS) * sizes.total():
        other = next(name for size, name in first.items() if size != (height, width))
        raise InvalidData(
            f"The images of {source.name} have {len(sizes)} sizes; {count} of {sizes.total()} are {width} x {height}"
            f" pixels, {other} is not. Bring them to one: with image_size=64 or another number of pixels a side;"
            " image_fit=crop, pad or stretch says how."
        )
    return (height, width, channels), n


def _run(
    pool: Workers, source: ImageSource, function: Callable[..., list[Any]], call: Callable[[int, list[Any]], Any]
) -> Iterator[tuple[list[Entry], list[Any]]]:
    """Yield the entries chunk by chunk, with what a function returned for each.

    Args:
        pool: makes the calls.
        source: of the entries.
        function: takes items and returns a list of as many results.
        call: gives its arguments for items that start at a row.
    """
    entries = iter(source.entries())
    chunks = iter(lambda: list(islice(entries, _CHUNK)), [])
    called = pool.map_chunks(function, chunks, lambda start, chunk: call(start, [entry.item for entry in chunk]))
    for chunk, results in called:
        yield chunk, [Rejected(_LOST, str(each)) if isinstance(each, WorkerLost) else each for each in results]


def _decode_in_memory(source: ImageSource, n: int, shape: tuple[int, int, int], options: ImageOptions) -> Decoded:
    images = np.zeros((n, *shape), np.uint8)
    decoded = Decoded(shape, images)
    for entry, row in zip(source.entries(), images, strict=True):
        pixels = decode(entry.item, shape, options)
        if isinstance(pixels, Rejected):
            decoded.add(entry, pixels)
        else:
            row[...] = pixels
            decoded.add(entry, pixel_digest(pixels))
    return decoded


def _decode_to_file(
    source: ImageSource, n: int, shape: tuple[int, int, int], options: ImageOptions, pool: Workers, path: Path
) -> Decoded:
    """Write the rows to the file and what became of each to the JSON file beside it."""
    try:
        folder = make_folder(path.parent)
    except StorageError as error:
        raise StorageError(f"{error} It is for decoded pixels; AIGC_SDK_CACHE names another folder.") from error
    remove_unused(folder)
    size_bytes, free_bytes = n * math.prod(shape), shutil.disk_usage(folder).free
    if size_bytes > free_bytes:
        raise StorageError(
            f"{source.name} takes {size_bytes / 1e9:.1f} GB as pixels and {folder} has {free_bytes / 1e9:.1f} GB left;"
            " make room, name another folder in AIGC_SDK_CACHE, or take a smaller image_size."
        )
    _log.info("decoding %s images of %s once, into %s", f"{n:,}", source.name, path)
    decoded = Decoded(shape, np.empty((0, *shape), np.uint8))
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            file.truncate(size_bytes)
        target = str(temporary)
        for chunk, results in _run(
            pool, source, decode_into_file, lambda start, items: (items, start, target, shape, options)
        ):
            for entry, result in zip(chunk, results, strict=True):
                decoded.add(entry, result)
        if may_change := any(map(_may_change, decoded.results)):
            path.with_suffix(".json").unlink(missing_ok=True)  # of other rows than these
    if not may_change:
        kept = {"shape": shape, "names": decoded.names, "labels": decoded.labels, "results": decoded.results}
        write_bytes(path.with_suffix(".json"), json.dumps(kept).encode())
    decoded.images = PixelFile(path, shape, np.arange(len(decoded.names)))
    return decoded


def _may_change(result: int | Rejected) -> bool:
    """Whether the same file may be decoded the next time, though its size and time are the same."""
    return isinstance(result, Rejected) and result.reason in ("no permission", _LOST)


def _load(key: str) -> Decoded | None:
    """Return what was decoded before, and mark it as used; None when it is not there whole."""
    try:
        path = _path(key)
        beside = path.with_suffix(".json")
        kept = json.loads(beside.read_bytes())
        height, width, channels = kept["shape"]
        results = [result if isinstance(result, int) else Rejected(*result) for result in kept["results"]]
        if path.stat().st_size != len(results) * height * width * channels:
            return None
        for used in (path, beside):
            os.utime(used)
        images = PixelFile(path, (height, width, channels), np.arange(len(results)))
        return Decoded((height, width, channels), images, kept["names"], kept["labels"], results)
    except (OSError, ValueError, KeyError, TypeError):
        return None
