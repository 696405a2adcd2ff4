"""Labels: which are some, which names the classes have, and which names look alike."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.data.dataset import examples
from aigc_sdk.errors import InvalidData, shown
from aigc_sdk.names import composed, look_alike


def named_labels(
    name: str, n: int, labels: NDArray[Any] | None, label_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Return labels as indices, int64 (n,), and the names of the classes.

    Raises:
        InvalidData: a label is empty, or neither a whole number nor a text.
    """
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
