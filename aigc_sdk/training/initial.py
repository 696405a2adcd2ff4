"""Initial weights: start a training from what another one has learnt."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import InvalidModel, InvalidRequest, MissingPackage, StorageError, UnknownName
from aigc_sdk.files import as_path
from aigc_sdk.generation import model_file
from aigc_sdk.registry import default_registry
from aigc_sdk.runtime.safety import check_model, read_model
from aigc_sdk.training.checkpoint import load_averaged_weights
from aigc_sdk.training.family import Family, FamilyConfig, parse_config
from aigc_sdk.training.run import RECORD, Run
from aigc_sdk.training.stored import Stored, read_stored

# What the rows of a tensor belong to.
Names = tuple[str, ...]


def run_folder(init: Any) -> Path:
    """Return the run folder that `init` names: that of a Run, a run folder, or the one that a model file is in.

    Raises:
        InvalidRequest: it is nothing of this kind.
    """
    if isinstance(init, Run):
        return init.folder
    if not isinstance(init, str | os.PathLike):
        raise InvalidRequest(f"init is of type {type(init).__name__}; give a run folder, a model in one, or a Run.")
    path = as_path(init, "init")
    return path.parent if path.suffix == ".onnx" else path


@dataclass(frozen=True)
class Source:
    """Weights to begin with.

    Attributes:
        name: of the run folder, or of the model, as `run.json` keeps it.
        family: that they are of.
        weights: by their names in it.
        rows: what the rows of tensors belong to, see `Family.rows`.
    """

    name: str
    family: str
    weights: Mapping[str, Tensor]
    rows: Mapping[str, Names]


def find_origin(init: Any) -> Run | Path:
    """Return the run or the model file that `init` names; a model file in a run folder is the run.

    Raises:
        InvalidRequest: it names none.
    """
    folder = run_folder(init)
    if isinstance(init, Run) or (os.path.isdir(folder) and os.path.lexists(folder / RECORD)):
        return Run.open(folder)
    if os.path.isdir(folder) and not os.access(folder, os.X_OK):
        return Run.open(folder)  # which says why it cannot be read
    try:
        found = model_file(init)
        read_model(found)
        return found
    except (UnknownName, InvalidModel, StorageError, InvalidRequest) as error:
        raise InvalidRequest(
            f"init={str(init)[:200]!r} is no run folder, as there is no {RECORD}, and no model file or ready-made"
            f" model: {error}"
        ) from error


def options_of_network(family: type[Family], name: str, init: Any) -> dict[str, Any]:
    """Return the options that decide about the network of `init`, where it is of the family of that name.

    Raises:
        InvalidRequest: it names no weights.
    """
    origin = find_origin(init)
    of = origin.record if isinstance(origin, Run) else check_model(read_model(origin), origin.name)
    return {option: of.config[option] for option in family.network_options if of.family == name and option in of.config}


def find_source(init: Any) -> Source:
    """Return the weights that `init` names.

    Raises:
        InvalidRequest: it names none.
        TrainingFailed: the run has no weights.
    """
    origin = find_origin(init)
    if isinstance(origin, Run):
        family = origin.family_class()
        theirs = _built(family, origin.options(), origin.record.data_spec(family.modality))
        weights = load_averaged_weights(origin.folder)
        return Source(str(origin.folder), origin.record.family, weights, theirs.rows())
    stored = read_stored(origin)
    return Source(str(init), stored.card.family, *_of_file(stored))


def _of_file(stored: Stored) -> tuple[dict[str, Tensor], Mapping[str, Names]]:
    """Return the weights in a model file, and what their rows belong to."""
    card = stored.card
    named = {name: tensor for name, tensor in stored.tensors.items() if "." in name}  # of the rest none is a weight
    try:
        family: type[Family] = default_registry().find("family", card.family).resolve()
        spec = family.spec_of(card, stored.codes)
    except (UnknownName, MissingPackage):  # a family that is not here: its tensors have names all the same
        return named, {}
    if spec is None:
        return named, {}
    theirs = _built(family, parse_config(card.family, family.Config, card.config), spec)
    # What is not learned, such as an alphabet, follows from the card.
    known = {**dict(theirs.named_buffers()), **stored.tensors, **theirs.recovered(stored.tensors)}
    return {name: known[name] for name in theirs.state_dict() if name in known}, theirs.rows()


def _built(family_class: type[Family], options: FamilyConfig, spec: DataSpec) -> Family:
    family = family_class(options)
    with torch.random.fork_rng():  # what it is built with is of no matter
        family.build(spec)
    return family


def start_from(family: Family, source: Source) -> dict[str, Any]:
    """Copy the weights that fit into the family, and return what fitted and what did not.

    Tensors fit by name and shape, and those of which a family says what their rows belong to (`Family.rows`) row by
    row: rows of what the source does not know stay as they are.

    Args:
        family: built.
        source: where the weights are.

    Returns:
        "run", the name of the source, how many "copied", and the names of those that it has not ("missing"), that the
        family has not ("unexpected"), and that are "of_other_shape"; and where there are rows, what those of the
        family belong to that the source does not know ("fresh"), and the other way round ("dropped").

    Raises:
        InvalidRequest: nothing fits.
    """
    theirs, ours = source.weights, family.state_dict()
    common = [name for name in ours if name in theirs]
    named = family.rows()
    rows = [(name, named[name], source.rows[name]) for name in common if name in named and name in source.rows]
    by_row = {name: _mapped(ours[name], theirs[name], to, of) for name, to, of in rows}
    # What lists the rows, such as an alphabet, is the family's own.
    fitting = {name: theirs[name] for name in common if theirs[name].shape == ours[name].shape and name not in named}
    fitting |= {name: tensor for name, tensor in by_row.items() if tensor is not None}
    # Biases alone are no start, nor are rows of which none has the name of one of theirs.
    foreign = {name for name, to, of in rows if set(to).isdisjoint(of)}
    matrices = {name for name, weights in family.named_parameters() if weights.ndim > 1}
    if matrices.isdisjoint(fitting.keys() - foreign):
        raise InvalidRequest(
            f"Nothing of init={source.name!r} fits: of {len(theirs)} tensors of the family {source.family},"
            f" {len(common)} have a name that this one has, and none of those the shape."
        )
    family.load_state_dict(fitting, strict=False)
    return {
        "run": source.name,
        "copied": len(fitting),
        "missing": [name for name in ours if name not in theirs],
        "unexpected": [name for name in theirs if name not in ours],
        "of_other_shape": [name for name in common if name not in fitting],
        "fresh": _beyond((to, of) for _, to, of in rows),
        "dropped": _beyond((of, to) for _, to, of in rows),
    }


def _mapped(ours: Tensor, theirs: Tensor, to: Names, of: Names) -> Tensor | None:
    """Return our tensor with their rows of the same names; None where rows are of another shape."""
    if ours.shape[1:] != theirs.shape[1:]:
        return None
    place = {name: row for row, name in enumerate(of)}
    pairs = [(row, place[name]) for row, name in enumerate(to) if name in place]
    mapped = ours.detach().clone()
    if pairs:
        here, there = map(list, zip(*pairs, strict=True))
        mapped[here] = theirs[there].to(mapped)
    return mapped


def _beyond(pairs: Iterable[tuple[Names, Names]]) -> list[str]:
    """Return the names that the first of each pair has and the second has not, each once, in order."""
    found = dict[str, None]()
    for names, others in pairs:
        known = set(others)
        found |= dict.fromkeys(name for name in names if name not in known)
    return list(found)
