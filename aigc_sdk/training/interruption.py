"""Interruption: Ctrl-C and SIGTERM wait for the end of a step."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_log = logging.getLogger("aigc_sdk")


class Interruption:
    """Whether a signal asked the training to stop.

    Attributes:
        signal: its number, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Note Ctrl-C and SIGTERM instead of stopping at once; a second one stops at once.

    Outside of the main thread, where Python has no signal handlers, and for a signal that is ignored, as nohup
    makes it, nothing changes.
    """
    interruption = Interruption()
    handlers: dict[int, Callable[..., Any] | int] = {}

    def note(number: int, _: Any) -> None:
        if interruption.signal is not None:
            restore()
            signal.raise_signal(number)
            return
        interruption.signal = number
        _log.warning("%s: saving a checkpoint; once more stops at once.", signal.Signals(number).name)

    def restore() -> None:
        while handlers:
            number, handler = handlers.popitem()
            signal.signal(number, handler)

    try:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if handler is not None and handler != signal.SIG_IGN:  # None: it was not set from Python
                    handlers[number] = handler
                    signal.signal(number, note)
        yield interruption
    finally:
        restore()
