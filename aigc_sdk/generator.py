"""Generator: the interface under every model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import GenerationFailed

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import ModelCard

Array = NDArray[Any]


class Generator(ABC):
    """A pure function from seeds and controls to content, with a card that describes it.

    Row i of every output depends on row i of the inputs alone. `run` may be called from many threads.
    `card` says what it takes and makes; `provider` says what ran it, for the provenance.
    """

    card: ModelCard
    provider: str

    @abstractmethod
    def run(
        self, seeds: NDArray[np.int64], controls: Mapping[str, Array], *, deadline: float | None = None
    ) -> dict[str, Array]:
        """Make one item for each seed.

        Args:
            seeds: int64 (n,).
            controls: every control of the card, of its dtype, (n, *shape); its shape is () but for pixels.
            deadline: when to give up, in seconds of `time.monotonic`.

        Returns:
            `content` (n, ...) as the card's output says, and `length` int64 (n,) if it says so.

        Raises:
            DeadlineExceeded: the deadline passed.
            GenerationFailed: the model failed.
        """

    def close(self) -> None:  # noqa: B027 - most generators have nothing to release
        """Release what the generator holds; it cannot run any more."""


def check_content(card: ModelCard, content: Array, n: int) -> None:
    """Raise GenerationFailed when a generator returned something else than its card says, for n items."""
    output = card.output
    if content.dtype != output.dtype or content.shape != (n, *output.shape):
        raise GenerationFailed(
            f"{card.name} returned {content.dtype} {content.shape} for {n} items;"
            f" its card says {output.dtype} {output.shape} each."
        )
