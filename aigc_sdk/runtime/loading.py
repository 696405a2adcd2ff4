"""Loading: from the bytes of an untrusted file to a session that has made its golden items, for either kind of file."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from aigc_sdk.card import CARD_KEY, ModelCard
from aigc_sdk.errors import InvalidModel
from aigc_sdk.forking import unforked
from aigc_sdk.runtime.folding import may_fold
from aigc_sdk.runtime.safety import Verdict, read_model
from aigc_sdk.runtime.trial import try_out

if TYPE_CHECKING:
    from aigc_sdk.runtime.session import Session

GOLDEN_DEADLINE_S = 60.0

_log = logging.getLogger("aigc_sdk")


class Runner(Protocol):
    """What runs a file of either kind, and can make its golden items again."""

    card: ModelCard
    provider: str

    def check_golden(self) -> tuple[bool, str]:
        """Return whether the golden items of the card come out again, and what was measured."""


AnyRunner = TypeVar("AnyRunner", bound=Runner)


def open_file(
    path: Path,
    run: "Callable[[Session, ModelCard], AnyRunner]",
    *,
    device: str = "auto",
    trusted_sha256: str | None = None,
    deadline: float | None = None,
) -> AnyRunner:
    """Load a file of the contract safely: what was not seen before is first tried in another process.

    The first use of a file runs its golden items; a miss is logged and recorded, it may be another CPU.

    Args:
        path: an `.onnx` file of the contract.
        run: makes of a session and its card what runs it.
        device: as in `choose_providers`.
        trusted_sha256: bytes of this hash are known to be good and are not checked.
        deadline: when to give up trying the file, in seconds of `time.monotonic`.

    Raises:
        InvalidModel: the file is broken, hostile or not one of ours.
        InvalidRequest: it is of another kind than `run` takes.
        StorageError: it cannot be read.
        DeviceUnavailable: the device is not there.
        GenerationFailed, DeadlineExceeded: its golden items cannot be made.
    """
    data = read_model(path)
    sha256 = hashlib.sha256(data).hexdigest()
    verdict = Verdict.load(sha256)
    if sha256 != trusted_sha256 and not verdict.is_safe:
        verdict = try_out(data, path.name, deadline=deadline)
        verdict.save(sha256)
    runner = run(*load_bytes(data, device=device, name=path.name, fold=sha256 == trusted_sha256 or verdict.may_fold))
    if runner.provider not in verdict.golden:
        passed, measured = runner.check_golden()
        verdict.golden[runner.provider] = measured
        verdict.save(sha256)
        if not passed:
            _log.warning("%s makes other content here than where it was exported: %s", path.name, measured)
    return runner


def load_bytes(
    data: bytes, *, device: str, name: str, fold: bool | None = None, threads: int | None = None
) -> "tuple[Session, ModelCard]":
    """Load bytes that are known to be good, and read their card; `fold` as in `Session`, None finds out."""
    with unforked:
        from aigc_sdk.runtime.session import Session  # imports onnxruntime

    fold = may_fold(data) if fold is None else fold
    session = Session(data, device=device, name=name, fold=fold, threads=threads)
    if CARD_KEY not in session.metadata:
        raise InvalidModel(f"{name} has no card (metadata {CARD_KEY!r}).")
    return session, ModelCard.from_checked_json(session.metadata[CARD_KEY])
