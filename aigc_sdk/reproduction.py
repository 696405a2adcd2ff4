"""Reproduction: make an item again from the provenance in its file, and compare it with what the file holds."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from aigc_sdk.card import MAX_JSON_BYTES, Limit, ModelCard, Name, Sha256, checked, parse_strict_json
from aigc_sdk.contents import Contents, Item
from aigc_sdk.errors import (
    InvalidModel,
    InvalidProvenance,
    InvalidRequest,
    NotReproduced,
    PluginError,
    UnknownName,
    blamed,
)
from aigc_sdk.files import as_path, storage_error
from aigc_sdk.generation import Model, keep_loaded
from aigc_sdk.kinds import kind_of
from aigc_sdk.modality import Modality, find_modality, usable_modalities
from aigc_sdk.registry import default_registry
from aigc_sdk.seeds import MAX_SEED


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a saved file says of how it was made; it may come from anywhere."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    model: Name
    version: str
    graph_sha256: Sha256
    task: Name
    seed: Annotated[int, Limit(strict=True, ge=0, le=MAX_SEED)]
    controls: dict[str, Any]
    sdk_version: str
    provider: str

    @classmethod
    def read(cls, path: Path) -> "Provenance":
        """Read the provenance inside a PNG or MIDI file, or beside another one, as PATH.json.

        Raises:
            InvalidProvenance: there is none, or it is not what this SDK writes; says where.
            StorageError: the file cannot be read.
        """
        from pydantic import ValidationError

        if not os.path.isfile(path):
            raise storage_error("read", path, OSError("it is no file"))
        try:
            return checked(cls, parse_strict_json(_find(path), "its provenance"))
        except InvalidModel as error:
            raise InvalidProvenance(f"{path}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))[:100] or "the whole"
            raise InvalidProvenance(f"{path}: its provenance is wrong at {where}: {first['msg']}.") from error


def reproduce(
    path: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model | None = None,
    device: str = "auto",
    controls: Mapping[str, Any],
) -> tuple[Contents, str]:
    """Make the item of a file again and return it with what was measured; see `aigc_sdk.reproduce`."""
    file = as_path(path, "path")
    provenance = Provenance.read(file)
    loaded = _load(provenance, file, model, device)
    recorded = _recorded_controls(provenance, file, loaded.card, controls)
    try:
        contents = loaded.generate(seeds=[provenance.seed], **recorded, **controls)
    except (InvalidRequest, UnknownName) as error:
        raise type(error)(f"{file} cannot be made again: {error}") from error
    made: Item = contents[0]
    _check_hashed_controls(provenance, made, file)
    with blamed(f"{file} cannot be compared"):
        return contents, find_modality(loaded.card.modality).reproduction.compare(file, made)


def _find(path: Path) -> str | bytes:
    """Return the text of a file's provenance."""
    for modality in usable_modalities():
        if path.suffix.lower() in modality.item.suffixes and (found := _inside(path, modality)) is not None:
            return found
    sidecar = path.with_name(path.name + ".json")
    if not os.path.isfile(sidecar):
        raise InvalidProvenance(
            f"{path} has no provenance, neither inside nor as {sidecar.name}. Only what this SDK saved has one, and"
            " programs that edit files drop it."
        )
    try:
        with open(sidecar, "rb") as file:
            return file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise storage_error("read", sidecar, error) from error


def _inside(path: Path, modality: Modality) -> str | bytes | None:
    """Return the provenance that a modality finds inside a file; None too where it fails: another may find it."""
    try:
        with blamed(f"The modality {modality.name!r} failed"):
            return modality.reproduction.provenance(path)
    except PluginError:
        return None


def _load(provenance: Provenance, file: Path, model: str | os.PathLike[str] | Model | None, device: str) -> Model:
    """Return the model that made the file: the one that was given, or a ready-made one; never a path from the file."""
    by = f"{file} was made by {provenance.model} {provenance.version[:100]}"
    if model is None:
        if provenance.model not in default_registry().names("model"):
            raise UnknownName(
                f"{by}, which is no ready-made model here. Give what made it, an .onnx file or a run folder, as model."
            )
        model = provenance.model
    loaded = keep_loaded(model, task=provenance.task, device=device)
    if loaded.card.graph_sha256 != provenance.graph_sha256:
        raise NotReproduced(
            f"{by} with the graph {provenance.graph_sha256[:12]}...; {loaded.card.name} {loaded.card.version} has the"
            f" graph {loaded.card.graph_sha256[:12]}..., so it is another model, or was trained again. Give what made"
            " the file, an .onnx file or a run folder, as model."
        )
    if (loaded.card.name, loaded.card.version) != (provenance.model, provenance.version):
        raise InvalidProvenance(
            f"{by}, says its provenance; the model with that graph is {loaded.card.name} {loaded.card.version}. The"
            " provenance was edited, or the model was given another name or version since."
        )
    return loaded


def _recorded_controls(provenance: Provenance, file: Path, card: ModelCard, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the controls whose values the provenance holds; of large ones, such as pixels, it holds only the hash."""
    if provenance.controls.keys() != {control.name for control in card.controls}:
        raise InvalidProvenance(
            f"{file}: its provenance has the controls {', '.join(provenance.controls)[:300] or 'none'};"
            f" {card.name} has {', '.join(control.name for control in card.controls) or 'none'}."
        )
    missing = {control.name for control in card.controls if not kind_of(control).is_recorded}
    if given.keys() - missing:
        raise UnknownName.of(f"control to be given for {card.name}", min(given.keys() - missing), missing)
    return {name: value for name, value in provenance.controls.items() if name not in missing}


def _check_hashed_controls(provenance: Provenance, made: Item, file: Path) -> None:
    for name, fed in made.provenance["controls"].items():
        if isinstance(fed, dict) and fed != provenance.controls[name]:
            raise InvalidRequest(
                f"{file} was made from another {name} than this one, by its sha256. Give the very one that"
                f" was given when it was made, as {name}."
            )
