"""How soon a run inside of onnxruntime ends that nobody waits for any more: cancelled, interrupted, or let go of.

    python benchmarks/cancel.py

A model whose loop never ends is run without a deadline, 20 times for each way of ending it. The time is that from the
call that ends it until onnxruntime has returned.
"""

import asyncio
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aigc_sdk as sdk
from aigc_sdk.errors import DeadlineExceeded
from aigc_sdk.runtime.safety import Verdict
from test_safety import endless_model
from timing import Report

TRIES, MOST_SECONDS = 20, 0.3


class Watched:
    """A session of onnxruntime that says when a run begins, and when the last one ended."""

    def __init__(self, session: Any) -> None:
        self.session, self.begun, self.ended = session, threading.Event(), threading.Event()
        self.at = 0.0

    def run(self, *args: Any) -> Any:
        """Run, and note the time of the end."""
        self.ended.clear()
        self.begun.set()
        try:
            return self.session.run(*args)
        finally:
            self.at = time.monotonic()
            self.begun.clear()
            self.ended.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def main() -> int:
    """Print the longest time of each way; return 1 when one is missed."""
    report = Report("aigc-sdk", "onnxruntime")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "endless.onnx"
        path.write_bytes(endless_model())
        os.environ["AIGC_SDK_CACHE"] = folder
        Verdict(is_safe=True).save(hashlib.sha256(path.read_bytes()).hexdigest())  # or it would be tried, and refused
        model = sdk.load(path)
        session: Any = model._generator._session  # type: ignore[attr-defined]
        session._session = watched = Watched(session._session)
        for name, end in WAYS.items():
            times = []
            for _ in range(TRIES):
                asked = end(model, watched)
                if not watched.ended.wait(10):
                    raise SystemExit(f"{name}: the run goes on after 10 s")
                times.append(watched.at - asked)
            report.at_most(f"{name}, the longest of {TRIES}", max(times), MOST_SECONDS, "s")
    return report.exit_code


def cancelled(model: sdk.Model, watched: Watched) -> float:
    """Cancel the task of an `agenerate`."""

    async def run() -> float:
        task = asyncio.create_task(sdk.agenerate(model, flip=True, deadline_s=None))
        while not watched.begun.is_set():
            await asyncio.sleep(0.001)
        asked = time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return asked

    return asyncio.run(run())


def interrupted(model: sdk.Model, watched: Watched) -> float:
    """Send SIGINT, as Ctrl-C does."""
    asked = []

    def send() -> None:
        watched.begun.wait()
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        model.generate(flip=True, deadline_s=None)
    except KeyboardInterrupt:
        thread.join()
    return asked[0]


def abandoned(model: sdk.Model, watched: Watched) -> float:
    """Close an iterator from another thread."""
    parts = model.generate_iter(flip=True, deadline_s=None)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, parts, None)
        watched.begun.wait()
        asked = time.monotonic()
        parts.close()
        waiting.exception()
    return asked


def late(model: sdk.Model, watched: Watched) -> float:  # noqa: ARG001 - all ways take both
    """Let a deadline pass."""
    asked = time.monotonic() + 0.1
    try:
        model.generate(flip=True, deadline_s=0.1)
    except DeadlineExceeded:
        return asked
    raise SystemExit("the deadline did not count")


WAYS: dict[str, Callable[[sdk.Model, Watched], float]] = {
    "agenerate, cancelled": cancelled,
    "generate, interrupted": interrupted,
    "generate_iter, closed": abandoned,
    "generate, deadline": late,
}


if __name__ == "__main__":
    sys.exit(main())
