"""Checkpoints: all that a training needs to go on exactly, in one safetensors file, without pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from aigc_sdk.errors import TrainingFailed
from aigc_sdk.files import write_bytes
from aigc_sdk.specs import sdk_version

CHECKPOINT = "checkpoint.safetensors"

# The averaged weights are the tensors with this prefix, those being trained have the other.
EMA = "ema."
TRAINED = "trained."

# Grows when a training could not go on from what an older SDK wrote.
FORMAT = 1


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training, whole or not at all.

    Args:
        folder: the run folder.
        state: nested dicts, lists and tuples of tensors, numbers, texts and None.

    Raises:
        TrainingFailed: a weight is no finite number, or the state holds something else.
        StorageError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = flatten(dict(state), "", tensors)
    for name, tensor in tensors.items():
        if name.startswith((EMA, TRAINED)) and not bool(torch.isfinite(tensor).all()):
            raise TrainingFailed(
                f"The weights are not finite numbers any more ({name}); {folder} keeps the last good checkpoint, if"
                " there was one. A smaller learning_rate or a clip_norm may help."
            )
    header = {"format": FORMAT, "sdk_version": sdk_version(), "state": tree}
    write_bytes(folder / CHECKPOINT, save_tensors(tensors, {"state": json.dumps(header)}))


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the state that `save_checkpoint` wrote, its tensors on the CPU.

    Raises:
        TrainingFailed: there is none, it is broken, or it is of another version of the SDK.
    """
    path = folder / CHECKPOINT
    try:
        data = path.read_bytes()
        # From the same bytes as the tensors: a training that goes on may replace the file at any moment.
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("state", "{}"))
        if header.get("format") != FORMAT:
            raise TrainingFailed(
                f"{path} was written by {_writer(header)}; this is {sdk_version()}, which cannot go on from it."
                " Its model can still be exported; to train on, start a new run with init=."
            )
        state: dict[str, Any] = unflatten(header["state"], load_tensors(data))
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TrainingFailed(f"{path} holds no training that could go on: {error}.") from error
    return state


def load_averaged_weights(folder: Path) -> dict[str, Tensor]:
    """Return the averaged weights in the checkpoint of a run, of any version, by their names in the family.

    Raises:
        TrainingFailed: there is no checkpoint, or it is broken.
    """
    path = folder / CHECKPOINT
    try:
        tensors = load_tensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise TrainingFailed(f"{path} does not hold the weights of this run: {error}.") from error
    return {name.removeprefix(EMA): tensor for name, tensor in tensors.items() if name.startswith(EMA)}


def flatten(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Return nested values as JSON, and put copies of their tensors on the CPU into `tensors`.

    JSON has neither tuples nor keys that are numbers, as optimizers have, so that a tensor, a tuple and a dict
    each become an object of one key that names its kind.

    Example:
        >>> tensors = {}
        >>> flatten({0: (torch.ones(2), None)}, "", tensors), list(tensors)
        ({'dict': [[0, {'tuple': [{'tensor': '0.0'}, None]}]]}, ['0.0'])
    """
    if isinstance(value, Tensor):
        # Copied, because safetensors takes no two tensors that share memory, as tied weights do.
        name = place if place not in tensors else f"{place}#{len(tensors)}"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
        return {"dict": [[key, flatten(each, _join(place, key), tensors)] for key, each in value.items()]}
    if type(value) in (list, tuple):
        parts = [flatten(each, _join(place, i), tensors) for i, each in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TrainingFailed(
        f"A checkpoint cannot keep {place}, which is of type {type(value).__name__}; an optimizer's state and the"
        " carry may hold dicts, lists and tuples of tensors, numbers and texts."
    )


def unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the nested values that `flatten` took apart."""
    if isinstance(tree, list):
        return [unflatten(each, tensors) for each in tree]
    if not isinstance(tree, dict):
        return tree
    [(kind, inner)] = tree.items()
    if kind == "tensor":
        return tensors[
            inner
        ].clone()  # into memory as aligned as any other: what is computed with it may depend on that
    if kind == "tuple":
        return tuple(unflatten(each, tensors) for each in inner)
    return {key: unflatten(each, tensors) for key, each in inner}


def _join(place: str, key: str | int) -> str:
    return f"{place}.{key}" if place else str(key)


def _writer(header: Mapping[str, Any]) -> str:
    return f"version {header['sdk_version']} of the SDK" if "sdk_version" in header else "another version of the SDK"
