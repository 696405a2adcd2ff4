"""Samples of a model in training: what to feed a task whose controls have no default."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.card import ModelCard
from aigc_sdk.modality import Dataset, find_modality


class NoSamples(Exception):
    """There are none, for a reason in words."""


def feed_samples(
    card: ModelCard, data: Dataset, rows: NDArray[np.int64], n: int, modality: str
) -> dict[str, list[Any]]:
    """Return what to feed the controls that have no default, n values each, made of items of the data.

    Args:
        card: of the task.
        data: what the model is trained on.
        rows: int64 (k,), the items to take: those that are validated on.
        n: how many samples there are; fewer items are taken again.
        modality: what the items are.

    Raises:
        NoSamples: the data has nothing for a control.
    """
    needed = [control for control in card.controls if control.default is None]
    if needed and not len(rows):
        raise NoSamples(f"{needed[0].name} has no default, and there are no items to validate on")
    fed = {}
    for control in needed:
        try:
            values = find_modality(modality).training.fed(control, data, np.resize(rows, n))
        except ValueError as error:
            raise NoSamples(str(error)) from error
        if values is None:
            raise NoSamples(f"the {control.kind} {control.name} has no default, and the data has nothing to feed it")
        fed[control.name] = values
    return fed
