"""Samples of a model in training: what to feed a task whose controls have no default."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.card import Control, ModelCard
from aigc_sdk.data import Dataset, MusicDataset, TextDataset


class NoSamples(Exception):
    """There are none, for a reason in words."""


def feed_samples(
    card: ModelCard, data: Dataset | TextDataset | MusicDataset, rows: NDArray[np.int64], n: int
) -> dict[str, list[NDArray[np.uint8]]]:
    """Return what to feed the controls that have no default, n values each, made of items of the data.

    Args:
        card: of the task.
        data: what the model is trained on.
        rows: int64 (k,), the items to take: those that are validated on.
        n: how many samples there are; fewer items are taken again.

    Raises:
        NoSamples: the data has nothing for a control.
    """
    needed = [control for control in card.controls if control.default is None]
    if needed and not len(rows):
        raise NoSamples(f"{needed[0].name} has no default, and there are no items to validate on")
    return {control.name: _values(control, data, np.resize(rows, n)) for control in needed}


def _values(
    control: Control, data: Dataset | TextDataset | MusicDataset, rows: NDArray[np.int64]
) -> list[NDArray[np.uint8]]:
    """Return the images of these rows, in the size that the control takes."""
    if control.kind != "image" or not isinstance(data, Dataset):
        raise NoSamples(f"the {control.kind} {control.name} has no default, and the data has nothing to feed it")
    pixels = data.pixels(rows)
    if pixels.shape[3] != control.shape[2]:
        raise NoSamples(f"{control.name} takes {control.shape[2]} channels, and the data has {pixels.shape[3]}")
    return [_resized(image, control) for image in pixels]


def _resized(image: NDArray[np.uint8], control: Control) -> NDArray[np.uint8]:
    """Return an image (height, width, channels) in the size of a control, each pixel the mean of what it covers."""
    import PIL.Image

    height, width, _ = control.shape
    if image.shape == control.shape:
        return image
    planes: list[Any] = [
        np.asarray(PIL.Image.fromarray(plane).resize((width, height), PIL.Image.Resampling.BOX))
        for plane in np.moveaxis(image, 2, 0)
    ]
    return np.stack(planes, 2)
