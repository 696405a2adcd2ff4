"""The same seed, the same content: eager torch against the file, batches, threads, processes, Node, WebAssembly.

PYTHONPATH=tests python benchmarks/portability.py [--model digits-vae] [--run FOLDER]
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np

import aigc_sdk as sdk
from aigc_onnx.verify import EAGER_SHARE, check_independence, compare_with_eager, example_feeds
from aigc_sdk.generation import model_file
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.training import Run
from timing import machine

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from javascript import ensure_installed, run_in_javascript

RUN = Path(__file__).parent / "runs" / "digits-vae"
SEEDS = 1000
LEAST_VALUES = 10**6

_DIGEST = """
import hashlib, sys, aigc_sdk as sdk
print(hashlib.sha256(sdk.generate(sys.argv[1], 64, seed=7).to_numpy().tobytes()).hexdigest())
"""


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits-vae")
    parser.add_argument("--run", type=Path, default=RUN)
    arguments = parser.parse_args()
    print(machine(["torch", "onnxruntime"]))
    ensure_installed()
    run = Run.open(arguments.run)
    held = check_seeds(arguments.model)
    for task in run.family_class().tasks:
        held &= check_task(run, arguments.model, task)
    return 0 if held else 1


def check_seeds(model: str) -> bool:
    """Compare a fresh process with this one, a short request with a long one, and the seeds of many requests."""
    here = hashlib.sha256(sdk.generate(model, 64, seed=7).to_numpy().tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", _DIGEST, model], capture_output=True, text=True, check=True)
    fresh = here == there.stdout.strip()
    long, short = (sdk.generate(model, n, seed=7).to_numpy() for n in (50, 5))
    prefix = bool(np.array_equal(long[:5], short))
    items = {item.data.tobytes() for seed in range(1000) for item in sdk.generate(model, 100, seed=seed)}
    print(f"fresh process: {'identical' if fresh else 'DIFFERENT'} bytes, 64 items")
    print(f"n = 5 {'is' if prefix else 'is NOT'} a prefix of n = 50")
    print(f"items of seeds 0..999 at n = 100: {len(items)} distinct of 100000")
    return fresh and prefix and len(items) == 100_000


def check_task(run: Run, model: str, task: str) -> bool:
    """Compare one task of the model in every runtime that is here."""
    path = model_file(model, task=task)
    exported = OnnxGenerator.open(path)
    check = compare_with_eager(run.exportable(task).eager, exported, least_values=LEAST_VALUES)
    print(f"{task}: {check.name}: {check.measured} (at most {EAGER_SHARE:.0e}, by 1)")
    check = check_independence(path.read_bytes(), exported.card.controls)
    print(f"{task}: {check.name}: {check.measured}")

    seeds, controls = example_feeds(exported.card.controls, SEEDS, 11)
    wanted = exported.run(seeds, controls)["content"]
    held = True
    bounds: list[tuple[Literal["node", "web"], float]] = [("node", 0.0), ("web", EAGER_SHARE)]
    for runtime, most in bounds:
        got = run_in_javascript(runtime, path, {"seed": seeds, **controls})
        gap = np.abs(got.astype(np.int64) - wanted)
        share = float((gap > 0).mean())
        print(
            f"{task}: onnxruntime-{runtime}, {SEEDS} seeds: {int((gap > 0).sum())} of {gap.size} values differ,"
            f" by at most {gap.max()} (at most {most:.0e}, by 1)"
        )
        held &= share <= most and int(gap.max()) <= 1
    return held


if __name__ == "__main__":
    sys.exit(main())
