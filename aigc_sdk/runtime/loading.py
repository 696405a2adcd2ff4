"""Loading: from the bytes of an untrusted file to a session that has made its golden items, for either kind of file."""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from aigc_sdk.card import CARD_KEY, ModelCard
from aigc_sdk.errors import AigcError, GenerationFailed, InvalidModel
from aigc_sdk.files import read_file
from aigc_sdk.forking import unforked
from aigc_sdk.likeness import Likeness
from aigc_sdk.runtime.devices import CPU
from aigc_sdk.runtime.folding import may_fold
from aigc_sdk.runtime.safety import Verdict, check_known, read_model

if TYPE_CHECKING:
    from aigc_sdk.runtime.session import Session

GOLDEN_DEADLINE_S = 60.0

_log = logging.getLogger("aigc_sdk")


class Runner(Protocol):
    """What runs a file of either kind, and can make its golden items again."""

    card: ModelCard
    provider: str

    def check_golden(self) -> Likeness:
        """Make the golden items of the card again, and compare them."""


AnyRunner = TypeVar("AnyRunner", bound=Runner)


def open_file(
    path: Path,
    run: "Callable[[Session, ModelCard], AnyRunner]",
    *,
    device: str = "auto",
    trusted_sha256: str | None = None,
    deadline: float | None = None,
    compares: bool = True,
) -> AnyRunner:
    """Load a file of the contract safely: what was not seen before is first tried in another process.

    The first use of a file on a device runs its golden items. A miss within rounding is logged and recorded; more, on
    another device or another onnxruntime than the one that made them, is an error each time. A card beside the file
    that is not the one inside is logged: what runs here is right, but who reads that one is told wrong.

    Args:
        path: an `.onnx` file of the contract.
        run: makes of a session and its card what runs it.
        device: as in `choose_providers`.
        trusted_sha256: bytes of this hash are known to be good and are not checked.
        deadline: when to give up trying the file, in seconds of `time.monotonic`.
        compares: compare the golden items; without it, whoever asks does.

    Raises:
        InvalidModel: the file is broken, hostile or not one of ours.
        InvalidRequest: it is of another kind than `run` takes.
        StorageError: it cannot be read.
        DeviceUnavailable: the device is not there, or cannot run the file.
        GenerationFailed: its golden items cannot be made here, or are other ones here.
        DeadlineExceeded: making them takes too long.
    """
    data = read_model(path)
    sha256 = hashlib.sha256(data).hexdigest()
    verdict = Verdict.load(sha256)
    if sha256 != trusted_sha256 and not verdict.is_safe:
        with unforked:  # what starts processes is imported where it is needed
            from aigc_sdk.runtime.trial import try_out

        verdict = try_out(data, path.name, deadline=deadline)
        verdict.save(sha256)
    runner = run(*load_bytes(data, device=device, name=path.name, fold=sha256 == trusted_sha256 or verdict.may_fold))
    _look_beside(path, runner.card)
    if compares and made_by(runner) not in verdict.golden:
        verdict.golden[made_by(runner)] = _compare(runner, path.name)
        verdict.save(sha256)
    return runner


def _look_beside(path: Path, card: ModelCard) -> None:
    """Log it when the card that lies beside a file, for runtimes that show none inside, is another one."""
    beside = path.with_suffix(".card.json")
    try:
        is_other = os.path.exists(beside) and json.loads(read_file(beside)) != json.loads(card.to_json())
    except (AigcError, OSError, ValueError, RecursionError):
        is_other = True
    if is_other:
        _log.warning(
            "%s is not the card that is inside of %s, so one of both was exported apart or edited. The card inside is"
            " used here; a browser or another runtime that shows none reads the other. Export the model again, or copy"
            " both.",
            beside,
            path.name,
        )


def made_by(runner: Runner) -> str:
    """Return what golden items say of what made them: provider, version of onnxruntime, and kind of processor."""
    return f"{runner.provider} on {platform.machine()}"


def _compare(runner: Runner, name: str) -> str:
    """Return how the golden items came out; log a miss within rounding, and raise GenerationFailed for any other."""
    likeness, golden = runner.check_golden(), runner.card.golden
    maker = golden.provider if golden else ""
    if likeness.is_gross and maker != made_by(runner):
        other = "Use device='cpu'" if not runner.provider.startswith(CPU) else "Use another version of onnxruntime"
        raise GenerationFailed(
            f"{name} makes other content on {made_by(runner)} than {maker or 'the one that exported it'}:"
            f" {likeness.measured}, which no rounding explains. This device computes the file wrongly,"
            f" or its golden items were edited. {other}."
        )
    if not likeness.passed:
        _log.warning("%s makes other content here than where it was exported: %s", name, likeness.measured)
    return likeness.measured


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
    card = ModelCard.from_checked_json(session.metadata[CARD_KEY])
    try:
        check_known(card)
    except InvalidModel as error:
        raise InvalidModel(f"{name} cannot be used: {error}") from error
    return session, card
