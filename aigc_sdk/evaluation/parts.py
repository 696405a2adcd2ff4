"""Which items are real and held out, and which the model was trained on."""

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidData, InvalidRequest
from aigc_sdk.modality import find_modality

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import ModelCard

Array = NDArray[Any]

_SPLIT = ("validation_fraction", "test_fraction")


@dataclass(frozen=True)
class Part:
    """Some items of a data set.

    Attributes:
        dataset: the whole of it.
        rows: int64 (n,), the indices of the items, ascending.
        name: for people, for example "mnist (test)".
    """

    dataset: Any
    rows: NDArray[np.int64]
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fingerprint(self) -> str:
        """The data set's own when it is the whole of it, and else the sha256 of that and the rows."""
        if len(self) == self.dataset.n:
            return str(self.dataset.fingerprint)
        return hashlib.sha256(self.dataset.fingerprint.encode() + self.rows.astype("<i8").tobytes()).hexdigest()

    def __getitem__(self, index: slice | Array) -> Any:
        """Return some of the items."""
        return self.dataset.items(self.rows[index])

    def items(self) -> Any:
        """Return all items, as metrics compare them."""
        return self.dataset.items(self.rows)

    def take(self, n: int, seed: int) -> "Part":
        """Return n of the items, drawn with the seed, or all when there are no more."""
        if n >= len(self):
            return self
        rows = np.random.default_rng(seed).choice(self.rows, n, replace=False)
        return Part(self.dataset, np.sort(rows), self.name)


def find_parts(
    card: "ModelCard | None", modality: str, shape: tuple[int, ...] | None, reference: Any, train: Any
) -> tuple[Part, Part | None]:
    """Return the held-out part of the reference, and what the model was trained on if that is known.

    Data with the card's fingerprint is split as the training split it: the reference is then its test part, and
    training items are its train part. Other data is taken whole. All is brought to the form that the training brought
    its images to, and read as its texts or its music was.

    Args:
        card: of the model; None when nobody knows which model made the contents.
        modality: what the generated items are.
        shape: of one generated item, where they are compared by features.
        reference: what `ModalityData.read` takes.
        train: the same, or None.

    Raises:
        InvalidData: the data cannot be read, is of another size, is the same twice, or its split cannot be told.
        InvalidRequest: an empty path.
    """
    load = partial(read_like, card, modality, shape)
    real = load("reference", reference)
    is_own = card is not None and real.fingerprint == card.data.fingerprint
    known = real if train is None and is_own else None if train is None else load("train", train)
    if known is not None and known.fingerprint == real.fingerprint and not is_own:
        raise InvalidData(
            "reference and train are the same data; a reference has to be data that the model was not trained on."
        )
    return _part(card, real, "test"), None if known is None else _part(card, known, "train")


def read_like(card: "ModelCard | None", modality: str, shape: tuple[int, ...] | None, what: str, source: Any) -> Any:
    """Read data as the training of the card's model read its own; takes and raises what `find_parts` does.

    `what` is what messages call it.
    """
    kind = find_modality(modality)
    try:
        dataset = kind.data.read(source, None if card is None else card.config)
    except (InvalidData, InvalidRequest) as error:
        raise type(error)(f"{what}: {error}") from error
    kind.evaluation.check_form(dataset, shape, what)
    return dataset


def _part(card: "ModelCard | None", dataset: Any, name: str) -> Part:
    if card is None or dataset.fingerprint != card.data.fingerprint:
        return Part(dataset, np.arange(dataset.n), dataset.name)
    fractions = [value for key in _SPLIT if isinstance(value := card.config.get(key), int | float)]
    if len(fractions) < len(_SPLIT):
        raise InvalidData(
            f"{dataset.name} is what {card.name} was trained on, but its card does not tell how it was split"
            f" ({', '.join(_SPLIT)}). Give a reference that it was not trained on, and train= for copying."
        )
    split = dataset.split(*fractions)
    if {part: len(rows) for part, rows in split.items()} != card.data.split:
        raise InvalidData(
            f"{dataset.name} is what {card.name} was trained on, but splits into other parts here than its card says"
            f" ({card.data.split}). Give a reference that it was not trained on, and train= for copying."
        )
    if not len(split[name]):
        raise InvalidData(
            f"{dataset.name} is what {card.name} was trained on, and its {name} part is empty."
            " Give a reference that it was not trained on, and train= for copying."
        )
    return Part(dataset, split[name], f"{dataset.name} ({name} part)")
