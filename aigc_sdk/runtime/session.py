"""Sessions: one onnxruntime session with deadlines and bounded concurrency, safe to use from threads."""

import os
import time
import weakref
from collections.abc import Mapping
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

from aigc_sdk.errors import AigcError, DeadlineExceeded, DeviceUnavailable, GenerationFailed, InvalidModel
from aigc_sdk.forking import making_session
from aigc_sdk.runtime.devices import CPU, check_provider, choose_providers
from aigc_sdk.runtime.places import Ended, Job, NoThread, Places, Stopped

Array = NDArray[Any]

# onnxruntime's own exceptions have no common base but Exception; its binding adds a few of Python's.
_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(onnxruntime_pybind11_state).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
    MemoryError,
)

_LOAD_DEADLINE_S = 60.0

# What a graph makes of its constants may take hours and all memory, and only a run can be ended. Without this one the
# other fails on weights of float16 that a loop or a branch uses (seen in onnxruntime 1.31.1).
_NOT_FOLDED = ["ConstantFolding", "FuseFp16InitializerToFp32NodeTransformer"]


class Session:
    """A model in memory, ready to run; in a forked process it starts itself anew.

    At most cores + 1 runs are under way at once: more of them finish no sooner and each holds an arena. They are made
    in threads of the session's own (`Places`), so that Ctrl-C, a deadline and a `Stop` end them; so is the loading.

    Args:
        model: the bytes of the file; they have passed the checks.
        device: as in `choose_providers`.
        name: what messages call the model.
        fold: onnxruntime makes what follows from constants alone while loading (`may_fold`), not in each run.
        threads: for each operator; None leaves it to onnxruntime.

    Raises:
        InvalidModel: onnxruntime does not accept the model, on the CPU either.
        DeviceUnavailable: the device is not there, or cannot run what the CPU can.
        GenerationFailed: no thread can be started, there is too little memory, or it was stopped.
    """

    def __init__(self, model: bytes, *, device: str, name: str, fold: bool = False, threads: int | None = None) -> None:
        self.name = name
        self._fold = fold
        self._threads = threads or 0
        self._model = model
        self._device = device
        self._session: Any = None
        self._start()
        _started.add(self)

    @property
    def model_bytes(self) -> int:
        """How large the file is."""
        return len(self._model)

    def _start(self) -> Any:
        """Load the model in this process and return onnxruntime's session."""
        providers = choose_providers(self._device, ort.get_available_providers())
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its errors come back as exceptions
        options.intra_op_num_threads = self._threads
        # Without this, bytes that happen to say "ORTM" are read as another format, which nobody has checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")

        def load() -> Any:
            with making_session():
                return ort.InferenceSession(
                    self._model,
                    options,
                    providers=providers,
                    disabled_optimizers=[] if self._fold else _NOT_FOLDED,
                    enable_fallback=False,  # it would print, and run on the CPU instead
                )

        cancel = getattr(options, "set_load_cancellation_flag", lambda _: None)  # since onnxruntime 1.22
        places = Places((os.cpu_count() or 1) + 1)
        try:
            session = self._made(Job(load, lambda: cancel(True)), places, time.monotonic() + _LOAD_DEADLINE_S)
        except Ended as error:
            raise self._cannot_load(providers[0][0], error, f"not within {_LOAD_DEADLINE_S:g} seconds") from error
        except _ORT_ERRORS as error:
            raise self._cannot_load(providers[0][0], error, _first_line(error)) from error
        self.metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        self.provider = providers[0][0]
        check_provider(self._device, self.provider, session.get_providers())
        self._outputs = [output.name for output in session.get_outputs()]
        self._places = places
        self._session = session
        return session

    def _cannot_load(self, provider: str, error: Exception, what: str) -> AigcError:
        """Return what is to blame: the file, or this device, which cannot run what others can."""
        here = f"{provider} of onnxruntime {ort.__version__}"
        if isinstance(error, MemoryError):
            return GenerationFailed(f"{self.name} does not fit into the memory of {here}: {what}.")
        if provider != CPU:
            Session(self._model, device="cpu", name=self.name, fold=self._fold)  # raises where the file is to blame
            return DeviceUnavailable(
                f"device={self._device!r}: {here} cannot load {self.name}, and the CPU can: {what}. Use device='cpu'."
            )
        if isinstance(error, onnxruntime_pybind11_state.NotImplemented):
            return DeviceUnavailable(f"{here} lacks an operator that {self.name} needs: {what}.")
        return InvalidModel(f"onnxruntime cannot load {self.name}: {what}.")

    def leave_behind(self) -> None:
        """Let go of what belongs to the parent process; the next run starts anew."""
        _left_behind.append(self._session)
        self._session = None

    def run(self, feeds: Mapping[str, Array], *, deadline: float | None = None) -> dict[str, Array]:
        """Run the model once and return its outputs by name.

        Raises:
            DeadlineExceeded: `deadline` (of `time.monotonic`) passed while waiting or running.
            GenerationFailed: onnxruntime failed, for example for lack of memory; or the run was stopped.
        """
        session = self._session or self._start()
        if deadline is not None and deadline <= time.monotonic():
            raise self._too_late()
        options = ort.RunOptions()
        job = Job(lambda: session.run(self._outputs, dict(feeds), options), lambda: setattr(options, "terminate", True))
        try:
            values = self._made(job, self._places, deadline)
        except Ended as error:
            raise self._too_late() from error
        except _ORT_ERRORS as error:
            where = f" on {self.provider} (onnxruntime {ort.__version__})"
            raise GenerationFailed(f"{self.name} failed while running{where}: {_first_line(error)}.") from error
        return dict(zip(self._outputs, values, strict=True))

    def _made(self, job: Job, places: Places, deadline: float | None) -> Any:
        """Return what a job makes, in one of the places; raises what it raises, and `Ended`."""
        try:
            return places.make(job, deadline)
        except NoThread as error:
            raise GenerationFailed(f"{self.name} cannot run, for want of a thread: {_first_line(error)}.") from error
        except Stopped as error:
            raise GenerationFailed(f"{self.name} was stopped.") from error

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.name} did not finish before the deadline. Ask for fewer items, or give a larger deadline_s."
        )


# To free a parent's session would wait for its threads, which a fork does not copy.
_left_behind: list[Any] = []
_started: "weakref.WeakSet[Session]" = weakref.WeakSet()


def _after_fork() -> None:
    """Start from nothing in a forked process: of all threads, only the one that forked is there."""
    for session in list(_started):
        session.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:300]
