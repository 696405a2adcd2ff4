"""Cleaning: of all that was decoded, the images that are kept, and a report of the others."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.data.dataset import DataReport, Dataset, examples
from aigc_sdk.data.images import Rejected
from aigc_sdk.data.pixels import MEMORY_BYTES, Decoded, ImageSource, PixelFile
from aigc_sdk.errors import InvalidData, shown
from aigc_sdk.names import composed, look_alike


def cleaned(source: ImageSource, decoded: Decoded, report: DataReport) -> Dataset:
    """Make a Dataset of the images that can be used.

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
    return Dataset(source.name, images, indices, names, report, digests)


def named_labels(
    name: str, n: int, labels: NDArray[Any] | None, label_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Return labels as indices, int64 (n,), and the names of the classes; raises InvalidData for what is no label."""
    if labels is None:
        return None, ()
    if labels.shape != (n,) or labels.dtype.kind not in "iuU":
        raise InvalidData(f"{name}: the labels are {labels.dtype} {labels.shape}; give whole numbers or texts ({n},).")
    if not all(str(label).strip() for label in (labels.tolist() if label_names is None else label_names)):
        raise InvalidData(f"{name}: a label is empty; give every class a name.")
    if label_names is None:
        if labels.dtype.kind == "U":
            labels = np.array([composed(label) for label in labels.tolist()])
        found, indices = np.unique(labels, return_inverse=True)
        order = _order(found.tolist())
        return np.argsort(order)[indices].astype(np.int64), tuple(str(found[i]) for i in order)
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(label_names):
        raise InvalidData(f"{name}: the labels are not all indices of the {len(label_names)} label names.")
    label_names = tuple(map(composed, label_names))
    if len(set(label_names)) < len(label_names):
        raise InvalidData(f"{name}: a label name stands twice among {', '.join(label_names)}.")
    return labels.astype(np.int64), label_names


def check_names(*names: str) -> None:
    """Raise InvalidData for a name of data or of a class that no file can hold, such as one of broken bytes."""
    for name in names:
        if name != name.encode(errors="replace").decode():
            raise InvalidData(
                f"{name!r} is no text that can be written down; rename the file, the folder or the label."
            )


def label_notes(what: str, names: Sequence[str], seen: Iterable[str | int | None] = ()) -> list[str]:
    """Return what is worth knowing of labels: which look alike, and of which nothing was kept.

    Args:
        what: the items are.
        names: of the classes that were kept.
        seen: the labels of all items, also of those that were left out.
    """
    notes = [
        f"labels that differ in blanks, capitals or invisible characters alone: {' and '.join(map(shown, group))}"
        for group in look_alike(names)
    ]
    if lost := sorted({str(label) for label in seen if label not in (None, "")}.difference(names)):
        notes.append(f"labels of which no {what} can be used: {examples(lost)}")
    return notes


def _order(names: list[Any]) -> list[int]:
    """Return the order of sorted names: their own, but that of their values if all of them are texts of digits."""
    if not all(isinstance(name, str) and name.isascii() and name.isdigit() for name in names):
        return list(range(len(names)))
    values = [name.lstrip("0") for name in names]  # no `int`, which refuses more than 4,300 digits
    return sorted(range(len(names)), key=lambda i: (len(values[i]), values[i], names[i]))


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
