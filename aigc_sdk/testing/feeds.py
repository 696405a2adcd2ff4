"""Example inputs: item seeds and controls that range over all that may be asked for."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.card import Control
from aigc_sdk.kinds import kind_of
from aigc_sdk.modality import trimmed
from aigc_sdk.seeds import item_seeds

Array = NDArray[Any]


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
    return item_seeds(seed, n), {control.name: kind_of(control).examples(control, n, random) for control in controls}


def feeds_of(controls: Iterable[Control], feeds: Mapping[str, Array], rows: slice) -> dict[str, Array]:
    """Return what some of the items are fed, as in a request for these alone: no padding beyond the longest of them.

    Args:
        controls: of the model.
        feeds: of all items.
        rows: which of them.

    Example:
        >>> import aigc_sdk as sdk
        >>> from aigc_sdk.kinds import padded
        >>> prompt = sdk.load("names").card.control("prompt")
        >>> feeds_of([prompt], {"prompt": padded([[74, 111], [74, 97, 99]])}, slice(0, 1))["prompt"].tolist()
        [[74, 111]]
    """
    ragged = {control.name: kind_of(control) for control in controls if kind_of(control).is_ragged}
    return {
        name: trimmed(values[rows], ragged[name].padding) if name in ragged else values[rows]
        for name, values in feeds.items()
    }
