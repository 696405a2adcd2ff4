"""Train on a folder of 200,000 images whose pixels are more than the memory that the training may take.

    python benchmarks/large_folder.py [--images 200000] [--folder FOLDER]

The images are PNG files of 48 x 48 pixels in four sub-folders, which are their labels: 1.4 GB of pixels. `aigc train`
reads them in a control group that the operating system holds to the limit, the worker processes and the files that
they read included; who goes beyond it is killed. That takes Linux, and the right to make such a group. What the whole
tree of processes holds at any time (resident set sizes, added up) is measured four times a second besides.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray
from PIL import Image

from timing import Report

LIMIT = 1000 * 1000 * 1000  # bytes
SIDE = 48
KINDS = ("disc", "square", "stripes", "cross")
CONFIG = ("epochs=null", "steps=100", "batch_size=32", "width=16", "validation_fraction=0.005", "test_fraction=0.005")


def draw(kind: str, number: int) -> NDArray[np.uint8]:
    """Return a shape of some colour, place and size before a gradient, uint8 (48, 48, 3)."""
    random = np.random.default_rng(number)
    rows, columns = np.indices((SIDE, SIDE)) / SIDE
    y, x, size = random.uniform((0.3, 0.3, 0.15), (0.7, 0.7, 0.3))
    inside = {
        "disc": np.hypot(rows - y, columns - x) < size,
        "square": np.maximum(abs(rows - y), abs(columns - x)) < size,
        "stripes": np.sin((rows * y + columns * x) * 6 / size) > 0,
        "cross": np.minimum(abs(rows - y), abs(columns - x)) < size / 3,
    }[kind]
    light, dark = random.uniform(0, 1, (2, 3))
    background = dark * (0.5 + 0.5 * rows[..., None])
    return np.rint(255 * np.where(inside[..., None], light, background)).astype(np.uint8)


def make_folder(folder: Path, images: int) -> None:
    """Write the images, those that are not there yet."""
    for number in range(images):
        kind = KINDS[number % len(KINDS)]
        path = folder / kind / f"{number // len(KINDS) // 1000:03}" / f"{number:06}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(kind, number)).save(path, compress_level=1)


def train(folder: Path, out: Path, cache: Path) -> tuple[int, float, int]:
    """Train under the limit; return the exit code, the seconds, and the most bytes that the processes held."""
    command = [sys.executable, "-c", "from aigc_sdk.cli import main; main()", "train", "vae", str(folder)]
    options = [argument for option in CONFIG for argument in ("-c", option)]
    start, peak, group = time.monotonic(), 0, limited_group()
    process = subprocess.Popen(
        [*command, "--out", str(out), *options],
        env={**os.environ, "AIGC_SDK_CACHE": str(cache)},
        preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),
    )
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.25)
    group.rmdir()
    return process.returncode, time.monotonic() - start, peak


def limited_group() -> Path:
    """Make a control group, of version 1 or 2, whose processes together may not have more memory than the limit."""
    first = Path("/sys/fs/cgroup/memory")
    root, file = (first, "memory.limit_in_bytes") if first.exists() else (first.parent, "memory.max")
    group = root / "large-folder"
    group.mkdir(exist_ok=True)
    (group / file).write_text(str(LIMIT))
    return group


def resident_bytes(pid: int) -> int:
    """Return what a process and all below it hold in memory."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:  # it has just ended
        pass
    return total


def main() -> int:
    """Make the folder, train twice, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="keep the images here; a temporary folder without it")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch", "pillow")
    with TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary, "shapes")
        make_folder(folder, arguments.images)
        report.figure("images", arguments.images)
        report.figure("their pixels", arguments.images * SIDE * SIDE * 3 / 1e6, "MB")
        for what in ("first", "second"):
            out = Path(temporary, what)
            code, seconds, peak = train(folder, out, Path(temporary, "cache"))
            report.at_most(f"{what} training, exit code", code, 0)
            report.figure(f"{what} training, all of it", seconds, "s")
            report.at_most(f"{what} training, peak memory of all its processes", peak / 1e6, LIMIT / 1e6, "MB")
            if code == 0:
                data = json.loads((out / "run.json").read_text())["data"]
                report.at_most(f"{what} training, images that were left out", arguments.images - data["n"], 0)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
