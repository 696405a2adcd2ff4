"""What is evaluated: a model that can make items, or items that were made."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_sdk.contents import Contents, Item
from aigc_sdk.errors import InvalidRequest, shown
from aigc_sdk.evaluation.extractors import claimed
from aigc_sdk.generation import Model, load, model_file
from aigc_sdk.modality import find_modality
from aigc_sdk.request import check_names

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import ModelCard

_log = logging.getLogger("aigc_sdk")


@dataclass(frozen=True)
class Subject:
    """A model or contents.

    Attributes:
        name: for people.
        modality: what the items are.
        shape: of one item, where they are compared by features, or None.
        model: what makes the items, if they are not made yet.
        items: the items, if they are.
        origin: what identifies the model; None when nobody knows it, or several models made the items.
        folder: of the run that the model's file lies in, if it was named by its path.
    """

    name: str
    modality: str
    shape: tuple[int, ...] | None = None
    model: Model | None = None
    items: Any = None
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

    def make(self, n: int, seed: int, controls: dict[str, Any]) -> tuple[Any, dict[str, list[Any]]]:
        """Return n items, and what each was asked for, by control; raises as `aigc_sdk.generate` does."""
        if self.model is None:
            return self.items[:n], {}
        _log.info("generating %d items with %s", n, self.name)
        made = self.model.generate(n, seed=seed, deadline_s=None, **controls)
        asked = [item.provenance["controls"] for item in made]
        per_item = {name: [each[name] for each in asked] for name in asked[0]}
        return find_modality(self.modality).evaluation.items_of(made), per_item


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
        has_features = find_modality(card.modality).evaluation.has_features
        shape = tuple(card.output.shape) if has_features else None
        return Subject(card.name, card.modality, shape, model, origin=origin, folder=_run_folder(given))
    if controls:
        raise InvalidRequest(f"The contents are made already; {min(controls)} is for a model.")
    modality, shape, items = _made(given)
    made_by = {id(item._origin): item._origin for item in given if isinstance(item, Item)}
    makers = {(origin.model, origin.version, origin.task, origin.graph_sha256) for origin in made_by.values()}
    maker = _origin(*makers.pop()) if len(makers) == 1 else None
    return Subject("contents", modality, shape, items=items, origin=maker)


def _made(given: Any) -> tuple[str, tuple[int, ...] | None, Any]:
    """Return the modality, the shape and the items of contents; raises InvalidRequest when they are none."""
    if len(given) and (found := claimed(given, lambda evaluation: evaluation.items_of(given))):
        modality, items = found
        return modality.name, items.shape[1:] if modality.evaluation.has_features else None, items
    words = f"an array {given.dtype} {given.shape}" if isinstance(given, np.ndarray) else shown(given)
    raise InvalidRequest(f"The contents are {words}; give some of what sdk.generate makes, all of one kind.")


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
