"""EagerGenerator: a sampler in torch behind the Generator interface, to look at while training and to compare with."""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from aigc_sdk.card import ModelCard
from aigc_sdk.errors import ExportFailed
from aigc_sdk.generator import Generator, output_names, start_state
from aigc_sdk.modality import find_modality

Array = NDArray[Any]

# Items in one run, which bounds its memory: some samplers work on many candidates for each.
_BATCH = 16


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
        parts = []
        for start in range(0, len(seeds), _BATCH):
            rows = slice(start, start + _BATCH)
            feeds = {control.name: _tensor(controls[control.name][rows]) for control in self.card.controls}
            fed: list[Any] = [_tensor(seeds[rows]), feeds]
            if state := start_state(self.card, len(fed[0])):
                fed.append({name: _tensor(part) for name, part in state.items()})
            with torch.inference_mode():
                made = self.sampler(*fed)
            parts.append(made[: len(output_names(self.card))] if isinstance(made, tuple) else (made,))
        content, *others = zip(*parts, strict=True)
        if self.card.output.length:
            longest = max(part.shape[1] for part in content)
            content = tuple(self._longer(part, longest) for part in content)
        outputs = map(torch.cat, (content, *others))
        return {name: made.numpy() for name, made in zip(output_names(self.card), outputs, strict=True)}

    def _longer(self, content: torch.Tensor, length: int) -> torch.Tensor:
        """Return contents (n, t, ...) with what stands for nothing up to a length."""
        filler = find_modality(self.card.modality).filler
        return F.pad(content, (*(0, 0) * (content.ndim - 2), 0, length - content.shape[1]), value=filler)


def _tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(values))  # a copy: what a request feeds may be read-only


def rounded(module: nn.Module, storage: str) -> nn.Module:
    """Return a copy whose parameters are the nearest values that the storage has, still float32; buffers stay.

    Args:
        module: to copy.
        storage: "float32", "float16", or "int8": then a row of a matrix, which is what one unit weighs its inputs
            with, is 127 steps up and down of a scale of its own, and vectors stay as they are.

    Raises:
        ExportFailed: one is larger than float16 can hold.
    """
    copied = copy.deepcopy(module)
    for name, weights in copied.named_parameters():
        if storage == "float16":
            weights.data = weights.data.half().float()
        elif storage == "int8" and weights.ndim > 1:
            weights.data = _on_steps(weights.data)
        if not weights.isfinite().all():
            raise ExportFailed(f"{name} is beyond what {storage} can hold; train with weights=float32.")
    return copied


def _on_steps(weights: torch.Tensor) -> torch.Tensor:
    largest = weights.abs().amax(tuple(range(1, weights.ndim)), keepdim=True)
    # A scale of 12 bits, rounded up, so that each of its multiples is a float32, and the largest is its 127th.
    fraction, exponent = torch.frexp(largest / 127)
    scale = torch.ldexp(torch.ceil(fraction * 2**12) / 2**12, exponent)
    return torch.round(weights / scale.clamp(min=torch.finfo(torch.float32).tiny)) * scale


def weights_sha256(module: nn.Module) -> str:
    """Return the sha256 of all weights and buffers by name: what a model is before it has a graph."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
