"""Sessions: one onnxruntime session with deadlines and bounded concurrency, safe to use from threads."""

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

from aigc_sdk.errors import DeadlineExceeded, GenerationFailed, InvalidModel
from aigc_sdk.runtime.devices import check_provider, choose_providers

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

    At most cores + 1 runs are under way at once: more of them finish no sooner and each holds an arena.

    Args:
        model: the bytes of the file; they have passed the checks.
        device: as in `choose_providers`.
        name: what messages call the model.
        fold: onnxruntime makes what follows from constants alone while loading (`may_fold`), not in each run.

    Raises:
        InvalidModel: onnxruntime does not accept the model.
        DeviceUnavailable: the device is not there.
    """

    def __init__(self, model: bytes, *, device: str, name: str, fold: bool = False) -> None:
        self.name = name
        self._fold = fold
        self._model = model
        self._device = device
        self._session: Any = None
        self._start()
        _started.add(self)

    def _start(self) -> Any:
        """Load the model in this process and return onnxruntime's session."""
        providers = choose_providers(self._device, ort.get_available_providers())
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its errors come back as exceptions
        # Without this, bytes that happen to say "ORTM" are read as another format, which nobody has checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        cancel = getattr(options, "set_load_cancellation_flag", lambda _: None)  # since onnxruntime 1.22
        watch = _watchdog.start(lambda: cancel(True), time.monotonic() + _LOAD_DEADLINE_S)
        try:
            session = ort.InferenceSession(
                self._model,
                options,
                providers=providers,
                disabled_optimizers=[] if self._fold else _NOT_FOLDED,
                enable_fallback=False,  # it would print, and run on the CPU instead
            )
            self.metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        except _ORT_ERRORS as error:
            raise InvalidModel(f"onnxruntime cannot load {self.name}: {_first_line(error)}.") from error
        finally:
            _watchdog.stop(watch)
        self.provider = providers[0][0]
        check_provider(self._device, self.provider, session.get_providers())
        self._outputs = [output.name for output in session.get_outputs()]
        self._places = SimpleQueue[None]()  # of C, unlike a semaphore
        for _ in range((os.cpu_count() or 1) + 1):
            self._places.put(None)
        self._session = session
        return session

    def leave_behind(self) -> None:
        """Let go of what belongs to the parent process; the next run starts anew."""
        _left_behind.append(self._session)
        self._session = None

    def run(self, feeds: Mapping[str, Array], *, deadline: float | None = None) -> dict[str, Array]:
        """Run the model once and return its outputs by name.

        Raises:
            DeadlineExceeded: `deadline` (of `time.monotonic`) passed while waiting or running.
            GenerationFailed: onnxruntime failed, for example for lack of memory.
        """
        session, places = self._session or self._start(), self._places
        wait = None if deadline is None else min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
        if wait is not None and wait <= 0:
            raise self._too_late()
        try:
            places.get(timeout=wait)
        except Empty:
            raise self._too_late() from None
        options = ort.RunOptions()
        watch = _watchdog.start(lambda: setattr(options, "terminate", True), deadline)
        try:
            values = session.run(self._outputs, dict(feeds), options)
        except _ORT_ERRORS as error:
            if options.terminate:
                raise self._too_late() from error
            raise GenerationFailed(f"{self.name} failed while running: {_first_line(error)}.") from error
        finally:
            _watchdog.stop(watch)
            places.put(None)
        return dict(zip(self._outputs, values, strict=True))

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.name} did not finish before the deadline. Ask for fewer items, or give a larger deadline_s."
        )


class _Watchdog:
    """One daemon thread, started when first needed, that ends what takes longer than it may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._watched: dict[object, tuple[float, Callable[[], None]]] = {}
        self._next_look = math.inf
        self._thread: threading.Thread | None = None

    def start(self, end: Callable[[], None], deadline: float | None) -> object:
        """Call `end` at the deadline, unless `stop` is called before with what this returns."""
        key = object()
        if deadline is None:
            return key
        with self._lock:
            self._watched[key] = (deadline, end)
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="aigc-deadlines", daemon=True)
                thread.start()
                self._thread = thread
            elif deadline < self._next_look:
                self._changed.notify()
        return key

    def stop(self, key: object) -> None:
        """Forget a deadline."""
        with self._lock:
            self._watched.pop(key, None)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for key, (deadline, end) in list(self._watched.items()):
                    if deadline <= now:
                        end()
                        del self._watched[key]
                self._next_look = min((deadline for deadline, _ in self._watched.values()), default=math.inf)
                self._changed.wait(min(self._next_look - now, threading.TIMEOUT_MAX))


_watchdog = _Watchdog()
# To free a parent's session would wait for its threads, which a fork does not copy.
_left_behind: list[Any] = []
_started: "weakref.WeakSet[Session]" = weakref.WeakSet()


def _after_fork() -> None:
    """Start from nothing in a forked process: of all threads, only the one that forked is there."""
    global _watchdog
    _watchdog = _Watchdog()
    for session in list(_started):
        session.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:300]
