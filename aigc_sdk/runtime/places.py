"""Places: the threads in which a session runs, so many and no more, and what waits for them."""

import _thread
import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX
from typing import Any

from aigc_sdk.stopping import current_stop

# A run that is told to end does so after the operator that it is at. Who told it waits this long for that, and then
# leaves it alone: it keeps its place until it has ended.
_GRACE_S = 0.2

# Windows wakes nobody who waits for a queue when Ctrl-C is pressed, so that it is looked for this often.
_LOOK_S = 0.1 if os.name == "nt" else TIMEOUT_MAX


class Ended(Exception):
    """A job was ended before it had a result, because its deadline passed."""


class Stopped(Exception):
    """A job was ended before it had a result, because nobody waits for it: the `Stop` of its call was set."""


class NoThread(Exception):
    """A job cannot be made: no thread for it can be started."""


class Job:
    """One call, made in another thread.

    Args:
        call: what to do; it may raise anything.
        end: makes the call return soon; called at the deadline, when the call's `Stop` is set, and on Ctrl-C.
    """

    def __init__(self, call: Callable[[], Any], end: Callable[[], object]) -> None:
        self._call, self._end = call, end
        self._is_ended = self._is_under_way = False
        self._results = SimpleQueue[tuple[Any, BaseException | None]]()

    def make(self) -> None:
        """Make the call, unless nobody waits for it any more; for the thread that makes it."""
        self._is_under_way = True
        result: tuple[Any, BaseException | None] = None, None
        if not self._is_ended:
            try:
                result = self._call(), None
            except BaseException as error:  # noqa: BLE001 - raised where the job is waited for
                result = None, error
        self._is_under_way = False
        self._results.put(result)
        del result  # or an error and this frame, which its traceback holds, would keep each other

    def end(self) -> None:
        """End the call, or let it not begin."""
        self._is_ended = True
        self._end()

    def stop(self) -> None:
        """End the call, and wake who waits for it with `Stopped`."""
        self.end()
        self._results.put((None, Stopped()))

    def leave(self) -> None:
        """End the call, and if it is under way wait a moment for that; for who does not wait for its result."""
        self.end()
        if self._is_under_way:
            with suppress(Empty):
                self._results.get(timeout=_GRACE_S)

    def wait(self, deadline: float | None) -> Any:
        """Return the result, or raise what the call raised.

        Raises:
            Ended: `deadline` (of `time.monotonic`) passed.
            Stopped: `stop` was called.
        """
        result, error = self._next(deadline)
        if error is not None:
            raise error
        return result

    def _next(self, deadline: float | None) -> tuple[Any, BaseException | None]:
        while True:
            left = TIMEOUT_MAX if deadline is None else min(deadline - time.monotonic(), TIMEOUT_MAX)
            if left <= 0:
                raise Ended
            with suppress(Empty):
                return self._results.get(timeout=min(left, _LOOK_S))


class Places:
    """At most so many threads that make jobs, each started when it is needed; they end when this is let go of.

    A place is a thread. Who waits for a run may be interrupted between any two steps, by Ctrl-C for one, and could
    lose what it has taken; it takes nothing, and no signal reaches these threads.

    Args:
        most: how many threads there are at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs = SimpleQueue[Job | None]()
        self._free = SimpleQueue[None]()  # a thread takes one of these first of all, and ends if there is none
        for _ in range(most):
            self._free.put(None)
        self._idle = deque[None]()  # one for each thread that waits for a job
        weakref.finalize(self, self._jobs.put, None).atexit = False

    def make(self, job: Job, deadline: float | None) -> Any:
        """Have a job made as soon as there is a place, and return its result; whatever ends the wait ends the job.

        Raises:
            Ended: `deadline` (of `time.monotonic`) passed.
            Stopped: the `Stop` of the call was set.
            NoThread: no thread can be started, and none is there that could make it later.
        """
        try:
            with current_stop().ending(job.stop):
                self._put(job)
                return job.wait(deadline)
        except BaseException:  # KeyboardInterrupt too, and whatever the handler of another signal raises
            job.leave()
            raise

    def _put(self, job: Job) -> None:
        self._jobs.put(job)
        try:
            _start_if_needed(self._jobs, self._free, self._idle)
        except RuntimeError as error:
            if self._free.qsize() == self._most:
                raise NoThread(str(error)) from error


def _start_if_needed(jobs: "SimpleQueue[Job | None]", free: "SimpleQueue[None]", idle: "deque[None]") -> None:
    if not idle and not free.empty():
        _thread.start_new_thread(_work, (jobs, free, idle))  # unlike Thread.start() one step, which waits for nothing


def _work(jobs: "SimpleQueue[Job | None]", free: "SimpleQueue[None]", idle: "deque[None]") -> None:
    """Make jobs until there is a None among them; no reference to `Places`, which may be let go of meanwhile."""
    try:
        free.get_nowait()
    except Empty:
        return
    try:
        while True:
            idle.append(None)
            job = jobs.get()
            idle.pop()
            if job is None:
                jobs.put(None)  # for the next thread
                return
            if not jobs.empty():  # who put the next job may have seen this thread idle
                with suppress(RuntimeError):
                    _start_if_needed(jobs, free, idle)
            job.make()
            del job  # what it holds is not kept while there is nothing to do
    finally:
        free.put(None)
