"""OnnxGenerator: a model file behind the Generator interface."""

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from aigc_sdk.card import CARD_KEY, ModelCard
from aigc_sdk.errors import GenerationFailed, InvalidModel
from aigc_sdk.generator import Generator, check_content
from aigc_sdk.runtime.safety import Verdict, check_model, read_model
from aigc_sdk.runtime.session import Session

Array = NDArray[Any]

# An image passes when at most this share of its values differs, each by one level.
GOLDEN_SHARE = 1e-3
_GOLDEN_DEADLINE_S = 60.0

_log = logging.getLogger("aigc_sdk")


class OnnxGenerator(Generator):
    """Runs a model file of the contract with onnxruntime. Safe to use from threads.

    Args:
        session: the file, loaded.
        card: what the file says of itself.
    """

    def __init__(self, session: Session, card: ModelCard) -> None:
        self.card = card
        self.provider = f"{session.provider} (onnxruntime {ort.__version__})"
        self._session: Session | None = session

    @classmethod
    def open(cls, path: Path, *, device: str = "auto", trusted_sha256: str | None = None) -> "OnnxGenerator":
        """Load a model file safely.

        The first use of a file runs its golden items; a miss is logged and recorded, it may be another CPU.

        Args:
            path: an `.onnx` file of the contract.
            device: as in `choose_providers`.
            trusted_sha256: bytes of this hash are known to be good and are not checked.

        Raises:
            InvalidModel: the file is broken, hostile or not one of ours.
            StorageError: it cannot be read.
            DeviceUnavailable: the device is not there.
            GenerationFailed, DeadlineExceeded: its golden items cannot be made.
        """
        data = read_model(path)
        sha256 = hashlib.sha256(data).hexdigest()
        verdict = Verdict.load(sha256)
        if sha256 != trusted_sha256 and not verdict.is_safe:
            check_model(data, path.name)
            verdict.is_safe = True
            verdict.save(sha256)
        generator = cls.from_bytes(data, device=device, name=path.name)
        if generator.provider not in verdict.golden:
            passed, measured = generator.check_golden()
            verdict.golden[generator.provider] = measured
            verdict.save(sha256)
            if not passed:
                _log.warning("%s makes other content here than where it was exported: %s", path.name, measured)
        return generator

    @classmethod
    def from_bytes(cls, data: bytes, *, device: str = "auto", name: str = "the model") -> "OnnxGenerator":
        """Load bytes that are known to be good, for example because they were just exported."""
        session = Session(data, device=device, name=name)
        if CARD_KEY not in session.metadata:
            raise InvalidModel(f"{name} has no card (metadata {CARD_KEY!r}).")
        return cls(session, ModelCard.from_checked_json(session.metadata[CARD_KEY]))

    def run(
        self, seeds: NDArray[np.int64], controls: Mapping[str, Array], *, deadline: float | None = None
    ) -> dict[str, Array]:
        """See `Generator.run`."""
        session = self._session  # another thread may close it meanwhile
        if session is None:
            raise GenerationFailed(f"The model {self.card.name!r} is closed; load it again.")
        outputs = session.run({"seed": seeds, **controls}, deadline=deadline)
        check_content(self.card, outputs["content"], len(seeds))
        return outputs

    def check_golden(self) -> tuple[bool, str]:
        """Make the golden items of the card again; return whether they pass, and what was measured."""
        card, golden = self.card, self.card.golden
        if golden is None:
            raise InvalidModel(f"The card of {card.name} has no golden items.")
        controls = {control.name: golden.control_array(control) for control in card.controls}
        deadline = time.monotonic() + _GOLDEN_DEADLINE_S
        content = self.run(np.array(golden.seeds, np.int64), controls, deadline=deadline)["content"]
        gap = np.abs(content.astype(np.int64) - golden.array(card.output.dtype))
        share = float((gap > 0).mean())
        measured = f"{share:.1e} of the values differ, by at most {gap.max()}"
        return bool(share <= GOLDEN_SHARE and gap.max() <= 1), measured

    def close(self) -> None:
        """Release the session."""
        self._session = None
