"""Worker processes: functions of this package, run in other processes, with their results in order.

They are plain Python processes that take pickled calls from a pipe. Unlike those of `multiprocessing` they never
import the program that started them, so that a script needs no `if __name__ == "__main__"`, and they share no lock
or thread with it.

An item that crashes its process, or on which it hangs, costs itself alone: items are handed out in chunks, and of a
chunk that is lost each item is tried by itself, with more time.
"""

import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from aigc_sdk.errors import StorageError

_MOST = 8
_READY = b"!"

# Seconds on the clock after which a call counts as hanging. On a slow machine a chunk may take longer, and is then
# made again item by item: an item is given up only after the second.
_CHUNK_S = 120.0
_ITEM_S = 300.0

T = TypeVar("T")


class WorkerLost(Exception):
    """The process that made a call crashed or was killed in it, or hung; says which."""


class Workers:
    """Processes that make calls; a context manager, which ends them.

    Args:
        count: how many; with 0 the calls are made in this process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._idle: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()
        self._busy: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False
        self._threads = ThreadPoolExecutor(max(count, 1))
        for _ in range(count):
            self._idle.put(None)  # started by its first call

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for busy in tuple(self._busy):  # of a caller who waits for no more results
            busy.kill()
        self._threads.shutdown()
        while not self._idle.empty():
            if worker := self._idle.get():
                _end(worker)

    def map(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], limit_s: float | None = None
    ) -> Iterator[Any]:
        """Yield function(*arguments) for each of the calls, in order; few calls are under way at a time.

        A call yields WorkerLost when its process ended, or was ended after `limit_s` (300 seconds without it), and
        raises what the function raised. Calls that are made in this process have no limit.
        """
        if not self.count:
            yield from (function(*arguments) for arguments in calls)
            return
        under_way: deque[Future[Any]] = deque()
        for arguments in calls:
            under_way.append(self._threads.submit(self._call, function, arguments, limit_s or _ITEM_S))
            if len(under_way) > self.count + 1:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def map_chunks(
        self,
        function: Callable[..., list[Any]],
        chunks: Iterable[list[T]],
        call: Callable[[int, list[T]], tuple[Any, ...]],
    ) -> Iterator[tuple[list[T], list[Any]]]:
        """Yield chunks of items, with what a function returned for each item, and WorkerLost for one that is lost.

        Args:
            function: returns a list of one result for each item.
            chunks: the items of one call each.
            call: gives the function's arguments for items, of which the first has that number among all.
        """
        under_way: deque[tuple[int, list[T]]] = deque()

        def calls() -> Iterator[tuple[Any, ...]]:
            start = 0
            for chunk in chunks:
                under_way.append((start, chunk))
                yield call(start, chunk)
                start += len(chunk)

        for results in self.map(function, calls(), _CHUNK_S):
            start, chunk = under_way.popleft()
            if isinstance(results, WorkerLost):
                alone = (call(start + i, [item]) for i, item in enumerate(chunk))
                found = self.map(function, alone, _ITEM_S)
                results = [each if isinstance(each, WorkerLost) else each[0] for each in found]
            yield chunk, results

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...], limit_s: float) -> Any:
        worker, is_well, late = self._idle.get(), False, threading.Event()
        try:
            worker = worker or _start()
            with self._watched(worker, limit_s, late):
                pickle.dump((function, arguments), worker.stdin)  # type: ignore[arg-type]  # it is a pipe
                worker.stdin.flush()  # type: ignore[union-attr]  # it is a pipe
                result = pickle.load(worker.stdout)  # type: ignore[arg-type]  # noqa: S301 - from a process of ours
            is_well = not late.is_set()
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            return WorkerLost(f"it took longer than {limit_s:g} s" if late.is_set() else "its process ended")
        finally:
            if worker and not is_well:
                _end(worker)
            self._idle.put(worker if is_well else None)
        if isinstance(result, Exception):
            raise result
        return result

    @contextmanager
    def _watched(self, worker: "subprocess.Popen[bytes]", limit_s: float, late: threading.Event) -> Iterator[None]:
        """Kill the worker, and say so, when the block takes too long."""

        def end() -> None:
            late.set()
            worker.kill()

        watch = threading.Timer(limit_s, end)
        watch.daemon = True
        watch.start()
        self._busy.add(worker)
        if self._is_closed:  # while it was started
            worker.kill()
        try:
            yield
        finally:
            watch.cancel()
            self._busy.discard(worker)


def available_workers() -> int:
    """Return how many processes suit this machine: one for each core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST)


def _start() -> "subprocess.Popen[bytes]":
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # -P keeps the folder that the user is in off the path; decoders write noise to stderr.
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "aigc_sdk.data.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
    )
    if worker.stdout is None or worker.stdout.read(1) != _READY:
        _end(worker)
        raise StorageError(f"No worker process could be started with {sys.executable}; workers=0 does without.")
    return worker


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    with suppress(OSError):
        worker.communicate()


def main() -> None:
    """Take calls from stdin until it is closed, and write what each returned or raised to stdout."""
    results, sys.stdout = sys.stdout.buffer, sys.stderr  # nothing else may print into the results
    results.write(_READY)
    results.flush()
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
        except EOFError:
            return
        try:
            result = function(*arguments)
        except Exception as error:  # noqa: BLE001 - is raised where the call was made
            result = error
        pickle.dump(result, results)
        results.flush()


if __name__ == "__main__":
    main()
