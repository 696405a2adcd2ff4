"""Generator: the interface under every model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.contents.keys import KEYS
from aigc_sdk.errors import GenerationFailed

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import ModelCard

Array = NDArray[Any]


# What a model of music says besides of each piece: name, dtype and shape of one.
WRITTEN_PARTS = (("tempo", "float32", ()), ("meter", "int64", (2,)), ("key", "int64", ()))
WRITTEN = tuple(f"content.{name}" for name, _, _ in WRITTEN_PARTS)
# Which part of a whole note a beat of a metre may be.
UNITS = (1, 2, 4, 8, 16, 32)


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
            `content` (n, ...) as the card's output says, `length` int64 (n,) if it says so, and of music also
            how it is written, see `written`.

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


@dataclass(frozen=True)
class Made:
    """One item as arrays.

    Attributes:
        content: as long as the item is.
        parts: what else was made with it, by name: of the output `content.NAME` the row of this item.
    """

    content: Array
    parts: Mapping[str, Array]


def check_items(card: ModelCard, outputs: Mapping[str, Array], n: int) -> list[Made]:
    """Return the n items of what a generator returned; raises as `check_content` and `written` do."""
    contents, parts = check_content(card, outputs, n), written(card, outputs, n)
    names = [name for name, _, _ in parts_of(card)]
    return [
        Made(content, {name: part[i] for name, part in zip(names, parts, strict=True)})
        for i, content in enumerate(contents)
    ]


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


def lengths_of(contents: Array) -> NDArray[np.int64]:
    """Return how long contents of variable length are, by the filler behind the end of each.

    Args:
        contents: codes (n, t), filled with -1, or notes (n, t, k), filled with zeros.

    Example:
        >>> lengths_of(np.array([[104, 105, -1], [-1, -1, -1]])), lengths_of(np.ones((1, 3, 6), np.float32))
        (array([2, 0]), array([3]))
    """
    is_there = contents != -1 if contents.ndim == 2 else (contents != 0).any(2)
    places = np.arange(1, contents.shape[1] + 1)
    return np.asarray((is_there * places).max(1, initial=0), np.int64)


def trimmed(contents: Array) -> Array:
    """Return contents of variable length without what is behind the end of the longest, but for one place.

    Example:
        >>> trimmed(np.array([[104, 105, -1], [-1, -1, -1]])).tolist()
        [[104, 105], [-1, -1]]
    """
    return contents[:, : max(1, lengths_of(contents).max(initial=0))]


def parts_of(card: ModelCard) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return name, dtype and shape of one for each output `content.NAME` that a model has; only music has any."""
    return WRITTEN_PARTS if card.modality == "music" else ()


def output_names(card: ModelCard) -> tuple[str, ...]:
    """Return the names of what a model makes, besides its state."""
    lengths = ("length",) if card.output.length else ()
    return ("content", *lengths, *(f"content.{name}" for name, _, _ in parts_of(card)))


def written(card: ModelCard, outputs: Mapping[str, Array], n: int) -> tuple[Array, ...]:
    """Return how n pieces of music are written; of other modalities nothing.

    Returns:
        tempo float32 (n,), in quarter notes a minute; meter int64 (n, 2), for example 6 and 8, or 0 and 0 for none; key
        int64 (n,), an index in `aigc_sdk.contents.keys.KEYS`, or -1 for none.

    Raises:
        GenerationFailed: it is something else.
    """
    if card.modality != "music":
        return ()
    if missing := [name for name in WRITTEN if name not in outputs]:
        raise GenerationFailed(f"{card.name} returned no {', '.join(missing)}, which music has.")
    tempo, meter, key = (outputs[name] for name in WRITTEN)
    found = [(each.dtype.name, each.shape) for each in (tempo, meter, key)]
    if found != [(dtype, (n, *shape)) for _, dtype, shape in WRITTEN_PARTS]:
        raise GenerationFailed(f"{card.name} returned {found} for tempo, meter and key of {n} pieces.")
    beats, unit = meter[:, 0], meter[:, 1]
    is_meter = ((beats == 0) & (unit == 0)) | ((beats >= 1) & (beats <= 64) & np.isin(unit, UNITS))
    if not ((tempo >= 1) & (tempo <= 1000)).all() or not is_meter.all() or not ((key >= -1) & (key < len(KEYS))).all():
        raise GenerationFailed(f"{card.name} returned a tempo, a metre or a key that is none.")
    return tempo, meter, key


def start_state(card: ModelCard, n: int) -> dict[str, Array]:
    """Return what a model that streams is fed besides at the beginning of n items: zeros, by name; of others nothing.

    Example:
        >>> import aigc_sdk as sdk
        >>> start_state(sdk.load("digits-vae").card, 3)
        {}
    """
    parts = {f"state.{part.name}": np.zeros((n, *part.shape), part.dtype) for part in card.state}
    return parts | {"position": np.zeros(n, np.int64)} if parts else {}
