"""The trial: a file that was not seen before is first checked, loaded and run in a process that can be killed.

Nothing ends a kernel that runs while onnxruntime loads a file, and nothing bounds what a run allocates. So whatever is
not known to end is tried in a child process, which has so much processor time and, on Linux, so much memory. Only when
that went well does this process load the file too. The verdict is kept by the sha256 of the file, so later loads pay
nothing for it; ready-made models and files that were just exported are not tried.

Where no process can be started (a frozen application, an embedded interpreter, a sandbox), the file is checked and run
here instead: the same checks, but no bounds.
"""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from aigc_sdk import errors
from aigc_sdk.errors import AigcError, DeadlineExceeded, GenerationFailed, InvalidModel, InvalidRequest
from aigc_sdk.forking import unforked
from aigc_sdk.registry import adopt, modality_specs
from aigc_sdk.runtime.folding import MAX_CONSTANT_VALUES, folded_values
from aigc_sdk.runtime.safety import Verdict, check_model
from aigc_sdk.stopping import current_stop

if TYPE_CHECKING:
    from aigc_sdk.runtime.loading import Runner

# What a small file may take, to load it twice and make its golden items once; these variables allow more.
SECONDS, MEGABYTES = ("AIGC_SDK_TRIAL_SECONDS", 7), ("AIGC_SDK_TRIAL_MB", 900)

# A large file may take more: a second for so many bytes of it, and for each byte so many of memory (the file is parsed,
# written and loaded, and weights are packed anew), and so many for each value that is folded.
_BYTES_PER_SECOND, _BYTES_PER_BYTE, _BYTES_PER_VALUE = 50_000_000, 8, 8

# How many times longer a process may live. Where its processor time is limited, only a busy machine makes it wait.
_PATIENCE = 6 if sys.platform == "win32" else 60
_READY = b"ready\n"

_log = logging.getLogger("aigc_sdk")


@dataclass(frozen=True)
class Limits:
    """What a trial may take.

    Args:
        seconds: of processor time, of one thread; the time that loading takes counts twice.
        size_bytes: of memory, the interpreter and all libraries counted.
    """

    seconds: float
    size_bytes: int

    @classmethod
    def of(cls, file_bytes: int) -> "Limits":
        """Return the limits for a file of this size; raises InvalidRequest when a variable holds no number."""
        seconds, megabytes = (_read_variable(*each) for each in (SECONDS, MEGABYTES))
        return cls(seconds + file_bytes / _BYTES_PER_SECOND, megabytes * 10**6 + file_bytes * _BYTES_PER_BYTE)

    def hold_memory(self, more_bytes: int = 0) -> None:
        """Limit what this process may allocate; only Linux tells how much it has, and keeps to a limit."""
        if sys.platform != "linux":
            return
        import resource

        pages, resident = map(int, Path("/proc/self/statm").read_text().split()[:2])
        # Much of the address space is mapped and never touched, such as the libraries.
        untouched = (pages - resident) * resource.getpagesize()
        _set_limit(resource.RLIMIT_AS, untouched + self.size_bytes + more_bytes)

    def hold_time(self, seconds: float) -> None:
        """End this process when it has used so many more seconds of processor time; not on Windows."""
        if sys.platform == "win32":
            return
        import resource

        _set_limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))


def _read_variable(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 10**9):
        raise InvalidRequest(f"The variable {name} is {text[:50]!r}; give a whole number of at least 1.")
    return int(text)


