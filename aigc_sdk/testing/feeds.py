"""Example inputs: item seeds and controls that range over all that may be asked for."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.card import Control
from aigc_sdk.contents.codes import encode
from aigc_sdk.contents.events import event_code
from aigc_sdk.generator import trimmed
from aigc_sdk.seeds import MAX_SEED, item_seeds

Array = NDArray[Any]

# Prompts and what is made of them are short, or examples would take long.
_MOST_CHARACTERS = 12
_MOST_LENGTH = 40


def example_feeds(controls: Iterable[Control], n: int, seed: int) -> tuple[NDArray[np.int64], dict[str, Array]]:
    """Return item seeds and controls that range over all that may be asked for.

    Args:
        controls: of the model.
        n: the number of items.
        seed: of the choices.

    Example:
        >>> import aigc_sdk as sdk
        >>> seeds, feeds = example_feeds(sdk.load("digits-vae").card.controls, 3, seed=1)
        >>> seeds.shape, {name: (values.dtype.name, values.shape) for name, values in feeds.items()}
        ((3,), {'label': ('int64', (3,)), 'temperature': ('float32', (3,))})
    """
    random = np.random.default_rng(seed)

    def values(control: Control) -> Array:
        low, high = (min(max(bound, -1000), MAX_SEED) for bound in control.range)
        if control.is_coded:
            lengths = random.integers(0, min(int(high), _MOST_CHARACTERS), n, endpoint=True)
            drawn = [random.choice(control.choices, length) for length in lengths]
            is_text = control.kind == "text"
            return encode(["".join(each) if is_text else list(map(event_code, each)) for each in drawn])
        if control.name == "max_length":
            high = min(high, _MOST_LENGTH)
        if control.kind == "number":
            return random.uniform(low, high, n).astype(control.dtype)
        if control.is_pixels:
            return _example_pixels(control, n, random)
        return random.integers(int(low), int(high), n, endpoint=True).astype(control.dtype)

    return item_seeds(seed, n), {control.name: values(control) for control in controls}


def feeds_of(controls: Iterable[Control], feeds: Mapping[str, Array], rows: slice) -> dict[str, Array]:
    """Return what some of the items are fed, as in a request for these alone: no padding beyond the longest of them.

    Args:
        controls: of the model.
        feeds: of all items.
        rows: which of them.

    Example:
        >>> import aigc_sdk as sdk
        >>> controls = sdk.load("names").card.controls
        >>> feeds = {"prompt": encode(["Jo", "Charlotte"])}
        >>> feeds_of([control for control in controls if control.is_coded], feeds, slice(0, 1))["prompt"].tolist()
        [[74, 111]]
    """
    coded = {control.name for control in controls if control.is_coded}
    return {name: trimmed(values[rows]) if name in coded else values[rows] for name, values in feeds.items()}


def _example_pixels(control: Control, n: int, random: np.random.Generator) -> Array:
    """Return patches of one level each, uint8 (n, height, width, channels), which pack small; of a mask 0 or 255."""
    height, width, channels = control.shape
    if control.kind == "mask":
        levels = random.integers(0, 2, (n, 4, 4, channels)) * 255
    else:
        levels = random.integers(0, 256, (n, 4, 4, channels))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return levels.astype(control.dtype)[:, rows[:, None], columns]
