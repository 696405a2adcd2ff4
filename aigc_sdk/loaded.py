"""Loaded models: kept within a bound in bytes, each loaded once however many ask for it at the same time.

A load is made in a thread of its own. Ctrl-C and deadlines are those of who waits for it, so that none of them harms
another; when the last one has gone, the load is stopped.
"""

import _thread
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from aigc_sdk.errors import DeadlineExceeded, GenerationFailed, InvalidRequest, PluginError, shown
from aigc_sdk.stopping import Stop, current_stop

BOUND = "AIGC_SDK_LOADED_MB"
_DEFAULT_MB = 512

# Windows wakes nobody who waits for a queue when Ctrl-C is pressed, so that it is looked for this often.
_LOOK_S = 0.1 if os.name == "nt" else threading.TIMEOUT_MAX

Value = TypeVar("Value")


def bound_bytes() -> int:
    """Return how many bytes of loaded models are kept.

    Raises:
        InvalidRequest: AIGC_SDK_LOADED_MB is no whole number of megabytes.

    Example:
        >>> bound_bytes()
        512000000
    """
    given = os.environ.get(BOUND, str(_DEFAULT_MB)).strip()
    if not (given.isascii() and given.isdecimal()) or len(given) > 12:
        raise InvalidRequest(
            f"{BOUND} is {shown(given)}; give a whole number of megabytes of loaded models to keep, such as"
            f" {_DEFAULT_MB}, or 0 to keep none."
        )
    return int(given) * 10**6


class Loaded(Generic[Value]):
    """What was loaded, by key; what was used last stays, up to the bound.

    It has no lock that Ctrl-C could leave held: who asks makes single steps on dictionaries and queues, and the threads
    that load, which no signal reaches, have a lock among themselves.
    """

    def __init__(self) -> None:
        self._kept = OrderedDict[Hashable, tuple[Value, int]]()
        self._loads = dict[Hashable, _Load[Value]]()
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, load: Callable[[], tuple[Value, int]], *, deadline: float | None = None, name: str
    ) -> Value:
        """Return what is kept under the key, or load it.

        Args:
            key: what makes two values the same.
            load: returns a value and how many bytes it holds; called in another thread, once for all who wait.
            deadline: when to give up, in seconds of `time.monotonic`.
            name: what messages call it.

        Raises:
            InvalidRequest: AIGC_SDK_LOADED_MB cannot be used.
            DeadlineExceeded: the deadline passed.
            PluginError: while it is loaded, it asks for itself.
            GenerationFailed: no thread can be started to load it in, or the `Stop` of the call was set.
            AigcError: what `load` raised; the next call loads anew.
        """
        while True:
            if kept := self._kept.get(key):
                with suppress(KeyError):  # another thread may have let go of it
                    self._kept.move_to_end(key)
                return kept[0]
            bound = bound_bytes()
            if key in _under_way.get():
                raise PluginError(f"{name} asks for itself while it is being loaded.")
            one = self._loads.setdefault(key, _Load(self, key, load, bound))
            if one.stop.is_set:  # all who waited for it have gone
                self.forget(key, one)
            elif outcome := one.wait(deadline, name):
                return outcome[0]

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    def after_fork(self) -> None:
        """Begin anew in a forked process, where the threads that load are not; what is kept stays."""
        self._loads.clear()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> tuple[Value, int] | None:
        """Return what is kept under the key, with its bytes."""
        return self._kept.get(key)

    def keep(self, key: Hashable, value: Value, size_bytes: int, bound: int) -> None:
        """Keep a value, and let go of those that were used longest ago, until all of them are within the bound.

        One that is larger by itself is kept as long as no other is loaded; with a bound of 0 nothing is.
        """
        with self._lock:
            self._kept[key] = value, size_bytes
            for each in list(self._kept):
                if sum(size for _, size in list(self._kept.values())) <= bound:
                    break
                if each != key or not bound:
                    self._kept.pop(each, None)

    def forget(self, key: Hashable, load: "_Load[Value]") -> None:
        """Let a load that is over, or was stopped, be nobody's any more."""
        with suppress(KeyError):
            if self._loads[key] is load:
                del self._loads[key]


# What this call is a part of the loading of.
_under_way: ContextVar[frozenset[Hashable]] = ContextVar("aigc_sdk.loading", default=frozenset())


class _Load(Generic[Value]):
    """One load, and those who wait for it."""

    def __init__(self, loaded: Loaded[Value], key: Hashable, load: Callable[[], tuple[Value, int]], bound: int) -> None:
        self.stop = Stop()
        self._loaded, self._key, self._load, self._bound = loaded, key, load, bound
        self._value: tuple[Value, int] | None = None
        self._error: BaseException | None = None
        self._waiting = list[SimpleQueue[None]]()
        self._turn = SimpleQueue[None]()  # the thread that gets it makes the load
        self._turn.put(None)

    def wait(self, deadline: float | None, name: str) -> tuple[Value, int] | None:
        """Return the value, with its bytes, when it is loaded; None if the load was stopped, and another is to be made.

        Raises:
            AigcError: as in `Loaded.get`.
        """
        mine, stop = SimpleQueue[None](), current_stop()
        self._waiting.append(mine)
        try:
            self._start(name)
            with stop.ending(lambda: mine.put(None)):
                # Looked at after it is known who waits: one of both sees the other.
                while self._value is None and self._error is None:
                    if stop.is_set:
                        raise GenerationFailed(f"{name} was stopped while it was being loaded.")
                    left = threading.TIMEOUT_MAX if deadline is None else deadline - time.monotonic()
                    if left <= 0:
                        raise DeadlineExceeded(f"{name} was not loaded before the deadline. Give a larger deadline_s.")
                    with suppress(Empty):
                        mine.get(timeout=min(left, _LOOK_S))
        finally:
            self._waiting.remove(mine)
            if not self._waiting and self._value is None and self._error is None:
                self.stop.set()
        if self._error is not None and not self.stop.is_set:
            raise self._error
        return self._value

    def _start(self, name: str) -> None:
        """Start a thread unless one makes the load: whoever was to do so may have been interrupted."""
        if self._turn.empty():
            return
        try:
            _thread.start_new_thread(copy_context().run, (self._make,))
        except RuntimeError as error:
            if not self._turn.empty():
                raise GenerationFailed(f"{name} cannot be loaded, for want of a thread: {error}.") from error

    def _make(self) -> None:
        try:
            self._turn.get_nowait()
        except Empty:
            return
        _under_way.set(_under_way.get() | {self._key})
        value, error = None, None
        try:
            # Between a look at what is kept and this load, another load of it may have ended.
            value = self._loaded.find(self._key)
            if value is None:
                value = self.stop.run(self._load)
                self._loaded.keep(self._key, *value, self._bound)
        except BaseException as raised:  # noqa: BLE001 - raised in those who wait
            error = raised
        self._loaded.forget(self._key, self)
        self._value, self._error = value, error
        for each in list(self._waiting):
            each.put(None)
        del value, error  # or an error and this frame, which its traceback holds, would keep each other
