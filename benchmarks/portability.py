"""The same seed, the same content: eager torch against the file, batches, threads, processes, Node, WebAssembly.

python benchmarks/portability.py [--model digits-vae] [--run FOLDER]

The weights of eager torch are those that are kept in benchmarks/runs; of a model of texts, the matrices are those that
its file holds.
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_onnx.verify import (
    EAGER_SHARE,
    EAGER_TEXTS,
    check_independence,
    check_streaming,
    compare_with_eager,
    example_feeds,
)
from aigc_sdk.errors import ExportFailed
from aigc_sdk.generation import find_model, model_file
from aigc_sdk.generator import Generator
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.seeds import threefry
from aigc_sdk.training import Run
from aigc_sdk.training.checkpoint import load_averaged_weights
from aigc_sdk.training.random import Stream, bits
from stored import weights_in
from timing import Report

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from javascript import ensure_installed, run_in_javascript

RUNS = Path(__file__).parent / "runs"
SEEDS = 1000
TEXT_STEPS, TEXT_BATCH, EAGER_TEXTS_N = 200, 200, 10_000
FEWER_SEEDS = {"inpaint": 100}  # which makes 16 images for each, several times
LEAST_VALUES = 10**6
WEB_SHARE_OF_COLOURS = 3e-4

_DIGEST = """
import hashlib, sys, aigc_sdk as sdk
items = sdk.generate(sys.argv[1], 64, seed=7)
print(hashlib.sha256(b"|".join(item.data.tobytes() for item in items)).hexdigest())
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
    family = run.family_class()(run.options())
    family.build(run.record.data_spec())
    is_text = family.modality == "text"
    check_seeds(report, arguments.model, is_text=is_text)
    weights = load_averaged_weights(run.folder) | (weights_in(model_file(arguments.model)) if is_text else {})
    family.load_state_dict(weights, strict=False)  # of what is kept, which the samplers use
    check = check_texts if is_text else check_task
    for task in find_model(arguments.model)[0].files:
        check(report, run.exportable(task, family.eval()).eager, arguments.model, task)
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


def check_seeds(report: Report, model: str, *, is_text: bool) -> None:
    """Compare a fresh process with this one, a short request with a long one, and the seeds of many requests."""
    here = hashlib.sha256(_bytes(sdk.generate(model, 64, seed=7))).hexdigest()
    there = subprocess.run([sys.executable, "-c", _DIGEST, model], capture_output=True, text=True, check=True)
    fresh = here == there.stdout.strip()
    long, short = (sdk.generate(model, n, seed=7) for n in (50, 5))
    prefix = _bytes(long[:5]) == _bytes(short)
    report.at_most("64 items whose bytes differ in a fresh process", int(not fresh), 0)
    report.at_most("items of n = 5 that are no prefix of n = 50", int(not prefix), 0)
    if is_text:  # a name may be made twice
        return
    items = {item.data.tobytes() for seed in range(1000) for item in sdk.generate(model, 100, seed=seed)}
    report.at_most("items of seeds 0..999 at n = 100 that are not distinct", 100_000 - len(items), 0)


def _bytes(contents: sdk.Contents) -> bytes:
    return b"|".join(item.data.tobytes() for item in contents)


def check_export(report: Report, eager: Generator, exported: OnnxGenerator, path: Path) -> None:
    """Make the checks that an export ends with, on more items."""
    task = exported.card.task
    checks = [
        lambda: compare_with_eager(eager, exported, least_values=LEAST_VALUES),
        lambda: check_independence(path.read_bytes(), exported.card),
    ]
    if exported.card.state:
        checks = [checks[1], lambda: check_streaming(exported)]
    for compare in checks:
        try:
            check = compare()
            print(f"{task}: {check.name}: {check.measured}")
            missed = 0
        except ExportFailed as error:
            print(f"{task}: {error}")
            missed = 1
        report.at_most(f"{task}: checks of the exporter that were missed", missed, 0)


def check_task(report: Report, eager: Generator, model: str, task: str) -> None:
    """Compare one task of the model in every runtime that is here."""
    path = model_file(model, task=task)
    exported = OnnxGenerator.open(path)
    check_export(report, eager, exported, path)

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


def check_texts(report: Report, eager: Generator, model: str, task: str) -> None:
    """Compare one task of a model of texts in every runtime that is here, at temperature 1."""
    path = model_file(model, task=task)
    exported = OnnxGenerator.open(path)
    check_export(report, eager, exported, path)
    if exported.card.state:
        return
    controls = {each.name: each for each in exported.card.controls}
    steps = min(TEXT_STEPS, int(controls["max_length"].maximum or 0))
    fed = {name: np.full(TEXT_BATCH, each.default, each.dtype) for name, each in controls.items() if name != "prompt"}
    fed |= {"prompt": np.full((TEXT_BATCH, 1), -1, np.int32), "max_length": np.full(TEXT_BATCH, steps)}

    def by_javascript(runtime: Literal["node", "web"]) -> Callable[..., NDArray[Any]]:
        return lambda seeds: run_in_javascript(runtime, path, {"seed": seeds, **fed})

    def differing(run: Callable[..., NDArray[Any]], n: int) -> float:
        """Return the share of n texts that are not those of the file here; each row is cut at its end."""
        count = 0
        for start in range(0, n, TEXT_BATCH):
            seeds = np.arange(start, start + TEXT_BATCH)
            pairs = zip(run(seeds), exported.run(seeds, fed)["content"], strict=True)
            count += sum(not np.array_equal(a[a >= 0], b[b >= 0]) for a, b in pairs)
        return count / n

    what = f"share of texts of {steps} steps that differ"
    share = differing(lambda seeds: eager.run(seeds, fed)["content"], EAGER_TEXTS_N)
    report.at_most(f"{task}: eager torch, {EAGER_TEXTS_N:,} seeds, {what}", share, EAGER_TEXTS)
    report.at_most(f"{task}: onnxruntime-node, {SEEDS} seeds, {what}", differing(by_javascript("node"), SEEDS), 0)
    share = differing(by_javascript("web"), SEEDS)
    report.at_most(f"{task}: onnxruntime-web, {SEEDS} seeds, {what}", share, EAGER_TEXTS)


if __name__ == "__main__":
    sys.exit(main())
