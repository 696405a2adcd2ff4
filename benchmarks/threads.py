"""64 threads: six models by name in turn, each loaded once; then one loaded model, whose memory does not grow.

    python benchmarks/threads.py digits-vae

Every item has to be right, no exception raised, and no file left open. The six are asked for by threads that all begin
at once, with nothing loaded, and loads are counted where onnxruntime makes its sessions. Memory is what is resident,
between the end of call 500, when all threads are at work, and that of the last.
"""

import argparse
import itertools
import sys
import threading
import time

import onnxruntime
import psutil  # type: ignore[import-untyped]  # ships no types

import aigc_sdk as sdk
from timing import Report

THREADS = 64
CALLS = 50  # of each thread
N = 4

# Models of each kind of content, and what is asked of them besides a seed.
IN_TURN: dict[str, dict[str, int]] = {
    "digits-vae": {},
    "digits-gan": {},
    "emoji-gan": {},
    "names": {},
    "shakespeare": {"max_length": 20},
    "folk-tunes": {"max_length": 20},
}

# Memory is compared with that at the end of this call.
SETTLED = 500
GROWTH_MB = 16


class Load:
    """What the threads do, and what they find.

    Args:
        model: the one that all of them use.
        expected: for each call, the content of its items as bytes; the call's number is its seed.
    """

    def __init__(self, model: sdk.Model, expected: list[bytes]) -> None:
        self.wrong_items = 0
        self.errors: list[BaseException] = []
        self.resident_mb: list[float] = []  # at the end of each call, in the order of their ends
        self._model = model
        self._expected = expected
        self._process = psutil.Process()
        self._numbers = itertools.count()  # next() on it is one step for all threads
        self._lock = threading.Lock()
        self._start = threading.Barrier(THREADS)

    def work(self) -> None:
        """Make CALLS calls, once all threads are there."""
        self._start.wait()
        for _ in range(CALLS):
            seed = next(self._numbers)
            try:
                contents = self._model.generate(N, seed=seed)
            except BaseException as error:  # noqa: BLE001 - counted, whatever it is
                with self._lock:
                    self.errors.append(error)
                continue
            wrong = _count_wrong(contents, self._expected[seed])
            with self._lock:
                self.wrong_items += wrong
                self.resident_mb.append(self._process.memory_info().rss / 1e6)


def _count_wrong(contents: sdk.Contents, expected: bytes) -> int:
    """Return how many of the N items are not as expected."""
    size = len(expected) // N
    found = [item.data.tobytes() for item in contents]
    return sum(found[i : i + 1] != [expected[i * size : (i + 1) * size]] for i in range(N))


def check_in_turn(report: Report) -> None:
    """Let each thread ask for one model after the other by its name, and count how often one is loaded."""
    names, loads, wrong = list(IN_TURN), list[int](), list[str]()
    made: list[dict[tuple[str, int], bytes]] = [{} for _ in range(THREADS)]
    whole, start = onnxruntime.InferenceSession, threading.Barrier(THREADS)

    def counted(model: bytes, *args: object, **options: object) -> onnxruntime.InferenceSession:
        loads.append(len(model))
        return whole(model, *args, **options)

    def work(number: int) -> None:
        start.wait()
        for call in range(CALLS):
            name, seed = names[(number + call) % len(names)], number * CALLS + call
            try:
                made[number][name, seed] = _content(name, seed)
            except BaseException as error:  # noqa: BLE001 - counted, whatever it is
                wrong.append(f"{name}, seed {seed}: {type(error).__name__}: {error}")

    onnxruntime.InferenceSession = counted
    try:
        _run([threading.Thread(target=work, args=(number,)) for number in range(THREADS)])
    finally:
        onnxruntime.InferenceSession = whole
    calls = {key: content for each in made for key, content in each.items()}
    wrong += [f"{name}, seed {seed}" for (name, seed), content in calls.items() if content != _content(name, seed)]
    for line in wrong[:5]:
        print(line, file=sys.stderr)
    report.at_least(f"calls of {len(names)} models in turn, {THREADS} threads", len(calls), THREADS * CALLS)
    report.at_most("  that differ from one thread's, or fail", len(wrong), 0)
    report.at_most("  loads of a model", len(loads), len(names))


def _content(name: str, seed: int) -> bytes:
    return sdk.generate(name, seed=seed, **IN_TURN[name])[0].data.tobytes()


def _run(threads: list[threading.Thread]) -> float:
    """Start them all, wait for all, and return the seconds."""
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def count_open_files() -> int:
    """Return how many file descriptors (on Windows: handles) this process has open."""
    process = psutil.Process()
    return int(process.num_fds() if hasattr(process, "num_fds") else process.num_handles())


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(description="Use one loaded model from many threads.")
    parser.add_argument(
        "model", nargs="?", default="digits-vae", help="a ready-made name, or the path of an .onnx file"
    )
    name = parser.parse_args().model
    report = Report("aigc-sdk", "numpy", "onnxruntime")
    check_in_turn(report)
    model = sdk.load(name)

    # What is right is what one thread makes.
    start = time.perf_counter()
    expected = [model.generate(N, seed=seed).to_numpy().tobytes() for seed in range(THREADS * CALLS)]
    alone_s = time.perf_counter() - start

    open_files = count_open_files()
    load = Load(model, expected)
    together_s = _run([threading.Thread(target=load.work) for _ in range(THREADS)])

    for error in load.errors[:5]:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    report.figure(f"{THREADS * CALLS:,} calls of {N} items, one thread", alone_s, "s")
    report.figure(f"{THREADS * CALLS:,} calls of {N} items, {THREADS} threads", together_s, "s")
    report.at_most("exceptions", len(load.errors), 0)
    report.at_most("items that differ from those made by one thread", load.wrong_items, 0)
    report.at_most("open file descriptors, change", abs(count_open_files() - open_files), 0)
    if len(load.resident_mb) > SETTLED:
        resident = load.resident_mb[SETTLED - 1 :]
        report.figure(f"resident memory after call {SETTLED}", resident[0], "MB")
        report.figure(f"resident memory, most after call {SETTLED}", max(resident), "MB")
        report.at_most(
            f"resident memory, growth from call {SETTLED} to the last", resident[-1] - resident[0], GROWTH_MB, "MB"
        )
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
