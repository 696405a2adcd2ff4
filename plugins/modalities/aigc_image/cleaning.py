"""Cleaning: of all that was decoded, the images that are kept, and a report of the others."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from aigc_image.dataset import ImageDataset
from aigc_image.decoding import MEMORY_BYTES, Decoded, ImageSource, PixelFile
from aigc_sdk.data.dataset import DataReport, Rejected
from aigc_sdk.data.labels import label_notes, named_labels
from aigc_sdk.errors import InvalidData


def cleaned(source: ImageSource, decoded: Decoded, report: DataReport) -> ImageDataset:
    """Make a data set of the images that can be used.

    Left out are those that could not be decoded, those without a label where others have one, and all but the first
    of exact copies.

    Args:
        source: where the images came from.
        decoded: what became of each.
        report: what is left out is added to it.

    Raises:
        InvalidData: none is left, or the labels are no labels.
    """
    rows = _kept(decoded, report)
    if not rows:
        raise InvalidData(f"No image of {source.name} can be used. {report.line}.")
    labels = None if decoded.labels[rows[0]] is None else np.array([decoded.labels[row] for row in rows])
    indices, names = named_labels(source.name, len(rows), labels, source.label_names)
    kept = np.array(rows, np.int64)
    images, image_bytes = decoded.images, int(np.prod(decoded.shape))
    if isinstance(images, PixelFile):
        report.cache_bytes = len(decoded.results) * image_bytes
    if isinstance(images, PixelFile) and len(kept) * image_bytes > MEMORY_BYTES:
        images = images.take(kept)
    else:
        images = images[kept]
    report.n = len(kept)
    report.notes += _notes(decoded, indices, names)
    if indices is not None:
        used = [names[index] for index in np.unique(indices)]
        report.notes += label_notes("image", used, names if source.label_names else decoded.labels)
    digests = np.array([decoded.results[row] for row in rows], np.uint64)
    return ImageDataset(source.name, images, indices, names, report, digests)


def _kept(decoded: Decoded, report: DataReport) -> list[int]:
    """Return the rows that are kept, and report the others."""
    rows: list[int] = []
    first: dict[int, int] = {}
    has_labels = any(label not in (None, "") for label in decoded.labels)
    for row, (name, label, result) in enumerate(zip(decoded.names, decoded.labels, decoded.results, strict=True)):
        if isinstance(result, Rejected):
            report.skip(result.reason, name, result.detail)
        elif has_labels and label in (None, ""):
            report.skip("no label", name)
        elif (other := first.setdefault(result, row)) != row and _is_copy(decoded, row, other):
            differs = label != decoded.labels[other]
            report.skip("copy with another label" if differs else "copy", name, f"of {decoded.names[other]}")
        else:
            rows.append(row)
    return rows


def _is_copy(decoded: Decoded, row: int, other: int) -> bool:
    return bool(np.array_equal(decoded.images[row], decoded.images[other]))


def _notes(decoded: Decoded, indices: NDArray[np.int64] | None, names: tuple[str, ...]) -> list[str]:
    height, width, channels = decoded.shape
    notes = [f"{width} x {height} pixels, {channels} {'channel' if channels == 1 else 'channels'}"]
    counts = Counter([] if indices is None else indices.tolist())
    if alone := [names[index] for index in sorted(counts) if counts[index] == 1]:
        notes.append(f"only one image of each of these labels: {', '.join(alone)}")
    return notes
