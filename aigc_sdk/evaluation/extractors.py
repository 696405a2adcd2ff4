"""Measures by name: `sdk.measure`, and which feature extractor fits contents of which size."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.contents import Contents, Item
from aigc_sdk.errors import InvalidRequest, PluginError, blamed, shown
from aigc_sdk.generation import open_any
from aigc_sdk.modality import Modality, ModalityEvaluation, usable_modalities

if TYPE_CHECKING:
    from aigc_sdk.runtime import OnnxMeasure


def measure(
    measure: "str | os.PathLike[str] | OnnxMeasure", contents: Contents | Sequence[Item | str] | NDArray[Any]
) -> NDArray[np.float32]:
    """Measure contents: features, logits or a score, as the measure's card says.

    Args:
        measure: the name of a ready-made measure (`digits-features`, `digits-features:classify`,
            `efficientnet-lite0`), the path of an `.onnx` file of that kind, or an OnnxMeasure.
        contents: what was generated, or an array as the measure's card describes it: (n, ...), of variable length with
            the modality's filler behind the end of each.

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


def as_array(contents: Any) -> NDArray[Any]:
    """Return contents as one array (n, ...); raises InvalidRequest when they are none, or of several shapes."""
    if isinstance(contents, np.ndarray):
        return contents
    items = list(contents) if isinstance(contents, Contents | list | tuple) else []
    if items and (found := claimed(items, lambda evaluation: evaluation.to_array(items))):
        array: NDArray[Any] = found[1]
        return array
    raise InvalidRequest(
        f"The contents are {shown(contents)}; give at least one of what sdk.generate makes, or an array."
    )


def claimed(given: Any, ask: Callable[[ModalityEvaluation], Any]) -> tuple[Modality, Any] | None:
    """Return the modality that contents are of, and what it makes of them; None where they are of none.

    Args:
        given: contents, never empty.
        ask: what to ask each modality; None as an answer says that the contents are of another one.

    Raises:
        PluginError: the modality that the items are of fails, or cannot be evaluated. Of others that is no matter.
    """
    for modality in usable_modalities():
        is_own = not isinstance(given, np.ndarray) and all(isinstance(item, modality.item) for item in given)
        try:
            with blamed(f"The modality {modality.name!r} failed"):
                answer = ask(modality.evaluation)
        except PluginError:
            if is_own:
                raise
            continue
        if answer is not None:
            return modality, answer
    return None
