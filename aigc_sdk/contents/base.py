"""What every modality shares: an item with its seed and provenance, and the batch."""

import copy
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidRequest, StorageError, shown
from aigc_sdk.exhibits import Exhibit
from aigc_sdk.files import as_path, atomic_pair, make_folder
from aigc_sdk.seeds import MAX_INDEX

if TYPE_CHECKING:
    from aigc_sdk.card import ModelCard

PROVENANCE_KEY = "aigc.provenance"

Array = NDArray[Any]


_NO_PARTS: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Origin:
    """What all items of one request share: what made them, the names of the controls, and the card, if it is known."""

    model: str
    version: str
    graph_sha256: str
    task: str
    sdk_version: str
    provider: str
    controls: tuple[str, ...] = ()
    card: "ModelCard | None" = field(default=None, compare=False, repr=False)


class Item(ABC):
    """One generated item: `.data` (numpy), `.seed`, `.provenance`, `.save(path)`.

    It owns its data and the values of its controls, and holds nothing of the batch that it was made in.

    Args:
        data: what the model made.
        seed: the item's own.
        origin: what made it.
        controls: the values of the origin's controls, as the provenance shows them.
        parts: what the model made besides, by name.
    """

    __slots__ = ("_controls", "_origin", "data", "parts", "seed")

    suffixes: ClassVar[tuple[str, ...]]  # of the files that it may be saved as, the usual one first
    contents: "ClassVar[type[Contents] | None]" = None  # what many of them are, if more than Contents
    shown: ClassVar[int] = 64  # how many of many a notebook shows

    def __init__(
        self, data: Array, seed: int, origin: Origin, controls: tuple[Any, ...], parts: Mapping[str, Any] = _NO_PARTS
    ) -> None:
        self.data = data if data.base is None else data.copy()
        self.seed = seed
        self.parts = {name: np.array(part) for name, part in parts.items()} if parts else _NO_PARTS
        self._origin = origin
        self._controls = controls

    def __setstate__(self, state: tuple[dict[str, Any] | None, dict[str, Any]]) -> None:
        self.parts = _NO_PARTS  # which an item that version 0.1 pickled has not
        for attributes in filter(None, state):  # those of a class without slots come first
            for name, value in attributes.items():
                setattr(self, name, value)

    @property
    def card(self) -> "ModelCard | None":
        """The card of the model that made the item, without its golden items; None where it is not known."""
        return self._origin.card

    @property
    def provenance(self) -> dict[str, Any]:
        """All that is needed to make this item again: model, its hash, seed, task, controls, SDK, provider."""
        origin = self._origin
        return {
            "model": origin.model,
            "version": origin.version,
            "graph_sha256": origin.graph_sha256,
            "task": origin.task,
            "seed": self.seed,
            "controls": copy.deepcopy(dict(zip(origin.controls, self._controls, strict=True))),
            "sdk_version": origin.sdk_version,
            "provider": origin.provider,
        }

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same kind, with the same data and provenance."""
        if type(other) is not type(self):
            return NotImplemented
        return np.array_equal(self.data, other.data) and self.provenance == other.provenance

    __hash__ = None  # type: ignore[assignment]  # the data can be changed in place

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the item with its provenance, whole or not at all, and return the path."""

    def provenance_json(self, *, ascii_only: bool = False) -> str:
        """Return the provenance as the text that goes into a file's metadata, under PROVENANCE_KEY."""
        return json.dumps(self.provenance, ensure_ascii=ascii_only)

    @contextmanager
    def with_sidecar(self, path: Path) -> Iterator[Path]:
        """Give a temporary path for a file of a format without a place for metadata; its provenance goes beside it."""
        with atomic_pair(path, path.with_name(path.name + ".json")) as (temporary, sidecar):
            yield temporary
            sidecar.write_bytes(self.provenance_json().encode())


