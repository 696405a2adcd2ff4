"""How much processor time and memory new processes take: the import, and `aigc generate` against a bare script.

    python benchmarks/startup.py digits-vae

This process stays small and imports neither numpy nor the SDK: on Linux the peak memory of a child begins with what
its parent had when it was started.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from timing import Report, interleave, medians

RUNS = 9
N = 16
SEED = 7

# Importing the SDK loads none of these.
HEAVY = ("torch", "onnxruntime", "onnx", "pandas", "scipy")

# The least that makes the same pictures: the feeds are literals, and nothing is checked or recorded.
BARE_SCRIPT = """\
import numpy as np
import onnxruntime as ort
from PIL import Image

session = ort.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
feeds = {{{feeds}}}
for i, image in enumerate(session.run(["content"], feeds)[0]):
    Image.fromarray(image{channel}).save(f"{{i:02}}.png")
"""


@dataclass(frozen=True)
class Usage:
    """What a process took.

    Attributes:
        seconds: of processor time, of the processes too that it started and waited for.
        peak_mib: the most memory that was resident at once.
    """

    seconds: float
    peak_mib: float


def run_process(command: list[str], folder: str, environment: dict[str, str]) -> Usage:
    """Run a command in a folder and return what it took.

    Raises:
        CalledProcessError: it failed; its stderr has been shown.
    """
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Usage(usage.ru_utime + usage.ru_stime, _mib(usage.ru_maxrss))


def _mib(maxrss: int) -> float:
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def describe(model: str) -> tuple[str, bool, str]:
    """Return the path of a model's file, whether it was given by name, and the bare script; runs in a child."""
    import aigc_sdk as sdk
    from aigc_sdk.generation import model_file
    from aigc_sdk.seeds import item_seeds

    path = str(model_file(model).resolve())
    with sdk.load(model) as loaded:
        card = loaded.card
    feeds = [f'"seed": np.array({item_seeds(SEED, N).tolist()})']
    feeds += [f'"{c.name}": np.full({N}, {c.default!r}, "{c.dtype}")' for c in card.controls]
    channel = "[:, :, 0]" if card.output.shape[-1] == 1 else ""
    script = BARE_SCRIPT.format(path=path, feeds=", ".join(feeds), channel=channel)
    return path, not Path(model).exists(), script


def count_differences(folder: str, other: str) -> int:
    """Return how many of the pictures in two folders differ; runs in a child."""
    from PIL import Image

    names = [f"{i:02}.png" for i in range(N)]
    return sum(Image.open(Path(folder, name)).tobytes() != Image.open(Path(other, name)).tobytes() for name in names)


def in_child(function: Callable[..., Any], *arguments: str) -> Any:
    """Return what the function returns in a process of its own, so that this one stays small."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure_import(report: Report, folder: str) -> None:
    """Compare importing the SDK with importing what it cannot do without."""
    python = sys.executable

    def importing(modules: str) -> Callable[[], float]:
        return lambda: run_process([python, "-c", f"import {modules}"], folder, {}).seconds

    times = medians(interleave({"sdk": importing("aigc_sdk"), "base": importing("numpy, pydantic")}, RUNS))
    report.figure("import numpy, pydantic", 1000 * times["base"], "ms")
    report.figure("import aigc_sdk", 1000 * times["sdk"], "ms")
    report.ratio("import aigc_sdk, time", times, "sdk", "base", 1.5)
    code = f"import sys, aigc_sdk; print(*sys.modules.keys() & {set(HEAVY)!r})"
    loaded = subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    report.at_most("import aigc_sdk, heavy packages loaded", len(loaded), 0)


def measure_generate(report: Report, model: str, folder: str) -> None:
    """Compare `aigc generate` with the bare script: with a warm cache, and with an empty one."""
    path, is_named, script = in_child(describe, model)
    bare = Path(folder, "bare.py")
    bare.write_text(script)
    warm = str(Path(folder, "cache"))
    folders: dict[str, str] = {}

    def making(name: str, command: list[str], cache: str | None) -> Callable[[], Usage]:
        def make() -> Usage:
            folders[name] = mkdtemp(dir=folder)
            return run_process(command, folders[name], {"AIGC_SDK_CACHE": cache or mkdtemp(dir=folder)})

        return make

    def aigc(source: str) -> list[str]:
        script_path = Path(sysconfig.get_path("scripts"), "aigc")
        return [str(script_path), "generate", source, "-n", str(N), "--seed", str(SEED), "-o", "."]

    actions = {"bare": making("bare", [sys.executable, str(bare)], warm)}
    if is_named:
        actions["by name"] = making("by name", aigc(model), warm)
    actions["by path"] = making("by path", aigc(path), warm)
    actions["first run"] = making("first run", aigc(path), None)
    results = interleave(actions, RUNS)

    seconds = medians({name: [usage.seconds for usage in usages] for name, usages in results.items()})
    peaks = medians({name: [usage.peak_mib for usage in usages] for name, usages in results.items()})
    own_mib = _mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if own_mib >= min(peaks.values()):
        raise SystemExit(f"This process has {own_mib:.0f} MiB, so it cannot measure children with less.")
    for name in actions:
        report.figure(f"{N} pictures, {name}", 1000 * seconds[name], "ms")
        report.figure(f"{N} pictures, {name}, peak memory", peaks[name], "MiB")
    for name in [name for name in ("by name", "by path") if name in actions]:
        report.ratio(f"aigc generate {name}, time", seconds, name, "bare", 2)
        report.ratio(f"aigc generate {name}, peak memory", peaks, name, "bare", 1.5)
    report.ratio("aigc generate, first run of an unknown file, time", seconds, "first run", "bare", 3)
    differing = in_child(count_differences, folders["bare"], folders["by path"])
    report.at_most("pictures that are not the bare script's", differing, 0)


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(description="Time new processes.")
    parser.add_argument(
        "model", nargs="?", default="digits-vae", help="a ready-made name, or the path of an .onnx file"
    )
    model = parser.parse_args().model
    report = Report("aigc-sdk", "numpy", "onnxruntime", "pillow", "pydantic", "click")
    with TemporaryDirectory() as folder:
        measure_import(report, folder)
        measure_generate(report, model, folder)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
