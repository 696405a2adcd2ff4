"""EagerGenerator: a sampler in torch behind the Generator interface, to look at while training and to compare with."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aigc_sdk.card import ModelCard
from aigc_sdk.generator import Generator

Array = NDArray[Any]


class EagerGenerator(Generator):
    """Runs a sampler in torch on the CPU.

    Args:
        sampler: f(seed, {name: control}) -> content.
        card: the card, with `weights_sha256` in the place of the graph's.
    """

    def __init__(self, sampler: nn.Module, card: ModelCard) -> None:
        self.sampler = sampler.eval()
        self.card = card
        self.provider = f"eager (torch {torch.__version__})"

    def run(
        self,
        seeds: NDArray[np.int64],
        controls: Mapping[str, Array],
        *,
        deadline: float | None = None,  # noqa: ARG002
    ) -> dict[str, Array]:
        """See `Generator.run`; eager torch cannot be stopped, so that the deadline has no effect."""
        feeds = {control.name: _tensor(controls[control.name]) for control in self.card.controls}
        with torch.inference_mode():
            content = self.sampler(_tensor(seeds), feeds)
        return {"content": content.numpy()}


def _tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(values))  # a copy: what a request feeds may be read-only


def weights_sha256(module: nn.Module) -> str:
    """Return the sha256 of all weights and buffers by name: what a model is before it has a graph."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
