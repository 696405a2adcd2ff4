"""A data set of images in memory, its fingerprint, and its split into train, validation and test."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidData

Array = NDArray[Any]


@dataclass(frozen=True)
class DataSpec:
    """What a family needs to know of the data to build its modules.

    Attributes:
        shape: (height, width, channels).
        labels: the names of the classes, () for data without labels.
        label_frequencies: how often each class occurs in the training part; sums to 1.
    """

    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    label_frequencies: tuple[float, ...]


@dataclass(frozen=True)
class Dataset:
    """Images with or without labels.

    Attributes:
        name: what people call it.
        images: uint8 (n, height, width, channels), channels 1, 3 or 4.
        labels: int64 (n,), indices into label_names, or None.
        label_names: the names of the classes.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    label_names: tuple[str, ...]

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the shape, the label names, the pixels and the labels."""
        header = json.dumps([self.images.shape, self.label_names])
        digest = hashlib.sha256(header.encode())
        digest.update(np.ascontiguousarray(self.images).data)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of these rows, uint8 (k, height, width, channels)."""
        return self.images[rows]

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
        place = np.array([_fraction(image) for image in self.images])
        parts = {
            "train": np.flatnonzero(place >= test + validation),
            "validation": np.flatnonzero((place >= test) & (place < test + validation)),
            "test": np.flatnonzero(place < test),
        }
        if not len(parts["train"]):
            raise InvalidData(f"{self.name} has {self.n} images and none is left to train on; use smaller fractions.")
        return parts

    def spec(self, train: NDArray[np.int64]) -> DataSpec:
        """Describe the data to a family; `train` are the indices of the training part."""
        height, width, channels = self.images.shape[1:]
        if self.labels is None:
            return DataSpec((height, width, channels), (), ())
        counts = np.bincount(self.labels[train], minlength=len(self.label_names))
        return DataSpec((height, width, channels), self.label_names, tuple((counts / counts.sum()).tolist()))


def _fraction(image: Array) -> float:
    digest = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
