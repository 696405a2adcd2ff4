"""The same seed, the same content: eager torch against the file, batches, threads, processes, Node, WebAssembly.

python benchmarks/portability.py [--model digits-vae] [--run FOLDER]

The weights of eager torch are those that are kept in benchmarks/runs; of a model of texts or music, the matrices are
those that its file holds.

Texts and pieces of music have labels, or keys and metres, that are drawn from their seeds. A piece differs where its
notes do, with onsets and durations in ticks, or its length, tempo, metre or key; in Node these are held against each
other in seconds, as they come.
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_music.events import TICKS
from aigc_onnx.verify import (
    EAGER_SHARE,
    EAGER_TEXTS,
    check_independence,
    check_streaming,
    compare_with_eager,
    example_feeds,
)
from aigc_sdk.card import ModelCard
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
# Of texts and pieces of music: characters or events, items of one run, and items in eager torch.
STEPS, BATCH, EAGER_N = 200, 200, 10_000
AS_TRAINED = "temperature 1"  # what the bounds are for; what runs the same kernels is always the same
FEWER_SEEDS = {"inpaint": 100}  # which makes 16 images for each, several times
LEAST_VALUES = 10**6
WEB_SHARE_OF_COLOURS = 3e-4

Array = NDArray[Any]
Rows = Callable[[dict[str, Array]], list[bytes]]

_DIGEST = """
import hashlib, sys, aigc_sdk as sdk
items = sdk.generate(sys.argv[1], 64, seed=7)
print(hashlib.sha256(b"|".join(item.data.tobytes() for item in items)).hexdigest())
"""


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits-vae", help="a ready-made one, or the .onnx of a run")
    parser.add_argument("--run", type=Path, help="of the model; without it the one that is kept, or its file's folder")
    arguments = parser.parse_args()
    report = Report("torch", "onnxruntime")
    ensure_installed()
    model, is_file = arguments.model, arguments.model.endswith(".onnx")
    run = Run.open(arguments.run or (Path(model).parent if is_file else RUNS / model))
    check_bits(report)
    family = run.family_class()(run.options())
    family.build(run.record.data_spec(family.modality))
    is_image = family.modality == "image"
    check_seeds(report, model, is_image=is_image)
    weights = load_averaged_weights(run.folder) | ({} if is_image else weights_in(model_file(model)))
    family.load_state_dict(weights, strict=False)  # of what is kept, which the samplers use
    check = check_task if is_image else check_long
    tasks = [sdk.load(model).card.task] if is_file else find_model(model)[0].files
    for task in tasks:
        check(report, run.exportable(task, family.eval()).eager, model, task)
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


def check_seeds(report: Report, model: str, *, is_image: bool) -> None:
    """Compare a fresh process with this one, a short request with a long one, and the seeds of many requests."""
    here = hashlib.sha256(_bytes(sdk.generate(model, 64, seed=7))).hexdigest()
    there = subprocess.run([sys.executable, "-c", _DIGEST, model], capture_output=True, text=True, check=True)
    fresh = here == there.stdout.strip()
    long, short = (sdk.generate(model, n, seed=7) for n in (50, 5))
    prefix = _bytes(long[:5]) == _bytes(short)
    report.at_most("64 items whose bytes differ in a fresh process", int(not fresh), 0)
    report.at_most("items of n = 5 that are no prefix of n = 50", int(not prefix), 0)
    if not is_image:  # a name may be made twice
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
        got = run_in_javascript(runtime, path, {"seed": seeds, **controls})["content"]
        gap = np.abs(got.astype(np.int64) - wanted)
        pixels = (gap > 0).any(-1)
        report.figure(f"{task}: onnxruntime-{runtime}, {n} seeds, pixels that differ", int(pixels.sum()))
        report.at_most(f"{task}: onnxruntime-{runtime}, share of the pixels that differ", float(pixels.mean()), most)
        report.at_most(f"{task}: onnxruntime-{runtime}, largest difference in levels", int(gap.max()), 1)


def check_long(report: Report, eager: Generator, model: str, task: str) -> None:
    """Compare one task of a model of texts or music in every runtime that is here."""
    path = model_file(model, task=task)
    exported = OnnxGenerator.open(path)
    check_export(report, eager, exported, path)
    card = exported.card
    if card.state:
        return
    kind, items = (in_ticks, "pieces") if card.modality == "music" else (numbers, "texts")
    runtimes: list[tuple[str, Callable[..., dict[str, Array]], int, Rows, float]] = [
        ("eager torch", eager.run, EAGER_N, kind, EAGER_TEXTS),
        ("onnxruntime-node", partial(by_javascript, "node", path), SEEDS, numbers, 0),
        ("onnxruntime-web", partial(by_javascript, "web", path), SEEDS, kind, EAGER_TEXTS),
    ]
    for way, fed in ways_to_choose(card).items():
        what = f"{items} of {fed['max_length'][0]} steps that differ, {way}"
        for runtime, run, n, rows, most in runtimes:
            count = 0
            for start in range(0, n, BATCH):
                seeds = np.arange(start, start + BATCH)
                pairs = zip(rows(run(seeds, fed)), rows(exported.run(seeds, fed)), strict=True)
                count += sum(a != b for a, b in pairs)
            if way == AS_TRAINED or not most:
                report.at_most(f"{task}: {runtime}, {n:,} seeds, {what}", count, most * n)
            else:
                report.figure(f"{task}: {runtime}, {n:,} seeds, {what}", count)


def ways_to_choose(card: ModelCard) -> dict[str, dict[str, Array]]:
    """Return controls of a batch: with the probabilities that were trained, and as the model comes if that is other."""
    known = {each.name: each for each in card.controls}
    steps = min(STEPS, int(known["max_length"].maximum or 0))
    fed = {name: np.full(BATCH, each.default, each.dtype) for name, each in known.items() if name != "prompt"}
    fed |= {"prompt": np.full((BATCH, 1), -1, np.int32), "max_length": np.full(BATCH, steps)}
    ways = {AS_TRAINED: fed | {name: np.ones(BATCH, np.float32) for name in ("temperature", "top_p")}}
    if any(known[name].default != 1 for name in ("temperature", "top_p")):
        ways["as it comes"] = fed
    return ways


def by_javascript(
    runtime: Literal["node", "web"], path: Path, seeds: NDArray[np.int64], fed: dict[str, Array]
) -> dict[str, Array]:
    """Run the file as `Generator.run` does."""
    return run_in_javascript(runtime, path, {"seed": seeds, **fed})


def numbers(outputs: dict[str, Array]) -> list[bytes]:
    """Return all numbers of each item."""
    parts = [part for _, part in sorted(outputs.items())]
    return [b"".join(part.tobytes() for part in row) for row in zip(*parts, strict=True)]


def in_ticks(outputs: dict[str, Array]) -> list[bytes]:
    """Return the same with onsets and durations in ticks."""
    content = outputs["content"].astype(np.float64)
    content[..., 2:4] *= outputs["content.tempo"][:, None, None] / 60 * TICKS
    return numbers(outputs | {"content": np.rint(content)})


if __name__ == "__main__":
    sys.exit(main())