def record(controls: Mapping[str, Array], recorders: Mapping[str, Callable[[Array], Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield for each item the values of its controls as the provenance shows them.

    Args:
        controls: by name (n, ...), in the order of `Origin.controls`; with none of them it never ends.
        recorders: what makes of an array, the value of one item, what the provenance shows.
    """
    if not controls:
        return repeat(())
    return zip(*(_recorded(values, recorders[name]) for name, values in controls.items()), strict=True)


def _recorded(values: Array, recorder: Callable[[Array], Any]) -> Iterable[Any]:
    if values.ndim == 1:
        return values.tolist()  # type: ignore[no-any-return]  # of one dimension: a list
    if values.strides[0] == 0:  # one for all items
        return repeat(recorder(values[0]), len(values))
    return map(recorder, values)


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raise InvalidRequest, which calls it `name`, where a value is no whole number from low to high."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InvalidRequest(f"{name} is {shown(value)}; give a whole number from {low} to {high}.")


class Contents:
    """A batch of generated items, in the order of the request: a sequence with `.save(folder)`.

    A slice and a sum are Contents again, whose items keep their seeds and provenance. In a notebook it shows itself.

    Raises:
        InvalidRequest: one of the items is none.

    Example:
        >>> import aigc_sdk as sdk
        >>> digits = sdk.generate("digits-vae", 3, seed=7, label=4)
        >>> len(digits), digits[0].seed, digits.to_numpy().shape
        (3, 7, (3, 28, 28, 1))
        >>> digits[::-1] + digits[:1]
        <Contents: 4 x Image>
    """

    _items: list[Item]

    def __new__(cls, items: Iterable[Item] = ()) -> Self:
        """Return Contents of the class that the items have for many of them, such as images, if it is one for all."""
        if not isinstance(items, Iterable):
            raise InvalidRequest(f"Contents cannot be made of {shown(items)}; give a list of generated items.")
        found = list(items)
        for i, item in enumerate(found):
            if not isinstance(item, Item):
                raise InvalidRequest(f"Contents hold generated items; number {i} of these is {shown(item)}.")
        kinds = {item.contents or Contents for item in found}
        kind = kinds.pop() if len(kinds) == 1 else Contents
        self = super().__new__(kind if issubclass(kind, cls) else cls)
        self._items = found
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._items,)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __getitem__(self, index: int | slice) -> Any:
        return type(self)(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __add__(self, other: "Contents") -> "Contents":
        return Contents([*self, *other]) if isinstance(other, Contents) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return self._items == other._items if isinstance(other, Contents) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as that of its items

    def __repr__(self) -> str:
        kinds = type(self._items[0]).__name__ if self._items else "item"
        return f"<Contents: {len(self)} x {kinds}>"

    def to_numpy(self) -> Array:
        """Return the data of all items as one array (n, ...).

        Raises:
            InvalidRequest: there are no items, or they are not of one shape.
        """
        if len({item.data.shape for item in self._items}) != 1:
            raise InvalidRequest(f"{self!r} is no array; only items of one shape are.")
        return np.stack([item.data for item in self._items])

    def save(self, folder: str | os.PathLike[str], *, start: int = 0, total: int | None = None) -> list[Path]:
        """Write every item into the folder as 00.png, 01.png, ... and return the paths.

        Args:
            folder: made if it is missing; of a single item it may be a file's name, such as tune.wav.
            start: the number of the first item, to go on where the batch before ended.
            total: how many items there will be in all, which sets the number of digits; start + len without it.

        Raises:
            InvalidRequest: folder is no path, or a file for several items, or start or total no number of items.
            MissingPackage: of music, mido is not installed.
            StorageError: the folder cannot be made, or a file cannot be written.
        """
        check_whole("start", start, 0, MAX_INDEX)
        if total is not None:
            check_whole("total", total, 0, MAX_INDEX)
        n = total or start + len(self)
        target = as_path(folder, "folder")
        if self._items and target.suffix.lower() in self._items[0].suffixes and not os.path.isdir(target):
            if n > 1:
                raise InvalidRequest(f"{target} is the name of one file, and there are {n} items; give a folder.")
            return [self._items[0].save(target)]
        made = make_folder(target)
        digits = max(2, len(str(n - 1)))
        paths: list[Path] = []
        for i, item in enumerate(self._items, start):
            try:
                paths.append(item.save(made / f"{i:0{digits}}{item.suffixes[0]}"))
            except StorageError as error:
                raise StorageError(f"{error} Of {max(n, start + len(self))} items {i} were written before.") from error
        return paths

    def overview(self) -> Exhibit | None:
        """Return all items in one picture; None for what has none. `aigc generate` writes it as grid.png."""
        return None

    def _repr_html_(self) -> str | None:
        """Show the first items in a notebook, and say how many more there are; None leaves it to `repr`."""
        first = self._items[: self._items[0].shown] if self._items else []
        pages = [item._repr_html_() for item in first if hasattr(item, "_repr_html_")]
        return "<hr>".join([*pages, self._counted(len(pages))]) if pages else None

    def _counted(self, shown: int) -> str:
        more = f"; {len(self) - shown} more are not shown" if len(self) > shown else ""
        return f"{len(self)} x {type(self._items[0]).__name__}{more}"
