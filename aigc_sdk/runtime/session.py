"""Sessions: one onnxruntime session with deadlines and bounded concurrency, safe to use from threads."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
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


class Session:
    """A model in memory, ready to run.

    At most cores + 1 runs are under way at once: more of them finish no sooner and each holds an arena.

    Args:
        model: the bytes of the file; they have passed the checks.
        device: as in `choose_providers`.
        name: what messages call the model.

    Raises:
        InvalidModel: onnxruntime does not accept the model.
        DeviceUnavailable: the device is not there.
    """

    def __init__(self, model: bytes, *, device: str, name: str) -> None:
        providers = choose_providers(device, ort.get_available_providers())
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its errors come back as exceptions
        try:
            self._session = ort.InferenceSession(model, options, providers=providers)
            self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except _ORT_ERRORS as error:
            raise InvalidModel(f"onnxruntime cannot load {name}: {_first_line(error)}.") from error
        check_provider(device, providers[0][0], self._session.get_providers())
        self.name = name
        self.provider = providers[0][0]
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._places = threading.BoundedSemaphore((os.cpu_count() or 1) + 1)

    def run(self, feeds: Mapping[str, Array], *, deadline: float | None = None) -> dict[str, Array]:
        """Run the model once and return its outputs by name.

        Raises:
            DeadlineExceeded: `deadline` (of `time.monotonic`) passed while waiting or running.
            GenerationFailed: onnxruntime failed, for example for lack of memory.
        """
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._places.acquire(timeout=wait):
            raise self._too_late()
        options = ort.RunOptions()
        try:
            with _watchdog.watching(options, deadline):
                values = self._session.run(self._outputs, dict(feeds), options)
        except _ORT_ERRORS as error:
            if options.terminate:
                raise self._too_late() from error
            raise GenerationFailed(f"{self.name} failed while running: {_first_line(error)}.") from error
        finally:
            self._places.release()
        return dict(zip(self._outputs, values, strict=True))

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.name} did not finish before the deadline. Ask for fewer items, or give a larger deadline_s."
        )


class _Watchdog:
    """One daemon thread, started when first needed, that ends the runs whose time is over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._runs: dict[int, tuple[float, ort.RunOptions]] = {}
        self._next_look = float("inf")
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, options: ort.RunOptions, deadline: float | None) -> Iterator[None]:
        """End a run at its deadline, for as long as the `with` block lasts."""
        if deadline is None:
            yield
            return
        key = id(options)
        self._add(key, deadline, options)
        try:
            yield
        finally:
            with self._changed:
                self._runs.pop(key, None)

    def _add(self, key: int, deadline: float, options: ort.RunOptions) -> None:
        with self._changed:
            self._runs[key] = (deadline, options)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="aigc-deadlines", daemon=True)
                self._thread.start()
            if deadline < self._next_look:
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for key, (deadline, options) in list(self._runs.items()):
                    if deadline <= now:
                        options.terminate = True
                        del self._runs[key]
                self._next_look = min((deadline for deadline, _ in self._runs.values()), default=float("inf"))
                idle = self._next_look == float("inf")
                self._changed.wait(None if idle else self._next_look - now)


_watchdog = _Watchdog()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:300]
