"""OnnxMeasure: a file that makes numbers of content, such as features, logits or a score."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from aigc_sdk.card import CARD_KEY, Golden, ModelCard, Packed
from aigc_sdk.errors import GenerationFailed, InvalidModel, InvalidRequest
from aigc_sdk.files import atomic_pair
from aigc_sdk.likeness import Gap, Likeness
from aigc_sdk.modality import find_modality, lengths_of
from aigc_sdk.runtime.loading import GOLDEN_DEADLINE_S, load_bytes, made_by, open_file
from aigc_sdk.runtime.safety import check_model, graph_sha256, trust
from aigc_sdk.runtime.session import Session

if TYPE_CHECKING:
    import onnx

# Items in one run: the activations of a network at 224 x 224 pixels then stay below 200 MB.
BATCH_SIZE = 32


class OnnxMeasure:
    """Runs a measure of the contract with onnxruntime: content in, `value` out. Safe to use from threads.

    Args:
        session: the file, loaded.
        card: what the file says of itself.

    Raises:
        InvalidRequest: the file is a model.
    """

    def __init__(self, session: Session, card: ModelCard) -> None:
        card.check_kind("measure")
        self.card = card
        self.provider = f"{session.provider} (onnxruntime {ort.__version__})"
        self._session: Session | None = session

    @classmethod
    def open(cls, path: Path, *, device: str = "auto", trusted_sha256: str | None = None) -> "OnnxMeasure":
        """Load a measure safely; see `open_file`."""
        return open_file(path, cls, device=device, trusted_sha256=trusted_sha256)

    @classmethod
    def from_bytes(cls, data: bytes, *, device: str = "auto", name: str = "the measure") -> "OnnxMeasure":
        """Load bytes that are known to be good, for example because they were just made."""
        return cls(*load_bytes(data, device=device, name=name))

    def run(self, content: NDArray[Any], *, deadline: float | None = None) -> NDArray[np.float32]:
        """Measure every item, in batches.

        Args:
            content: (n, ...) as the card's input says, n >= 1: uint8 (n, height, width, channels) for images, int32
                (n, t) for texts, -1 behind the end of each, and float32 (n, t, 6) for music, zeros behind the end.
            deadline: when to give up, in seconds of `time.monotonic`.

        Returns:
            float32 (n, K); row i depends on item i alone.

        Raises:
            InvalidRequest: the content is not what the measure takes.
            DeadlineExceeded: the deadline passed.
            GenerationFailed: the measure failed, is closed, or gave something else than its card says.
        """
        session = self._session  # another thread may close it meanwhile
        if session is None:
            raise GenerationFailed(f"The measure {self.card.name!r} is closed; load it again.")
        self._check_content(content)
        batches = (content[start : start + BATCH_SIZE] for start in range(0, len(content), BATCH_SIZE))
        return np.concatenate([self._run(session, batch, deadline) for batch in batches])

    def _run(self, session: Session, batch: NDArray[Any], deadline: float | None) -> NDArray[np.float32]:
        feeds = {"content": np.ascontiguousarray(batch)}
        if self.card.input and self.card.input.length:
            feeds["length"] = lengths_of(batch, find_modality(self.card.modality).filler)
        value = session.run(feeds, deadline=deadline)["value"]
        shape = (len(batch), *self.card.output.shape)
        if value.dtype != np.float32 or value.shape != shape:
            raise GenerationFailed(
                f"{self.card.name} returned {value.dtype} {value.shape}; its card says float32 {shape}."
            )
        if not np.isfinite(value).all():
            raise GenerationFailed(f"{self.card.name} returned values that are not finite.")
        return value

    def _check_content(self, content: NDArray[Any]) -> None:
        taken = self.card.input
        shape = taken.shape if taken else ()
        if taken and taken.length and content.ndim > 1:  # as long as the longest of them
            shape = (min(content.shape[1], shape[0]), *shape[1:])
        if taken is None or content.dtype != taken.dtype or content.shape[1:] != shape or not content.size:
            wanted = taken and f"{taken.dtype} (n, {', '.join(map(str, taken.shape))}), n at least 1"
            raise InvalidRequest(
                f"{self.card.name} measures contents of {wanted}; these are {content.dtype} {content.shape}."
            )

    def check_golden(self) -> Likeness:
        """Measure the golden contents of the card again, and compare the values."""
        card, golden = self.card, self.card.golden
        content = golden.controls.get("content") if golden else None
        if golden is None or card.input is None or not isinstance(content, Packed):
            raise InvalidModel(f"The card of {card.name} has no golden items.")
        wanted = golden.array(card.output.dtype)
        value = self.run(content.array(card.input.dtype), deadline=time.monotonic() + GOLDEN_DEADLINE_S)
        measured = f"the values differ by at most {np.abs(value - wanted).max():.1e}"
        gap = Gap.of(value, wanted)
        return Likeness(not gap.differing, measured, gap.is_gross)

    def close(self) -> None:
        """Release the session."""
        self._session = None


def within_tolerance(value: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether two values of one measure are the same but for rounding; NaN never is."""
    return not Gap.of(value, wanted).differing


def finish_measure(graph: "onnx.ModelProto", card: ModelCard, content: NDArray[Any]) -> bytes:
    """Return the bytes of a measure that passes the loader's checks: the graph with its card.

    Args:
        graph: content in, value out.
        card: complete but for `graph_sha256` and `golden`.
        content: the golden items, at most 16; they stay in the card, so they should pack well.

    Raises:
        InvalidModel: it does not pass; says why.
    """

    def data(card: ModelCard) -> bytes:
        graph.ClearField("metadata_props")
        graph.metadata_props.add(key=CARD_KEY, value=card.to_json())
        return bytes(graph.SerializeToString(deterministic=True))

    card = replace(card, graph_sha256=graph_sha256(graph))
    measure = OnnxMeasure.from_bytes(data(card))
    value = measure.run(content)
    golden = Golden.of(np.zeros(0, np.int64), {"content": content}, value, provider=made_by(measure))
    finished = data(replace(card, golden=golden))
    check_model(finished, card.name)
    trust(finished)
    return finished


def write_measure(data: bytes, path: Path) -> None:
    """Write a finished measure, and its card beside it as NAME.card.json; raises StorageError."""
    with atomic_pair(path.with_suffix(".card.json"), path, asked=path) as (card_file, file):
        file.write_bytes(data)
        card_file.write_text(check_model(data, path.name).to_json(), encoding="utf-8")
