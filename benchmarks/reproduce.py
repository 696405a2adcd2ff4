"""Reproducing 200 saved images in a new process: whether every file comes out with identical bytes.

    python benchmarks/reproduce.py [--images 200]

The images are of every ready-made model and task, with random controls, in all formats that the SDK saves. In the new
process each is made again from its provenance with `sdk.reproduce` and saved again; then both files, and where the
provenance lies beside, both sidecars, are compared byte for byte. Model files that take images get noise.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import aigc_sdk as sdk
from aigc_sdk.card import Control
from timing import Report

FORMATS = (".png", ".webp", ".jpg", ".bmp", ".tif")

AGAIN = """
import sys
from pathlib import Path
import numpy as np
import aigc_sdk as sdk
first, second = map(Path, sys.argv[1:])
for path in sorted(path for path in first.iterdir() if path.suffix not in (".json", ".npz")):
    given = first / (path.name + ".npz")
    controls = dict(np.load(given)) if given.exists() else {}
    sdk.reproduce(path, **controls)[0].save(second / path.name)
"""


def main() -> int:
    """Save, reproduce, compare, print; return 1 when a byte differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    images = parser.parse_args().images
    report = Report("onnxruntime", "Pillow")
    models = [(model.name, task) for model in sdk.models() if model.kind == "model" for task in model.tasks]
    with TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        first.mkdir()
        second.mkdir()
        random = np.random.default_rng(0)
        for i in range(images):
            name, task = models[i % len(models)]
            save_one(first / f"{i:04}{FORMATS[i // len(models) % len(FORMATS)]}", name, task, random)
        subprocess.run([sys.executable, "-c", AGAIN, first, second], check=True)
        again = sorted(second.iterdir())
        kept = sorted(path for path in first.iterdir() if path.suffix != ".npz")
        identical = sum(a.name == b.name and a.read_bytes() == b.read_bytes() for a, b in zip(kept, again, strict=True))
    print(f"{images} images of {', '.join(f'{name}:{task}' for name, task in models)} as {', '.join(FORMATS)}")
    report.figure("files, images and the sidecars of those without a place inside", len(kept))
    report.at_most("files that are not identical", len(kept) - identical, 0)
    return report.exit_code


def save_one(path: Path, name: str, task: str, random: np.random.Generator) -> None:
    """Save an item with random controls, and beside it what the provenance holds only the hash of."""
    model = sdk.load(name, task=task)
    controls = {control.name: draw(control, random) for control in model.card.controls}
    model.generate(seed=int(random.integers(2**53)), **controls)[0].save(path)
    pixels = {key: value for key, value in controls.items() if isinstance(value, np.ndarray)}
    if pixels:
        np.savez(path.with_name(path.name + ".npz"), **pixels)


def draw(control: Control, random: np.random.Generator) -> Any:
    """Return a value that a control may be given."""
    low, high = (min(max(bound, -1000), 2**53 - 1) for bound in control.range)
    if control.is_pixels:
        levels = np.array([0, 255] if control.kind == "mask" else range(256), np.uint8)
        return random.choice(levels, control.shape)
    if control.kind == "flag":
        return bool(random.integers(2))
    if control.kind == "number":
        return float(random.uniform(low, high))
    return int(random.integers(int(low), int(high), endpoint=True))


if __name__ == "__main__":
    sys.exit(main())
