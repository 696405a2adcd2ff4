"""The data set of images."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from aigc_image.decoding import PixelFile
from aigc_image.images import pixel_digest
from aigc_sdk.data.dataset import DataReport, DataSpec, frequencies_of, split_by_digest

_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class ImageDataset:
    """Images with or without labels.

    Attributes:
        name: what people call it.
        images: uint8 (n, height, width, channels), channels 1, 3 or 4: an array, or a file that is read by rows.
        labels: int64 (n,), indices into label_names, or None.
        label_names: the names of the classes.
        report: what reading it found.
        known_digests: uint64 (n,), `pixel_digest` of each image, where reading found them already.
    """

    name: str
    images: NDArray[np.uint8] | PixelFile
    labels: NDArray[np.int64] | None
    label_names: tuple[str, ...]
    report: DataReport = field(default_factory=lambda: DataReport(what="image"))
    known_digests: NDArray[np.uint64] | None = None

    is_stream: ClassVar[bool] = False

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.images)

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of these rows, int64 (k,), as uint8 (k, height, width, channels).

        Example:
            >>> data = ImageDataset("ramp", np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), None, ())
            >>> data.pixels(np.array([1, 1])).ravel().tolist()
            [4, 5, 6, 7, 4, 5, 6, 7]
        """
        return self.images[rows]

    def items(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of these rows, as metrics compare them."""
        return self.pixels(rows)

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """`pixel_digest` of each image, uint64 (n,)."""
        if self.known_digests is not None:
            return self.known_digests
        return np.array([pixel_digest(image) for chunk in self._chunks() for image in chunk], np.uint64)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the shape, the label names, the pixels and the labels."""
        header = json.dumps([self.images.shape, self.label_names])
        digest = hashlib.sha256(header.encode())
        for chunk in self._chunks():
            digest.update(np.ascontiguousarray(chunk).data)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def _chunks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the images in order, as few at a time as memory allows."""
        size = max(1, _CHUNK_BYTES // int(np.prod(self.images.shape[1:])))
        for start in range(0, self.n, size):
            yield self.images[start : start + size]

    def split(self, validation: float, test: float) -> dict[str, NDArray[np.int64]]:
        """Split into train, validation and test, and return the indices of each.

        Where an image goes depends on its pixels alone: copies of one image stay on one side, and
        adding images moves none.

        Args:
            validation: the fraction for validation, 0 to 1.
            test: the fraction for test, 0 to 1.

        Raises:
            InvalidData: nothing is left to train on.
        """
        return split_by_digest(self.name, self.digests, validation, test, "images")

    def spec(self, train: NDArray[np.int64]) -> DataSpec:
        """Describe the data to a family; `train` are the indices of the training part."""
        frequencies = frequencies_of(self.labels, self.label_names, train)
        return DataSpec(self.images.shape[1:], self.label_names, frequencies, len(train))
