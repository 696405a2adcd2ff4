"""Random and hostile model files: whatever onnxruntime folds while it loads one is within the bound, or is not folded.

    python benchmarks/fuzz_models.py [--cases 10000] [--first 0] [--only-random] [--json FILE]

Each random file (tests/random_models.py; its number is its seed) is checked, loaded as the SDK would load it, and run
once, in a forked process with a limit of memory and of processor time. Loading has to stay far below both, whether the
file may be folded or not, and no more values may have been folded than `folded_values` says. Every 8th file that must
not be folded is folded nevertheless, to count how many of them would go beyond the limits. Then all files of
tests/hostile_models.py are loaded with the SDK's own limits. Linux alone.
"""

import argparse
import gc
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a fork takes no threads along
sys.path.append(str(Path(__file__).parent.parent / "tests"))

import numpy as np
import onnx
import onnxruntime as ort

from aigc_sdk.errors import InvalidModel
from aigc_sdk.runtime.folding import folded_values
from aigc_sdk.runtime.safety import check_model
from aigc_sdk.runtime.session import _NOT_FOLDED
from hostile_models import HOSTILE
from random_models import random_model
from timing import Report

# Smaller than those of the SDK, so that many files can be tried: they hold no more than a few hundred thousand values.
MOST_VALUES, MOST_PRODUCTS = 2**20, 2**28
MEMORY_BYTES, PROCESSOR_S, RUN_S = 500_000_000, 3, 0.05
# With less memory, onnxruntime would leave unfolded what it cannot allocate.
FORCED_BYTES = 4_000_000_000

# What loading may take of that.
MOST_LOAD_BYTES, MOST_LOAD_S = 200_000_000, 1.5

# The constants of the definitions of operators without a kernel, and of fused operators.
MOST_OTHERS = 1000

SDK_SECONDS, SDK_BYTES = 10, 10**9
_FORCED_SHARE = 8


@dataclass
class Outcome:
    """What became of one file.

    Attributes:
        end: "refused", "ran", "failed", "stopped", or the phase in which it was killed: "check", "load", "run".
        folded: how many values were allowed to be folded; None: nothing.
        made: how many were.
        load_s: processor time.
        load_bytes: by how much loading raised the peak of memory.
    """

    end: str = "check"
    folded: int | None = None
    made: int = 0
    load_s: float = math.nan
    load_bytes: int = 0
    words: str = ""

    @property
    def exceeded(self) -> bool:
        """Whether loading took more than it may, or folded more than was known."""
        is_slow, is_large = self.load_s > MOST_LOAD_S, self.load_bytes > MOST_LOAD_BYTES
        return self.end in ("check", "load") or is_slow or is_large or self.made > (self.folded or 0) + MOST_OTHERS


def try_file(data: bytes, folds: bool | None, tell: Callable[[Outcome], None]) -> None:
    """Check, load and run a file; `tell` what is known before each phase, in which this process may be killed."""
    outcome = Outcome()
    tell(outcome)
    try:
        check_model(data, "random")
    except InvalidModel as error:
        return tell(Outcome("refused", words=str(error)))
    outcome.folded = folded_values(data, most_values=MOST_VALUES, most_products=MOST_PRODUCTS)
    is_folded = outcome.folded is not None if folds is None else folds
    outcome.end = "load"
    tell(outcome)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        start, before = time.process_time(), _peak()
        try:
            session = load(data, is_folded, file.name if folds is None else "")
        except Exception as error:  # noqa: BLE001 - onnxruntime's have no common base
            return tell(Outcome("refused", outcome.folded, words=str(error)))
        outcome.load_s, outcome.load_bytes = time.process_time() - start, _peak() - before
        if folds is None:
            outcome.made = count_values(Path(file.name).read_bytes()) - count_values(data)
    outcome.end = "run"
    tell(outcome)
    if folds is None:
        outcome.end = run_once(session)
    return tell(outcome)


