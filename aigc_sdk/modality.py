"""Modality: one kind of content, such as images: which arrays it is made of, and which items come of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.contents import Item, Origin
from aigc_sdk.errors import UnknownName

if TYPE_CHECKING:  # what is looked at, which a modality does not make
    from aigc_sdk.card import OutputPart, OutputSpec

Array = NDArray[Any]


class Modality(ABC):
    """One kind of content. Importing the module that defines it imports numpy at most.

    `name` is what cards say, `plural` what messages call such items; `item` is the class of what comes out; `filler`
    stands in arrays of variable length behind the end of each item; `has_words`: `str` of an item says all of it.
    """

    name: ClassVar[str]
    plural: ClassVar[str]
    item: ClassVar[type[Item]]
    filler: ClassVar[int] = 0
    has_words: ClassVar[bool] = False

    @abstractmethod
    def check_output(self, output: "OutputSpec") -> None:
        """Raise ValueError, in words, where no content of this kind has such arrays."""

    def implied_parts(self) -> tuple["OutputPart", ...]:
        """Return the outputs besides `content` that every model of this kind has, whatever its card says."""
        return ()

    def check_values(self, parts: Mapping[str, Array]) -> None:  # noqa: B027 - most have no more to check
        """Raise ValueError where parts of the right shapes hold values that cannot be.

        Args:
            parts: by name, (n, *shape) each.
        """

    def make(self, data: Array, seed: int, origin: Origin, controls: tuple[Any, ...], parts: tuple[Any, ...]) -> Item:
        """Return one item.

        Args:
            data: what the model made, as long as the item is.
            seed: the item's own.
            origin: what made it.
            controls: the values of the origin's controls.
            parts: its values of the implied parts, in their order.
        """
        return self.item(data, seed, origin, controls, *parts)

    def streamed(self, data: Array) -> Any:
        """Return what `stream` yields of a part of an item."""
        return data


# Where each modality is.
_TARGETS = {
    "image": "aigc_sdk.modalities.image:ImageModality",
    "text": "aigc_sdk.modalities.text:TextModality",
    "music": "aigc_sdk.modalities.music:MusicModality",
}


@cache
def find_modality(name: str) -> Modality:
    """Return the modality of that name.

    Raises:
        UnknownName: no plugin brings it.

    Example:
        >>> find_modality("text").plural
        'texts'
    """
    if name not in _TARGETS:
        raise UnknownName.of("modality", name, list(_TARGETS))
    module, _, attribute = _TARGETS[name].partition(":")
    modality: Modality = getattr(import_module(module), attribute)()
    return modality


def lengths_of(contents: Array, filler: int) -> NDArray[np.int64]:
    """Return how long contents of variable length are, by the filler behind the end of each.

    Args:
        contents: (n, t) or (n, t, k).
        filler: of the modality.

    Example:
        >>> lengths_of(np.array([[104, 105, -1], [-1, -1, -1]]), -1), lengths_of(np.ones((1, 3, 6), np.float32), 0)
        (array([2, 0]), array([3]))
    """
    is_there = (contents != filler).reshape(*contents.shape[:2], -1).any(2)
    places = np.arange(1, contents.shape[1] + 1)
    return np.asarray((is_there * places).max(1, initial=0), np.int64)


def trimmed(contents: Array, filler: int) -> Array:
    """Return contents of variable length without what is behind the end of the longest, but for one place.

    Example:
        >>> trimmed(np.array([[104, 105, -1], [-1, -1, -1]]), -1).tolist()
        [[104, 105], [-1, -1]]
    """
    return contents[:, : max(1, lengths_of(contents, filler).max(initial=0))]
