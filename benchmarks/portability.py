"""The same seed, the same content: eager torch against the file, batches, threads, processes, Node, WebAssembly.

python benchmarks/portability.py [--model digits-vae] [--run FOLDER]
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch

import aigc_sdk as sdk
from aigc_onnx.verify import EAGER_SHARE, check_independence, compare_with_eager, example_feeds
from aigc_sdk.errors import ExportFailed
from aigc_sdk.generation import model_file
from aigc_sdk.generator import Generator
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.seeds import threefry
from aigc_sdk.training import Run
from aigc_sdk.training.checkpoint import load_averaged_weights
from aigc_sdk.training.random import Stream, bits
from timing import Report

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from javascript import ensure_installed, run_in_javascript

RUNS = Path(__file__).parent / "runs"
SEEDS = 1000
FEWER_SEEDS = {"inpaint": 100}  # which makes 16 images for each, several times
LEAST_VALUES = 10**6
WEB_SHARE_OF_COLOURS = 3e-4

_DIGEST = """
import hashlib, sys, aigc_sdk as sdk
print(hashlib.sha256(sdk.generate(sys.argv[1], 64, seed=7).to_numpy().tobytes()).hexdigest())
"""


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits-vae")
    parser.add_argument("--run", type=Path, help="of the model; without it the one that is kept in benchmarks/runs")
    arguments = parser.parse_args()
    report = Report("torch", "onnxruntime")
    ensure_installed()
    run = Run.open(arguments.run or RUNS / arguments.model)
    check_bits(report)
    check_seeds(report, arguments.model)
    family = run.family_class()(run.options())
    family.build(run.record.data_spec())
    family.load_state_dict(load_averaged_weights(run.folder), strict=False)  # of what is kept, which the samplers use
    for task in family.tasks:
        check_task(report, run.exportable(task, family.eval()).eager, arguments.model, task)
    return report.exit_code


def check_bits(report: Report) -> None:
    """Compare the random words of torch with those of the core's Threefry, for seeds at the ends of their range."""
    seeds = torch.tensor([0, 7, 2**32, 2**53 - 1])
    words = bits(seeds, 1000, Stream.LABEL)
    differing = sum(
        int(words[i, place]) != threefry((seed & 0xFFFFFFFF, seed >> 32), (place, int(Stream.LABEL)))[0]
        for i, seed in enumerate(seeds.tolist())
        for place in range(1000)
    )
    report.at_most("random words that differ between torch and the core", differing, 0)


def check_seeds(report: Report, model: str) -> None:
    """Compare a fresh process with this one, a short request with a long one, and the seeds of many requests."""
    here = hashlib.sha256(sdk.generate(model, 64, seed=7).to_numpy().tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", _DIGEST, model], capture_output=True, text=True, check=True)
    fresh = here == there.stdout.strip()
    long, short = (sdk.generate(model, n, seed=7).to_numpy() for n in (50, 5))
    prefix = bool(np.array_equal(long[:5], short))
    items = {item.data.tobytes() for seed in range(1000) for item in sdk.generate(model, 100, seed=seed)}
    report.at_most("64 items whose bytes differ in a fresh process", int(not fresh), 0)
    report.at_most("items of n = 5 that are no prefix of n = 50", int(not prefix), 0)
    report.at_most("items of seeds 0..999 at n = 100 that are not distinct", 100_000 - len(items), 0)


def check_task(report: Report, eager: Generator, model: str, task: str) -> None:
    """Compare one task of the model in every runtime that is here."""
    path = model_file(model, task=task)
    exported = OnnxGenerator.open(path)
    for compare in (
        lambda: compare_with_eager(eager, exported, least_values=LEAST_VALUES),
        lambda: check_independence(path.read_bytes(), exported.card),
    ):
        try:
            check = compare()
            print(f"{task}: {check.name}: {check.measured}")
            missed = 0
        except ExportFailed as error:
            print(f"{task}: {error}")
            missed = 1
        report.at_most(f"{task}: checks of the exporter that were missed", missed, 0)

    n = FEWER_SEEDS.get(task, SEEDS)
    seeds, controls = example_feeds(exported.card.controls, n, 11)
    wanted = exported.run(seeds, controls)["content"]
    colours = exported.card.output.shape[-1] > 1
    web = WEB_SHARE_OF_COLOURS if colours else EAGER_SHARE
    bounds: list[tuple[Literal["node", "web"], float]] = [("node", 0.0), ("web", web)]
    for runtime, most in bounds:
        got = run_in_javascript(runtime, path, {"seed": seeds, **controls})
        gap = np.abs(got.astype(np.int64) - wanted)
        pixels = (gap > 0).any(-1)
        report.figure(f"{task}: onnxruntime-{runtime}, {n} seeds, pixels that differ", int(pixels.sum()))
        report.at_most(f"{task}: onnxruntime-{runtime}, share of the pixels that differ", float(pixels.mean()), most)
        report.at_most(f"{task}: onnxruntime-{runtime}, largest difference in levels", int(gap.max()), 1)


if __name__ == "__main__":
    sys.exit(main())
