"""What is evaluated: a model that can make items, or items that were made."""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_music.item import Music
from aigc_music.keys import KEYS
from aigc_sdk.codes import decode
from aigc_sdk.contents import Contents, Item
from aigc_sdk.data import Piece
from aigc_sdk.data.images import Rejected
from aigc_sdk.data.music import checked
from aigc_sdk.errors import InvalidRequest, shown
from aigc_sdk.evaluation.extractors import as_array
from aigc_sdk.generation import Model, load, model_file
from aigc_sdk.request import check_names

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import ModelCard

# Images, uint8 (n, height, width, channels), texts, or pieces of music.
Items = NDArray[np.uint8] | tuple[str, ...] | tuple[Piece, ...]

_log = logging.getLogger("aigc_sdk")


@dataclass(frozen=True)
class Subject:
    """A model or contents.

    Attributes:
        name: for people.
        modality: what the items are.
        shape: (height, width, channels) of an image, or None.
        model: what makes the items, if they are not made yet.
        items: the items, if they are.
        origin: what identifies the model; None when nobody knows it, or several models made the items.
        folder: of the run that the model's file lies in, if it was named by its path.
    """

    name: str
    modality: str
    shape: tuple[int, ...] | None = None
    model: Model | None = None
    items: Items | None = None
    origin: dict[str, str] | None = None
    folder: Path | None = None

    @property
    def card(self) -> "ModelCard | None":
        """The model's card."""
        return None if self.model is None else self.model.card

    def count(self, n: int | None, default: int) -> int:
        """Return how many items to look at; raises InvalidRequest."""
        most = None if self.items is None else len(self.items)
        if n is None:
            return default if most is None else min(default, most)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= (most or n):
            allowed = f"from 1 to {most}, as many as there are" if most else "of at least 1"
            raise InvalidRequest(f"n is {shown(n)}; give the number of items, a whole number {allowed}.")
        return int(n)

    @property
    def metrics_file(self) -> Path | None:
        """The losses of the run, if there is one."""
        return None if self.folder is None else self.folder / "metrics.jsonl"

    def make(self, n: int, seed: int, controls: dict[str, Any]) -> Items:
        """Return n items; raises as `aigc_sdk.generate` does."""
        if self.model is None:
            assert self.items is not None
            return self.items[:n]
        _log.info("generating %d items with %s", n, self.name)
        made = self.model.generate(n, seed=seed, deadline_s=None, **controls)
        if self.modality == "music":
            return _pieces(made)
        return tuple(map(str, made)) if self.modality == "text" else made.to_numpy()


def find_subject(given: Any, controls: dict[str, Any]) -> Subject:
    """Load what `sdk.evaluate` was given; raises as `aigc_sdk.load` does, and UnknownName for a control."""
    if not isinstance(given, Contents | np.ndarray | list | tuple):
        if not isinstance(given, str | os.PathLike | Model):
            raise InvalidRequest(
                f"What to evaluate is {shown(given)}; give a model (its name, its path, or a Model), or contents."
            )
        model = load(given)
        card = model.card
        check_names(card, controls)
        origin = _origin(card.name, card.version, card.task, card.graph_sha256)
        shape = tuple(card.output.shape) if card.modality == "image" else None
        return Subject(card.name, card.modality, shape, model, origin=origin, folder=_run_folder(given))
    if controls:
        raise InvalidRequest(f"The contents are made already; {min(controls)} is for a model.")
    modality, shape, items = _made(given)
    made_by = {id(item._origin): item._origin for item in given if isinstance(item, Item)}
    makers = {(origin.model, origin.version, origin.task, origin.graph_sha256) for origin in made_by.values()}
    maker = _origin(*makers.pop()) if len(makers) == 1 else None
    return Subject("contents", modality, shape, items=items, origin=maker)


def _made(given: Any) -> tuple[str, tuple[int, ...] | None, Items]:
    """Return the modality, the shape and the items of contents; raises InvalidRequest when they are none."""
    if not isinstance(given, np.ndarray) and len(given) and all(isinstance(item, Music | Piece) for item in given):
        return "music", None, _pieces(given)
    array = as_array(given)
    if array.dtype == np.int32 and array.ndim == 2 and len(array):
        return "text", None, tuple(map(decode, array))
    if array.dtype != np.uint8 or array.ndim != 4 or not len(array):
        raise InvalidRequest(
            f"The contents are {array.dtype} {array.shape}; give texts, pieces, or uint8 (n, height, width, channels)."
        )
    return "image", array.shape[1:], array


def _pieces(items: Iterable[Any]) -> tuple[Piece, ...]:
    """Return generated items, or Pieces, with their notes in ticks; raises InvalidRequest for what is none."""
    return tuple(_piece(item, i) for i, item in enumerate(items))


def _piece(item: Music | Piece, i: int) -> Piece:
    if isinstance(item, Music):
        key = None if item.key is None else KEYS.index(item.key)
        return Piece(f"item {i}", item.to_ticks(), key, item.meter or "4/4", item.tempo)
    read = checked((item.notes, item.key, str(item.meter), item.tempo))
    if isinstance(read, Rejected):
        raise InvalidRequest(f"Piece {i} of what to evaluate cannot be used: {': '.join(filter(None, read))}.")
    return Piece(item.name, *read[:4])


def _origin(name: str, version: str, task: str, graph_sha256: str) -> dict[str, str]:
    return {"name": name, "version": version, "task": task, "graph_sha256": graph_sha256}


def _run_folder(given: Any) -> Path | None:
    """Return the folder of the run that a model's file lies in, or None when it lies elsewhere, or has none."""
    if isinstance(given, Model):
        return None
    try:
        folder = model_file(given).parent
    except InvalidRequest:  # a plugin's generator
        return None
    return folder if (folder / "run.json").is_file() else None