def load(data: bytes, is_folded: bool, optimized: str) -> Any:
    """Return a session as the SDK makes one; what the optimizers made of the file is written to `optimized`."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if optimized:
        options.optimized_model_filepath = optimized
    disabled = [] if is_folded else _NOT_FOLDED
    return ort.InferenceSession(data, options, ["CPUExecutionProvider"], disabled_optimizers=disabled)


def run_once(session: Any) -> str:
    """Make two items; return whether it "ran", "failed", or was "stopped" because it took long."""
    options = ort.RunOptions()
    watch = threading.Timer(RUN_S, lambda: setattr(options, "terminate", True))
    watch.start()
    types = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(bool)": np.bool_}
    feeds = {given.name: np.ones(2, types[given.type]) for given in session.get_inputs()}
    try:
        session.run(None, feeds, options)
    except Exception:  # noqa: BLE001 - onnxruntime's have no common base
        return "stopped" if options.terminate else "failed"
    finally:
        watch.cancel()
    return "ran"


def count_values(data: bytes) -> int:
    """Return how many values the constants of a file hold, those inside of bodies too."""
    waiting, values = [onnx.ModelProto.FromString(data).graph], 0
    while waiting:
        graph = waiting.pop()
        values += sum(math.prod(tensor.dims) for tensor in graph.initializer)
        for attribute in (attribute for each in graph.node for attribute in each.attribute):
            values += math.prod(attribute.t.dims) if attribute.HasField("t") else 0
            waiting += [attribute.g] if attribute.HasField("g") else []
    return values


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_fork(data: bytes, folds: bool | None) -> Outcome:
    """Return what becomes of a file in a process that is killed when it takes too much."""
    mine, its = os.pipe()
    child = os.fork()
    if not child:
        os.close(mine)
        _hold_limits(MEMORY_BYTES if folds is None else FORCED_BYTES)

        def tell(outcome: Outcome) -> None:
            os.write(its, json.dumps(asdict(outcome)).encode() + b"\n")

        try:
            try_file(data, folds, tell)
        finally:
            os._exit(0)
    os.close(its)
    said, until = b"", time.monotonic() + 20 * PROCESSOR_S
    while select.select([mine], [], [], max(until - time.monotonic(), 0))[0] and (part := os.read(mine, 2**16)):
        said += part
    os.close(mine)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Outcome(**json.loads(said.splitlines()[-1]))


def _hold_limits(memory_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    seconds = math.ceil(time.process_time() + PROCESSOR_S)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fuzz(report: Report, first: int, cases: int) -> None:
    """Try so many random files, and judge."""
    ends, forced, exceeded = Counter[str](), Counter[str](), []
    folded, largest_s, largest_bytes = 0, 0.0, 0
    for seed in range(first, first + cases):
        data = random_model(seed)
        outcome = in_fork(data, None)
        ends[outcome.end] += 1
        folded += outcome.folded is not None and outcome.end != "refused"
        largest_s, largest_bytes = max(largest_s, outcome.load_s), max(largest_bytes, outcome.load_bytes)
        if outcome.exceeded:
            exceeded.append(seed)
            print(f"seed {seed}: {outcome}", flush=True)
        if outcome.folded is None and outcome.end != "refused" and seed % _FORCED_SHARE == first % _FORCED_SHARE:
            forced["exceeded" if in_fork(data, True).exceeded else "within"] += 1
    report.figure(f"random files, seeds from {first}", cases)
    report.figure("folded, within the bound", folded)
    report.figure("not folded", cases - folded - ends["refused"])
    report.figure("refused by the checks or by onnxruntime", ends["refused"])
    report.figure("ran", ends["ran"])
    report.figure("failed in the run, for lack of memory or otherwise", ends["failed"])
    report.figure("stopped or killed in the run", ends["run"] + ends["stopped"])
    report.figure("longest load", largest_s, "s")
    report.figure("most memory for a load", largest_bytes / 1e6, "MB")
    report.figure("not folded, but folded nevertheless", forced.total())
    report.at_least("of these beyond the limits of memory or time", forced["exceeded"], 1)
    report.at_most("beyond the bound", len(exceeded), 0)


HOSTILE_PROGRAM = """
import sys
import aigc_sdk as sdk
try:
    model = sdk.load(sys.argv[1])
    for controls in ({}, {"flip": True}):
        model.generate(1, deadline_s=1, **controls)
    print("ran")
except sdk.errors.AigcError as error:
    print(type(error).__name__)
"""


def try_hostile(report: Report) -> None:
    """Load and run each hostile file with the limits of the SDK, and judge what it took."""
    found = {}
    for name, make in HOSTILE.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{name}.onnx")
            path.write_bytes(make())
            environment = os.environ | {"AIGC_SDK_CACHE": folder}
            process = subprocess.Popen(
                [sys.executable, "-c", HOSTILE_PROGRAM, str(path)], stdout=subprocess.PIPE, env=environment
            )
            word = process.stdout.read().decode().strip() if process.stdout else ""
            _, status, used = os.wait4(process.pid, 0)  # with what its own child has used
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds, size = used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss
        found[name] = {"end": word or "crash", "seconds": round(seconds, 2), "megabytes": round(size / 1e6)}
        print(f"{name:40} {word or 'crash':20} {seconds:6.1f} s {size / 1e6:6.0f} MB", flush=True)
    report.figure("hostile files", len(found))
    report.at_most("that crash their process", sum(each["end"] == "crash" for each in found.values()), 0)
    report.at_most("longest, processor time", max(each["seconds"] for each in found.values()), SDK_SECONDS, "s")
    report.at_most("most memory", max(each["megabytes"] for each in found.values()), SDK_BYTES / 1e6, "MB")


def main() -> int:
    """Try the files, print the figures, and return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only-random", action="store_true", help="leave the hostile files out")
    chosen = parser.parse_args()
    report = Report("aigc-sdk", "onnxruntime", "onnx")
    gc.disable()  # or each forked process copies all pages that hold an object
    if not chosen.only_random:  # first: this process is small
        try_hostile(report)
    fuzz(report, chosen.first, chosen.cases)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
