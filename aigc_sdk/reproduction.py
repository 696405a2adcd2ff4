"""Reproduction: make an item again from the provenance in its file, and compare it with what the file holds."""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aigc_image.item import FORMATS, Image
from aigc_image.pixels import count_channels, read_pixels, reading
from aigc_music.item import Music
from aigc_sdk.card import MAX_JSON_BYTES, Limit, ModelCard, Name, Sha256, checked, parse_strict_json
from aigc_sdk.contents import Contents, Item
from aigc_sdk.contents.base import PROVENANCE_KEY
from aigc_sdk.errors import (
    InvalidModel,
    InvalidProvenance,
    InvalidRequest,
    NotReproduced,
    UnknownName,
    missing_package,
    reason,
    shown,
)
from aigc_sdk.files import as_path, read_file, storage_error
from aigc_sdk.generation import Model, keep_loaded
from aigc_sdk.kinds import kind_of
from aigc_sdk.likeness import compare_arrays
from aigc_sdk.registry import default_registry
from aigc_sdk.seeds import MAX_SEED
from aigc_text.item import Text

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

IDENTICAL = "identical"


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
    if file.suffix.lower() == ".musicxml":
        raise InvalidProvenance(f"{file} cannot be compared; a piece is reproduced from a .mid or a .wav file.")
    provenance = Provenance.read(file)
    loaded = _load(provenance, file, model, device)
    recorded = _recorded_controls(provenance, file, loaded.card, controls)
    try:
        contents = loaded.generate(seeds=[provenance.seed], **recorded, **controls)
    except (InvalidRequest, UnknownName) as error:
        raise type(error)(f"{file} cannot be made again: {error}") from error
    made: Item = contents[0]
    _check_pixel_controls(provenance, made, file)
    if isinstance(made, Text):
        return contents, _compare_texts(file, str(made))
    if isinstance(made, Music):
        return contents, _compare_music(file, made)
    assert isinstance(made, Image)
    return contents, _compare(file, *_saved_pixels(file, made))


def _find(path: Path) -> str | bytes:
    """Return the text of a file's provenance."""
    if path.suffix.lower() == ".png":
        with _opened(path) as image:
            if image.format == "PNG" and PROVENANCE_KEY in image.info:
                return str(image.info[PROVENANCE_KEY])
    if path.suffix.lower() == ".mid":
        for message in _midi_messages(path):
            if message.type == "text" and message.text.startswith(f"{PROVENANCE_KEY}="):
                return str(message.text.partition("=")[2])
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


@contextmanager
def _opened(path: Path) -> "Iterator[PilImage]":
    """Open an image file that may hold anything."""
    import PIL.Image

    with reading(str(path), InvalidProvenance), PIL.Image.open(path) as image:
        yield image


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
    """Return the controls whose values the provenance holds; of pixels it holds only the hash."""
    if provenance.controls.keys() != {control.name for control in card.controls}:
        raise InvalidProvenance(
            f"{file}: its provenance has the controls {', '.join(provenance.controls)[:300] or 'none'};"
            f" {card.name} has {', '.join(control.name for control in card.controls) or 'none'}."
        )
    missing = {control.name for control in card.controls if not kind_of(control).is_recorded}
    if given.keys() - missing:
        raise UnknownName.of(f"image or mask control of {card.name}", min(given.keys() - missing), missing)
    return {name: value for name, value in provenance.controls.items() if name not in missing}


def _check_pixel_controls(provenance: Provenance, made: Item, file: Path) -> None:
    for name, fed in made.provenance["controls"].items():
        if isinstance(fed, dict) and fed != provenance.controls[name]:
            raise InvalidRequest(
                f"{file} was made from another {name} than this one, by its sha256. Give the very pixels that were"
                f" given when it was made, as {name}."
            )


def _saved_pixels(file: Path, made: Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the pixels of an image file, and those that a file of its format holds of what was made."""
    height, width, _ = made.data.shape
    with _opened(file) as image:
        if image.format not in FORMATS.values():
            raise InvalidProvenance(f"{file} is of the format {image.format}, in which this SDK saves no image.")
        if image.size != (width, height):  # before it is unpacked, which may take all memory
            raise NotReproduced(
                f"{file} has {image.width} x {image.height} pixels; its model makes {width} x {height}."
            )
        try:
            saved = made.as_saved(str(image.format))
        except InvalidRequest as error:
            raise InvalidProvenance(f"{file} cannot hold what its model makes: {error}") from error
        # Before the pixels, because bringing them to the channels of the model's may hide what differs.
        if _form(image) != _form(saved):
            raise NotReproduced(
                f"{file} has {_form(image)}; what its model makes has, as {image.format}, {_form(saved)}. The image was"
                " edited, or its provenance is another's."
            )
        image.load()
        channels = count_channels(saved)
        return read_pixels(image, channels, str(file)), read_pixels(saved, channels, str(file))


def _compare_texts(file: Path, made: str) -> str:
    try:
        found = file.read_bytes()
    except OSError as error:
        raise storage_error("read", file, error) from error
    if found != made.encode():
        raise NotReproduced(
            f"{file} is not what its model makes here, which is {shown(made)}. The text was edited, its provenance is"
            " another's, or the model runs differently here (`aigc selftest` tells)."
        )
    return IDENTICAL


def _midi_messages(source: Path | io.BytesIO) -> list[Any]:
    """Return the messages of a MIDI file, which may hold anything, one track after the other."""
    try:
        import mido
    except ImportError as error:
        raise missing_package("Reading MIDI", "mido", "music") from error
    try:
        named = {"file": source} if isinstance(source, io.BytesIO) else {"filename": str(source)}
        return [message for track in mido.MidiFile(**named).tracks for message in track]
    except Exception as error:
        raise InvalidProvenance(f"{source} is no MIDI file: {reason(error)}.") from error


def _compare_music(file: Path, made: Music) -> str:
    """Compare a file with what it would hold of the piece, but for its provenance."""
    if file.suffix.lower() == ".mid":

        def heard(source: Path | io.BytesIO) -> list[Any]:
            return [message for message in _midi_messages(source) if message.type != "text"]

        same = heard(file) == heard(io.BytesIO(made.midi_bytes()))
    elif file.suffix.lower() == ".wav":
        same = read_file(file) == made.wav_bytes()
    else:
        raise InvalidProvenance(f"{file} cannot be compared; a piece is reproduced from a .mid or a .wav file.")
    if not same:
        raise NotReproduced(
            f"{file} is not what its model makes here. The piece was edited, its provenance is another's, or the model"
            " runs differently here (`aigc selftest` tells)."
        )
    return IDENTICAL


def _form(image: "PilImage") -> str:
    """Say what an image is besides its pixels."""
    return f"mode {image.mode}, channels {count_channels(image)}, frames {getattr(image, 'n_frames', 1)}"


def _compare(file: Path, found: NDArray[np.uint8], made: NDArray[np.uint8]) -> str:
    """Return what was measured, within the tolerance of golden samples, or raise NotReproduced."""
    if np.array_equal(found, made):
        return IDENTICAL
    # One value of a small image is more than the share of golden items, but no less a matter of rounding.
    likeness = compare_arrays(found, made, least=1)
    if not likeness.passed:
        raise NotReproduced(
            f"{file} is not what its model makes here: {likeness.measured}. The image was edited, its provenance"
            " is another's, or the model runs differently here (`aigc selftest` tells)."
        )
    return likeness.measured
