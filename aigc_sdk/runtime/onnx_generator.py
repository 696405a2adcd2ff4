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
from aigc_sdk.generator import Generator, check_content, check_items, parts_of, start_state
from aigc_sdk.likeness import Likeness, Made
from aigc_sdk.modality import find_modality, lengths_of
from aigc_sdk.runtime.loading import GOLDEN_DEADLINE_S, load_bytes, open_file
from aigc_sdk.runtime.session import Session

Array = NDArray[Any]

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

    def check_golden(self) -> Likeness:
        """Make the golden items of the card again, and compare them."""
        card = self.card
        seeds, controls, wanted = golden_items(card)
        outputs = self.run(seeds, controls, deadline=time.monotonic() + GOLDEN_DEADLINE_S)
        made = check_items(card, outputs, len(seeds))
        return find_modality(card.modality).likeness(made, wanted, card.output)

    def close(self) -> None:
        """Release the session."""
        self._session = None


def golden_items(card: ModelCard) -> tuple[NDArray[np.int64], dict[str, Array], list[Made]]:
    """Return the golden items of a card: seeds, controls, and what the file made of them when it was exported.

    Raises:
        InvalidModel: the card has none, or they cannot be unpacked.
    """
    golden = card.golden
    if golden is None:
        raise InvalidModel(f"The card of {card.name} has no golden items.")
    controls = {control.name: golden.control_array(control) for control in card.controls}
    parts = {part.name: golden.parts[part.name].array(part.dtype) for part in parts_of(card) if golden.parts}
    rows = golden.array(card.output.dtype)
    contents = list(rows)
    if card.output.length:
        lengths = lengths_of(rows, find_modality(card.modality).filler).tolist()
        contents = [row[:length] for row, length in zip(rows, lengths, strict=True)]
    wanted = [Made(content, {name: part[i] for name, part in parts.items()}) for i, content in enumerate(contents)]
    return np.array(golden.seeds, np.int64), controls, wanted
