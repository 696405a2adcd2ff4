"""Initial weights: start a training from what another one has learnt."""

import os
from pathlib import Path
from typing import Any

from aigc_sdk.errors import InvalidRequest
from aigc_sdk.files import as_path
from aigc_sdk.training.checkpoint import load_averaged_weights
from aigc_sdk.training.family import Family
from aigc_sdk.training.run import RECORD, Run


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

    Args:
        family: built.
        run: where the weights are.

    Returns:
        "run", how many "copied", and the names of those that the run has not ("missing"), that the family
        has not ("unexpected"), and that are "of_other_shape".

    Raises:
        InvalidRequest: nothing fits.
        TrainingFailed: the run has no weights.
    """
    theirs, ours = load_averaged_weights(run.folder), family.state_dict()
    common = [name for name in ours if name in theirs]
    fitting = {name: theirs[name] for name in common if theirs[name].shape == ours[name].shape}
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
    }
