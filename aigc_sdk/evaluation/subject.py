"""What is evaluated: a model that can make items, or items that were made."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.contents import Contents
from aigc_sdk.errors import InvalidRequest, shown
from aigc_sdk.evaluation.extractors import as_array
from aigc_sdk.generation import Model, load

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import ModelCard

Images = NDArray[np.uint8]

_log = logging.getLogger("aigc_sdk")


@dataclass(frozen=True)
class Subject:
    """A model or contents.

    Attributes:
        name: for people.
        shape: (height, width, channels) of an item.
        model: what makes the items, if they are not made yet.
        images: the items, if they are.
        folder: of the run that made the model, if it was named by it.
    """

    name: str
    shape: tuple[int, ...]
    model: Model | None = None
    images: Images | None = None
    folder: Path | None = None

    @property
    def card(self) -> "ModelCard | None":
        """The model's card."""
        return None if self.model is None else self.model.card

    @property
    def origin(self) -> dict[str, str] | None:
        """What identifies the model."""
        names = ("name", "version", "task", "graph_sha256")
        return None if self.card is None else {name: getattr(self.card, name) for name in names}

    def count(self, n: int | None, default: int) -> int:
        """Return how many items to look at; raises InvalidRequest."""
        most = None if self.images is None else len(self.images)
        if n is None:
            return default if most is None else min(default, most)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= (most or n):
            allowed = f"from 1 to {most}, as many as there are" if most else "of at least 1"
            raise InvalidRequest(f"n is {shown(n)}; give the number of items, a whole number {allowed}.")
        return int(n)

    def make(self, n: int, seed: int, controls: dict[str, Any]) -> Images:
        """Return n items, uint8 (n, height, width, channels); raises as `aigc_sdk.generate` does."""
        if self.model is None:
            assert self.images is not None
            return self.images[:n]
        _log.info("generating %d items with %s", n, self.name)
        made: Images = self.model.generate(n, seed=seed, deadline_s=None, **controls).to_numpy()
        return made


def find_subject(given: Any, controls: dict[str, Any]) -> Subject:
    """Load what `sdk.evaluate` was given; raises as `aigc_sdk.load` does."""
    if not isinstance(given, Contents | np.ndarray):
        model = load(given)
        folder = Path(given) if isinstance(given, str | os.PathLike) and os.path.isdir(given) else None  # noqa: PTH112 - Path.is_dir raises on a path that is too long
        return Subject(model.card.name, tuple(model.card.output.shape), model, folder=folder)
    if controls:
        raise InvalidRequest(f"The contents are made already; {min(controls)} is for a model.")
    images = as_array(given)
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise InvalidRequest(
            f"The contents are {images.dtype} {images.shape}; give uint8 (n, height, width, channels)."
        )
    return Subject("contents", images.shape[1:], images=images)
