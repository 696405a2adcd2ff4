"""Initial weights: start a training from what another one has learnt."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_sdk.errors import InvalidRequest
from aigc_sdk.files import as_path
from aigc_sdk.training.checkpoint import load_averaged_weights
from aigc_sdk.training.family import Family
from aigc_sdk.training.run import RECORD, Run

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


def find_run(init: Any) -> Run:
    """Return the run that `init` names.

    Raises:
        InvalidRequest: it names none.
    """
    folder = run_folder(init)
    if not os.path.lexists(folder) or (os.access(folder, os.X_OK) and not os.path.lexists(folder / RECORD)):
        raise InvalidRequest(
            f"init={str(init)!r}: {folder} has no {RECORD} and so no weights to train on; give a run folder, or a"
            " model file in one. A model that was copied out of its run folder cannot be trained on."
        )
    return Run.open(folder)


def start_from(family: Family, run: Run) -> dict[str, Any]:
    """Copy the averaged weights of the run that fit into the family, and return what fitted and what did not.

    Tensors fit by name and shape, and those of which a family says what their rows belong to (`Family.rows`) row by
    row: rows of what the run does not know stay as they are.

    Args:
        family: built.
        run: where the weights are.

    Returns:
        "run", how many "copied", and the names of those that the run has not ("missing"), that the family
        has not ("unexpected"), and that are "of_other_shape"; and where there are rows, what those of the family
        belong to that the run does not know ("fresh"), and those of the run that the family does not ("dropped").

    Raises:
        InvalidRequest: nothing fits.
        TrainingFailed: the run has no weights.
    """
    theirs, ours = load_averaged_weights(run.folder), family.state_dict()
    common = [name for name in ours if name in theirs]
    rows = [(name, *pair) for name, pair in _rows_of_both(family, run).items() if name in common]
    by_row = {name: _mapped(ours[name], theirs[name], to, of) for name, to, of in rows}
    fitting = {name: theirs[name] for name in common if theirs[name].shape == ours[name].shape and name not in by_row}
    fitting |= {name: tensor for name, tensor in by_row.items() if tensor is not None}
    if not fitting:
        raise InvalidRequest(
            f"Nothing of init={str(run.folder)!r} fits: of {len(theirs)} tensors of the family {run.record.family},"
            f" {len(common)} have a name that this one has, and none of those the shape."
        )
    family.load_state_dict(fitting, strict=False)
    return {
        "run": str(run.folder),
        "copied": len(fitting),
        "missing": [name for name in ours if name not in theirs],
        "unexpected": [name for name in theirs if name not in ours],
        "of_other_shape": [name for name in common if name not in fitting],
        "fresh": _beyond((to, of) for _, to, of in rows),
        "dropped": _beyond((of, to) for _, to, of in rows),
    }


def _rows_of_both(family: Family, run: Run) -> dict[str, tuple[Names, Names]]:
    """Return what the rows of a tensor belong to, in the family and in the run, where both say so."""
    ours = family.rows()
    if not ours:
        return {}
    theirs = run.family_class()(run.options())
    with torch.random.fork_rng():  # what it is built with is of no matter
        theirs.build(run.record.data_spec())
    known = theirs.rows()
    return {name: (names, known[name]) for name, names in ours.items() if name in known}


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
