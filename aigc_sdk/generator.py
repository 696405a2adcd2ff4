"""Generator: the interface under every model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import GenerationFailed
from aigc_sdk.likeness import Made
from aigc_sdk.modality import find_modality

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import ModelCard, OutputPart

Array = NDArray[Any]


class Generator(ABC):
    """A pure function from seeds and controls to content, with a card that describes it.

    Row i of every output depends on row i of the inputs alone. `run` may be called from many threads.
    `card` says what it takes and makes; `provider` says what ran it, for the provenance; `size_bytes` about how much
    memory it holds, for the bound on what stays loaded (AIGC_SDK_LOADED_MB).
    """

    card: ModelCard
    provider: str
    size_bytes: int = 0

    @abstractmethod
    def run(
        self, seeds: NDArray[np.int64], controls: Mapping[str, Array], *, deadline: float | None = None
    ) -> dict[str, Array]:
        """Make one item for each seed.

        Args:
            seeds: int64 (n,).
            controls: every control of the card, of its dtype, (n, *shape); its shape is () but for pixels and codes.
            deadline: when to give up, in seconds of `time.monotonic`.

        Returns:
            `content` (n, ...) as the card's output says, `length` int64 (n,) if it says so, and the outputs
            `content.NAME` of `parts_of`.

        Raises:
            DeadlineExceeded: the deadline passed.
            GenerationFailed: the model failed.
        """

    def go_on(
        self,
        seeds: NDArray[np.int64],
        controls: Mapping[str, Array],
        state: Mapping[str, Array],
        *,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        """Make more of each item, from where another call stopped; for a model whose card has a state.

        Args:
            seeds: int64 (n,).
            controls: as in `run`; `max_length` is how much more to make.
            state: what `start_state` gives, or by the same names the outputs "NAME.next" of the call before.
            deadline: as in `run`.

        Returns:
            What `run` does, "NAME.next" for each part of the state, and `finished` bool (n,).
        """
        raise NotImplementedError(f"{type(self).__name__} does not stream")

    def close(self) -> None:  # noqa: B027 - most generators have nothing to release
        """Release what the generator holds; it cannot run any more."""


def check_items(card: ModelCard, outputs: Mapping[str, Array], n: int) -> list[Made]:
    """Return the n items of what a generator returned; raises as `check_content` and `check_parts` do."""
    contents, parts = check_content(card, outputs, n), check_parts(card, outputs, n)
    return [Made(content, {name: part[i] for name, part in parts.items()}) for i, content in enumerate(contents)]


def check_content(card: ModelCard, outputs: Mapping[str, Array], n: int) -> list[Array]:
    """Return the n items of what a generator returned, each as long as it says.

    Raises:
        GenerationFailed: it is something else than the card says.
    """
    output, content, length = card.output, outputs["content"], outputs.get("length")
    shape = output.shape
    if output.length:
        shape = (min(content.shape[1] if content.ndim > 1 else 0, shape[0]), *shape[1:])
    if content.dtype != output.dtype or content.shape != (n, *shape):
        raise GenerationFailed(
            f"{card.name} returned {content.dtype} {content.shape} for {n} items;"
            f" its card says {output.dtype} {output.shape} each."
        )
    if not output.length:
        return list(content)
    if length is None or length.dtype != np.int64 or length.shape != (n,):
        raise GenerationFailed(f"{card.name} returned no lengths int64 ({n},), which its card says.")
    if not 0 <= length.min() <= length.max() <= shape[0]:
        raise GenerationFailed(f"{card.name} returned lengths from {length.min()} to {length.max()} of {shape[0]}.")
    return [row[:size] for row, size in zip(content, length.tolist(), strict=True)]


def parts_of(card: ModelCard) -> tuple[OutputPart, ...]:
    """Return the outputs `content.NAME` that a model has."""
    return (*find_modality(card.modality).implied_parts(card.output), *card.output.parts)


def output_names(card: ModelCard) -> tuple[str, ...]:
    """Return the names of what a model makes, besides its state."""
    lengths = ("length",) if card.output.length else ()
    return ("content", *lengths, *(f"content.{part.name}" for part in parts_of(card)))


def check_parts(card: ModelCard, outputs: Mapping[str, Array], n: int) -> dict[str, Array]:
    """Return the outputs `content.NAME` of n items by NAME, (n, *shape) each, in the order of `parts_of`.

    Raises:
        GenerationFailed: one is missing, or is something else than it should be.
    """
    found: dict[str, Array] = {}
    for part in parts_of(card):
        array = outputs.get(f"content.{part.name}")
        if array is None:
            raise GenerationFailed(f"{card.name} returned no content.{part.name}, which {card.modality} has.")
        if array.dtype != np.dtype(part.dtype) or array.shape != (n, *part.shape):
            raise GenerationFailed(
                f"{card.name} returned {array.dtype} {array.shape} as {part.name} of {n} items; it is {part.dtype}"
                f" {part.shape} each."
            )
        low = -np.inf if part.minimum is None else part.minimum
        high = np.inf if part.maximum is None else part.maximum
        if not ((array >= low) & (array <= high)).all():
            raise GenerationFailed(f"{card.name} returned a {part.name} that is not within {low:g} to {high:g}.")
        found[part.name] = array
    if found:
        try:
            find_modality(card.modality).check_values(card.output, found)
        except ValueError as error:
            raise GenerationFailed(f"{card.name} returned {error}.") from error
    return found


def start_state(card: ModelCard, n: int) -> dict[str, Array]:
    """Return the state that a streaming model is fed when n items begin: zeros, by name. Other models have no state.

    Example:
        >>> import aigc_sdk as sdk
        >>> start_state(sdk.load("digits-vae").card, 3)
        {}
    """
    parts = {f"state.{part.name}": np.zeros((n, *part.shape), part.dtype) for part in card.state}
    return parts | {"position": np.zeros(n, np.int64)} if parts else {}