def _set_limit(kind: int, value: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def try_out(data: bytes, name: str, *, deadline: float | None = None) -> Verdict:
    """Check, load and run a file in a process of its own, and return the verdict on it.

    Args:
        data: the whole file.
        name: what messages call it.
        deadline: when to give up, in seconds of `time.monotonic`.

    Raises:
        InvalidModel: it does not pass the checks, crashes onnxruntime, or takes more than `Limits`.
        GenerationFailed: its golden items cannot be made, or it was stopped.
        DeadlineExceeded: the deadline passed.
        InvalidRequest: a variable that sets a limit holds no number.
    """
    limits = Limits.of(len(data))
    process = _start(name, limits)
    if process is None:
        return look(data, name)
    with unforked:
        import onnxruntime  # noqa: F401  # needed next; it is imported while the process starts

    wait, stop = _PATIENCE * limits.seconds, current_stop()
    if deadline is not None:
        wait = max(min(wait, deadline - time.monotonic()), 0)
    with process, stop.ending(process.kill):
        try:
            reported, _ = process.communicate(data, timeout=wait)
        except subprocess.TimeoutExpired as error:
            if deadline is not None and time.monotonic() >= deadline:
                late = f"{name} was not loaded before the deadline. Give a larger deadline_s."
                raise DeadlineExceeded(late) from error
            raise InvalidModel(_too_slow(name, limits)) from error
        finally:
            process.kill()  # also when this thread is interrupted; one that has ended feels nothing
    if stop.is_set:
        raise GenerationFailed(f"{name} was stopped.")
    if not reported.startswith(_READY):
        _log.debug("No process can try %s (exit code %s), so it is tried here.", name, process.returncode)
        return look(data, name)
    return _read_report(reported[len(_READY) :], process.returncode, name, limits)


def _start(name: str, limits: Limits) -> "subprocess.Popen[bytes] | None":
    """Start the process; None where there is no interpreter to start, or nothing may be started."""
    python = Path(sys.executable or "")
    if getattr(sys, "frozen", False) or not python.name.lower().startswith(("python", "pypy")):
        return None
    # The path is that of this process before anything is imported: what it finds is what this process would find.
    code = f"import sys; sys.path[:] = {sys.path!r}; from aigc_sdk.runtime.trial import main; main()"
    # One thread: its processor time is what a user waits. More arenas of malloc only use up address space.
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    try:
        return subprocess.Popen(  # noqa: S603  # this interpreter, with our own code
            [str(python), "-c", code, json.dumps([name, asdict(limits), modality_specs()])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | one_thread,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        _log.debug("No process can try %s (%s), so it is tried here.", name, error)
        return None


def _read_report(report: bytes, exit_code: int, name: str, limits: Limits) -> Verdict:
    """Return the verdict that the process reported, or raise the error."""
    try:
        values = json.loads(report)
    except ValueError:  # it was killed, or has crashed
        if exit_code == -getattr(signal, "SIGXCPU", 0):
            raise InvalidModel(_too_slow(name, limits)) from None
        raise InvalidModel(
            f"{name} crashes onnxruntime while it is loaded or makes its golden items (exit code {exit_code}),"
            f" or {_needs_more(limits)}"
        ) from None
    if "verdict" in values:
        return Verdict(**values["verdict"])
    kind, message = getattr(errors, values["error"]), values["message"]
    raise kind(f"{message.rstrip('.')}. It {_needs_more(limits)}" if "alloc" in message.lower() else message)


def _needs_more(limits: Limits) -> str:
    return (
        f"needs more than the {limits.size_bytes / 10**6:.0f} MB that an unknown file may take; if you trust it,"
        f" set {MEGABYTES[0]} to more."
    )


def _too_slow(name: str, limits: Limits) -> str:
    return (
        f"{name} takes more than {limits.seconds:.0f} s of processor time to be loaded and to make its golden items,"
        f" so it is refused; if you trust it, set {SECONDS[0]} to more."
    )


def look(data: bytes, name: str, limits: Limits | None = None) -> Verdict:
    """Check, load and run a file in this process, and return the verdict on it.

    Args:
        data: the whole file.
        name: what messages call it.
        limits: what this process may take; None where it is not one of its own.

    Raises:
        InvalidModel: it does not pass the checks.
        GenerationFailed, DeadlineExceeded: its golden items cannot be made.
    """
    from aigc_sdk.runtime import OnnxGenerator, OnnxMeasure  # they load files with this module
    from aigc_sdk.runtime.loading import load_bytes, made_by

    start = time.process_time()
    check_model(data, name)
    folded = folded_values(data)
    if limits:
        limits.hold_memory(_BYTES_PER_VALUE * max((folded or 0) - MAX_CONSTANT_VALUES, 0))
    session, card = load_bytes(data, device="cpu", name=name, fold=folded is not None, threads=1 if limits else None)
    if limits:  # who asked will load it once more
        limits.hold_time(limits.seconds - 2 * (time.process_time() - start))
    runner: Runner = OnnxMeasure(session, card) if card.kind == "measure" else OnnxGenerator(session, card)
    likeness = runner.check_golden()
    verdict = Verdict(is_safe=True, may_fold=folded is not None)
    if likeness.passed:  # who loads the file says so otherwise
        verdict.golden[made_by(runner)] = likeness.measured
    return verdict


def main() -> None:
    """Try a file that comes on standard input, and report on standard output: what the process of `try_out` runs."""
    report = _take_stdout()
    import onnx  # noqa: F401  # imported before the limits hold

    name, values, modalities = json.loads(sys.argv[1])
    adopt(modalities)
    limits = Limits(**values)
    report.write(_READY)
    data = sys.stdin.buffer.read()
    limits.hold_memory()
    limits.hold_time(limits.seconds / 2)
    answer: dict[str, object]
    try:
        answer = {"verdict": asdict(look(data, name, limits))}
    except AigcError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        answer = {"error": "InvalidModel", "message": f"{name} cannot be allocated."}
    report.write(json.dumps(answer).encode())
    os._exit(0)  # to free what a hostile file has built may take long


def _take_stdout() -> IO[bytes]:
    """Return standard output, which from now on nothing else writes to."""
    report = os.fdopen(os.dup(1), "wb", buffering=0)
    with suppress(OSError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    return report
