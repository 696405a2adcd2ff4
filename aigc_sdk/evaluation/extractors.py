"""Measures by name: `sdk.measure`, and which feature extractor fits contents of which size."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_music.item import Music
from aigc_sdk.codes import encode
from aigc_sdk.contents import Contents, Item
from aigc_sdk.errors import InvalidRequest, shown
from aigc_sdk.generation import open_any
from aigc_text.item import Text

if TYPE_CHECKING:
    from aigc_sdk.runtime import OnnxMeasure

# The extractor that was trained for contents of one shape; all others are left to the general one.
SPECIAL_EXTRACTORS: dict[tuple[int, ...], str] = {(28, 28, 1): "digits-features"}
GENERAL_EXTRACTOR = "efficientnet-lite0"


def measure(
    measure: "str | os.PathLike[str] | OnnxMeasure", contents: Contents | Sequence[Item | str] | NDArray[Any]
) -> NDArray[np.float32]:
    """Measure contents: features, logits or a score, as the measure's card says.

    Args:
        measure: the name of a ready-made measure (`digits-features`, `digits-features:classify`,
            `efficientnet-lite0`), the path of an `.onnx` file of that kind, or an OnnxMeasure.
        contents: what was generated, or images uint8 (n, height, width, channels), all of one size, or texts, or
            notes float32 (n, t, 6), zeros behind the end of each piece.

    Returns:
        float32 (n, K); row i depends on item i alone.

    Raises:
        UnknownName: no such measure.
        InvalidRequest: the contents are not what the measure takes, or it is a model.
        MissingPackage: the measure is made of weights that are not installed; says the pip line.
        InvalidModel, StorageError, PluginError: the measure cannot be loaded.
        GenerationFailed: the measure failed, or gave numbers that are not finite.

    Example:
        >>> import aigc_sdk as sdk
        >>> digits = sdk.generate("digits-vae", label=range(10), seed=7)
        >>> sdk.measure("digits-features", digits).shape
        (10, 64)
        >>> sdk.measure("digits-features:classify", digits).argmax(1).tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    array = as_array(contents)
    return open_measure(measure, array.shape[1:]).run(array)


def open_measure(
    measure: "str | os.PathLike[str] | OnnxMeasure", shape: tuple[int, ...], what: str = "measure"
) -> "OnnxMeasure":
    """Return the measure of that name or path, ready for contents of that shape; raises as `measure` does.

    `what` is what messages call the argument.
    """
    from aigc_sdk.runtime import OnnxMeasure

    if isinstance(measure, OnnxMeasure):
        return measure
    if not isinstance(measure, str | os.PathLike) or not os.fspath(measure):
        raise InvalidRequest(f"{what} is {shown(measure)}; give the name or the path of a measure.")
    opened = open_any(measure, shape=shape)
    opened.card.check_kind("measure")
    assert isinstance(opened, OnnxMeasure)
    return opened


def choose_extractor(shape: tuple[int, ...]) -> "OnnxMeasure":
    """Return the feature extractor for images of one shape, (height, width, channels).

    Raises:
        MissingPackage: it needs the `evaluate` extra; says the pip line.

    Example:
        >>> choose_extractor((28, 28, 1)).card.name
        'digits-features'
    """
    return open_measure(SPECIAL_EXTRACTORS.get(shape, GENERAL_EXTRACTOR), shape)


def as_array(contents: Any) -> NDArray[Any]:
    """Return contents as one array (n, ...); raises InvalidRequest when they are none, or of several shapes."""
    if isinstance(contents, np.ndarray):
        return contents
    items = list(contents) if isinstance(contents, Contents | list | tuple) else []
    if items and all(isinstance(item, str | Text) for item in items):
        return encode(list(map(str, items)))
    if not items or not all(isinstance(item, Item) for item in items):
        raise InvalidRequest(
            f"The contents are {shown(contents)}; give at least one of what sdk.generate makes, or an array."
        )
    if all(isinstance(item, Music) for item in items):
        return _notes(items)
    return Contents(items).to_numpy()


def _notes(pieces: list[Any]) -> NDArray[np.float32]:
    """Return the notes of all pieces, float32 (n, t, 6), zeros behind the end of each."""
    notes = np.zeros((len(pieces), max(1, *(len(piece.data) for piece in pieces)), 6), np.float32)
    for row, piece in zip(notes, pieces, strict=True):
        row[: len(piece.data)] = piece.data
    return notes
