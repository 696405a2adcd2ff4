"""Stopping: what is under way for somebody ends when nobody waits for it any more.

A `Stop` belongs to one call, to one iterator, or to one load. What is done under it (`Stop.run`) finds it with
`current_stop`, however deep inside, and through the generators of plugins, which know nothing of it.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Stop:
    """Set once, from any thread, by who knows that nobody waits any more. It has no lock that Ctrl-C could leave held.

    Example:
        >>> stop = Stop()
        >>> with stop.ending(lambda: print("ended")):
        ...     stop.set()
        ended
        >>> stop.is_set
        True
    """

    def __init__(self) -> None:
        self.is_set = False
        self._ends: dict[object, Callable[[], object]] = {}

    def set(self) -> None:
        """End what is under way, and what would begin."""
        self.is_set = True
        for end in list(self._ends.values()):
            end()

    @contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """Call `end` when this is set during the block, or was set before; it may be called twice, in any thread."""
        key = object()
        self._ends[key] = end
        try:
            if self.is_set:  # looked at after `end` is known: one of both sees the other
                end()
            yield
        finally:
            self._ends.pop(key, None)

    def run(self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Return what the function returns, called so that it and all below it find this stop."""

        def called() -> Result:
            _current.set(self)
            return function(*args, **kwargs)

        # A copy, because what is set in it needs no setting back, which Ctrl-C could prevent.
        return copy_context().run(called)


class Parts(Iterator[Result]):
    """What is made part by part, of a generator; `close`, or letting go of it, ends the part that is being made.

    Args:
        made: makes the parts; it is over after an error.

    Example:
        >>> with Parts(str(i) for i in range(9)) as parts:
        ...     next(parts), next(parts)
        ('0', '1')
        >>> list(parts)
        []
    """

    def __init__(self, made: Generator[Result, None, None]) -> None:
        self._made = made
        self._stop = Stop()

    def __next__(self) -> Result:
        return self._stop.run(next, self._made)

    def __enter__(self) -> "Parts[Result]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Make no more parts, and end the one that another thread waits for, which gets GenerationFailed."""
        self._stop.set()
        with suppress(ValueError):  # that other thread is in it, and will leave it
            self._made.close()


_current: ContextVar[Stop] = ContextVar("aigc_sdk.stop")


def current_stop() -> Stop:
    """Return the stop of the call that this is part of; one that nobody can set, if it has none."""
    return _current.get(None) or Stop()
