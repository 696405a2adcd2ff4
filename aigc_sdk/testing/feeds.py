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

# Lengths of a neighbour at which an item that depends on its padding may become another: what works in blocks has them
# of some power of two.
_BESIDE = (17, 33, 65, 129)


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


def beside(controls: Iterable[Control]) -> tuple[int, ...]:
    """Return the lengths of neighbours to try, none where no control has a length."""
    return _BESIDE if any(kind_of(control).is_ragged for control in controls) else ()


def feeds_of(
    controls: Iterable[Control], feeds: Mapping[str, Array], rows: slice, longest: int = 0
) -> dict[str, Array]:
    """Return what some of the items are fed, as in a request for these alone: no padding beyond the longest of them.

    Args:
        controls: of the model.
        feeds: of all items.
        rows: which of them.
        longest: the length of a neighbour that is longer, as far as the control takes it; all are padded up to it.

    Example:
        >>> import aigc_sdk as sdk
        >>> from aigc_sdk.codes import encode
        >>> prompt = sdk.load("names").card.control("prompt")
        >>> feeds_of([prompt], {"prompt": encode(["Jo", "Jac"])}, slice(0, 1))["prompt"].tolist()
        [[74, 111]]
    """
    fed = {name: values[rows] for name, values in feeds.items()}
    for control in controls:
        kind = kind_of(control)
        if kind.is_ragged:
            values = trimmed(fed[control.name], kind.padding)
            width = max(values.shape[1], min(longest, int(kind.bounds(control)[1])))
            longer = [(0, 0), (0, width - values.shape[1]), *[(0, 0)] * (values.ndim - 2)]
            fed[control.name] = np.pad(values, longer, constant_values=kind.padding)
    return fed
