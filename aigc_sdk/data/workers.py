"""Worker processes: functions of this package, run in other processes, with their results in order.

They are plain Python processes that take pickled calls from a pipe. Unlike those of `multiprocessing` they never
import the program that started them, so that a script needs no `if __name__ == "__main__"`, and they share no lock
or thread with it.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from aigc_sdk.errors import StorageError

_MOST = 8
_READY = b"!"


class WorkerLost(Exception):
    """The process that made a call ended: killed, or crashed in it."""


class Workers:
    """Processes that make calls; a context manager, which ends them.

    Args:
        count: how many; with 0 the calls are made in this process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._idle: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()
        self._threads = ThreadPoolExecutor(max(count, 1))
        for _ in range(count):
            self._idle.put(None)  # started by its first call

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            if worker := self._idle.get():
                _end(worker)

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield function(*arguments) for each of the calls, in order; few calls are under way at a time.

        A call yields WorkerLost when its process ended, and raises what the function raised.
        """
        if not self.count:
            yield from (function(*arguments) for arguments in calls)
            return
        under_way: deque[Future[Any]] = deque()
        for arguments in calls:
            under_way.append(self._threads.submit(self._call, function, arguments))
            if len(under_way) > self.count + 1:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        worker, is_well = self._idle.get(), False
        try:
            worker = worker or _start()
            pickle.dump((function, arguments), worker.stdin)  # type: ignore[arg-type]  # it is a pipe
            worker.stdin.flush()  # type: ignore[union-attr]  # it is a pipe
            result = pickle.load(worker.stdout)  # type: ignore[arg-type]  # noqa: S301 - from a process of ours
            is_well = True
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            return WorkerLost()
        finally:
            if worker and not is_well:
                _end(worker)
            self._idle.put(worker if is_well else None)
        if isinstance(result, Exception):
            raise result
        return result


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
