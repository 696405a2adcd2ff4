"""OnnxGenerator: a model file behind the Generator interface."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from aigc_sdk.card import ModelCard
from aigc_sdk.errors import GenerationFailed, InvalidModel
from aigc_sdk.generator import Generator, check_content, start_state
from aigc_sdk.runtime.loading import GOLDEN_DEADLINE_S, load_bytes, open_file
from aigc_sdk.runtime.session import Session

Array = NDArray[Any]

# An image passes when at most this share of its values differs, each by one level.
GOLDEN_SHARE = 1e-3
# Of texts this share is the same: where a number is rounded otherwise, all that follows is another text.
GOLDEN_TEXTS = 0.75
# A number of a piece of music is the same up to this.
GOLDEN_GAP = 1e-4

# Bytes of memory for each byte of a file, by how its weights are stored: the file itself, which forked processes need,
# the weights as onnxruntime computes with them, and what it makes of those (measured: 4 to 5, 4, and 5 to 14).
_MEMORY = {"float32": 5, "float16": 5, "int8": 14}


class OnnxGenerator(Generator):
    """Runs a model file of the contract with onnxruntime. Safe to use from threads.

    Args:
        session: the file, loaded.
        card: what the file says of itself.

    Raises:
        InvalidRequest: the file is a measure.
    """

    def __init__(self, session: Session, card: ModelCard) -> None:
        card.check_kind("model")
        self.card = card
        self.provider = f"{session.provider} (onnxruntime {ort.__version__})"
        self.size_bytes = session.model_bytes * _MEMORY.get(str(card.config.get("weights")), _MEMORY["float32"])
        self._session: Session | None = session

    @classmethod
    def open(cls, path: Path, *, device: str = "auto", trusted_sha256: str | None = None) -> "OnnxGenerator":
        """Load a model file safely; see `open_file`."""
        return open_file(path, cls, device=device, trusted_sha256=trusted_sha256)

    @classmethod
    def from_bytes(cls, data: bytes, *, device: str = "auto", name: str = "the model") -> "OnnxGenerator":
        """Load bytes that are known to be good, for example because they were just exported."""
        return cls(*load_bytes(data, device=device, name=name))

    def run(
        self, seeds: NDArray[np.int64], controls: Mapping[str, Array], *, deadline: float | None = None
    ) -> dict[str, Array]:
        """See `Generator.run`; a model that streams begins anew."""
        return self.go_on(seeds, controls, start_state(self.card, len(seeds)), deadline=deadline)

    def go_on(
        self,
        seeds: NDArray[np.int64],
        controls: Mapping[str, Array],
        state: Mapping[str, Array],
        *,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        """See `Generator.go_on`."""
        session = self._session  # another thread may close it meanwhile
        if session is None:
            raise GenerationFailed(f"The model {self.card.name!r} is closed; load it again.")
        outputs = session.run({"seed": seeds, **controls, **state}, deadline=deadline)
        check_content(self.card, outputs, len(seeds))
        return outputs

    def check_golden(self) -> tuple[bool, str]:
        """Make the golden items of the card again; return whether they pass, and what was measured."""
        card, golden = self.card, self.card.golden
        if golden is None:
            raise InvalidModel(f"The card of {card.name} has no golden items.")
        controls = {control.name: golden.control_array(control) for control in card.controls}
        deadline = time.monotonic() + GOLDEN_DEADLINE_S
        content = self.run(np.array(golden.seeds, np.int64), controls, deadline=deadline)["content"]
        wanted = golden.array(card.output.dtype)
        return compare_long(content, wanted, card.modality) if card.output.length else compare(content, wanted)

    def close(self) -> None:
        """Release the session."""
        self._session = None


def compare(content: Array, wanted: Array, least: int = 0) -> tuple[bool, str]:
    """Return whether images are what they should be, within the tolerance of golden items, and what was measured.

    Args:
        content: uint8.
        wanted: of the same shape.
        least: so many values may differ by a level, even if they are more than the share of golden items.
    """
    gap = np.abs(content.astype(np.int64) - wanted)
    differing = int((gap > 0).sum())
    measured = f"{differing / gap.size:.1e} of the values differ, by at most {gap.max()}"
    return bool(differing <= max(least, GOLDEN_SHARE * gap.size) and gap.max() <= 1), measured


def compare_long(content: Array, wanted: Array, modality: str) -> tuple[bool, str]:
    """Return whether enough texts or pieces, (n, t, ...), are what they should be, and what was measured."""
    same, n = 0, len(wanted)
    if content.shape == wanted.shape:
        same = int((np.abs(content - wanted) <= GOLDEN_GAP).reshape(n, -1).all(1).sum())
    return same >= GOLDEN_TEXTS * n, f"{same} of {n} {'texts' if modality == 'text' else 'pieces'} are the same"
