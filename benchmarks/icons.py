"""What the VAE family makes of 500 icons without an option but the size: 32 pixels, in colours with alpha.

    python benchmarks/icons.py [--seeds 0 1 2] [--kept]

The icons are Microsoft's Fluent emoji in 3D without those that differ in the tone of skin alone, 500 to train on and
500 that are held out, both drawn once for all. Precision and recall are those of k = 3 neighbours and as many images on
either side, against those held out, and judged as shares of what the 500 real icons of the training get there. Features
are those of a classifier like digits-features (gan_features.py), trained on all other icons to tell the block of
Unicode, for example faces, animals or flags, and to give the picture back.

A training may take 30 CPU minutes, which are 15 minutes of two cores; reading and export count. Figures and sample
grids are kept in benchmarks/runs/icons, and what is there is not made again. With --kept nothing is trained.
"""

import argparse
import io
import json
import logging
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_image.data import load_data
from aigc_image.images import ImageOptions
from aigc_sdk.files import cache_folder, write_bytes
from aigc_sdk.training import Run
from datasets import Source, download
from gan_features import measure_for
from timing import Report, git_commit, machine

KEPT = Path(__file__).parent / "runs" / "icons"
SIZE = 32
N = 500  # icons to train on, and held out
LEAST, CPU_MINUTES = 0.4, 30.0
TONES = {f"1f3f{digit}" for digit in "bcdef"}
BLOCK, RARE = 64, 40  # code points that make a class, and how many icons it has at least
PACKAGE = Source(
    package="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    files=("lobehub-fluent-emoji-3d-1.1.0.tgz",),
    sha256=("c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",),
    licence="MIT (Microsoft Corporation; package by LobeHub)",
    read=lambda archive: [archive],
    registry="npm",
)


def main() -> int:
    """Train what is not kept yet, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--kept", action="store_true", help="print the figures that are kept")
    parser.add_argument("--train", nargs=2, metavar=("SEED", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.train:
        sdk.train("vae", folders() / "train", out=arguments.train[1], seed=int(arguments.train[0]), image_size=SIZE)
        return 0
    report = Report("aigc-sdk", "torch", "onnxruntime")
    missing = 0
    for seed in arguments.seeds:
        path = KEPT / f"{seed}.json"
        if not path.exists() and not arguments.kept:
            measured(seed, path)
        if path.exists():
            judge(report, json.loads(path.read_text()))
        missing += not path.exists()
    report.at_most("seeds without figures", missing, 0)
    return report.exit_code


def judge(report: Report, values: dict[str, Any]) -> None:
    """Print the figures of one seed."""
    name = f"seed {values['seed']}, {values['steps']:,} steps"
    report.at_most(f"{name}: minutes of one core", values["cpu_s"] / 60, CPU_MINUTES, "min")
    report.figure(f"{name}: Frechet distance", values["frechet"]["value"])
    report.figure(f"{name}: that of the training icons", values["frechet"]["real"])
    for metric in ("precision", "recall"):
        value, real = values[metric]["value"], values[metric]["real"]
        report.at_least(f"{name}: {metric} {value:.3f}, real {real:.3f}", value / real, LEAST, "x")


def measured(seed: int, path: Path) -> None:
    """Train in a process of its own, measure the model file, and keep the figures and a grid."""
    with tempfile.TemporaryDirectory() as folder:
        out, started, before = Path(folder) / "run", time.monotonic(), children_s()
        subprocess.run([sys.executable, __file__, "--train", str(seed), str(out)], check=True)
        spent = {"cpu_s": children_s() - before, "minutes": (time.monotonic() - started) / 60}
        run = Run.open(out)
        made = sdk.generate(run.models["generate"], N, seed=seed)
        steps, config = run.metrics[-1]["step"], run.record.config
    held_out, trained_on = icons("held"), icons("train")
    found = sdk.evaluate(
        made.to_numpy(),
        held_out,
        train=trained_on,
        metrics=["frechet", "precision", "recall"],
        n=min(N, len(held_out), len(trained_on)),
        extractor=str(features()),
    )
    scores = {score.metric: {"value": score.value, "real": score.baseline} for score in found.scores}
    values = {"seed": seed, "steps": steps, **spent, **scores, "config": config}
    values |= {"commit": git_commit(), "machine": machine(["torch"])}
    path.parent.mkdir(parents=True, exist_ok=True)
    made[:64].grid(columns=8).save(path.with_suffix(".png"))
    write_bytes(path, (json.dumps(values, indent=1) + "\n").encode())


def children_s() -> float:
    """Return the CPU seconds of the processes that this one waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def folders() -> Path:
    """Return the folder of the icons, which is made on first use: `train`, `held` and `rest`."""
    folder = cache_folder() / "datasets" / "fluent-emoji-3d"
    if (folder / "done").exists():
        return folder
    with tarfile.open(fileobj=io.BytesIO(download(PACKAGE)[0])) as package:
        files = {
            Path(member.name).name: package.extractfile(member).read()  # type: ignore[union-attr]  # a file
            for member in package
            if member.name.endswith(".webp")
        }
    files = {name: content for content, name in {files[name]: name for name in sorted(files, reverse=True)}.items()}
    plain = sorted(name for name in files if not TONES & set(Path(name).stem.split("-")[1:]))
    order = [plain[i] for i in np.random.default_rng(0).permutation(len(plain))]
    parts = {"train": order[:N], "held": order[N : 2 * N]}
    parts["rest"] = sorted(files.keys() - {*parts["train"], *parts["held"]})
    for part, names in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            write_bytes(folder / part / name, files[name])
    write_bytes(folder / "done", b"")
    return folder


def icons(part: str) -> NDArray[np.uint8]:
    """Return the icons of a part, uint8 (n, 32, 32, 4), as a training reads them."""
    data = load_data(folders() / part, ImageOptions(size=SIZE))
    return np.asarray(data.images[np.arange(data.n)])


def features() -> Path:
    """Return the measure whose features are compared."""
    files = sorted((folders() / "rest").iterdir())
    images = icons("rest")
    if len(images) != len(files):
        raise SystemExit(f"Of {len(files)} icons {len(images)} were read, so that labels cannot be told.")
    blocks = np.array([int(path.stem.split("-")[0], 16) // BLOCK for path in files])
    found, counts = np.unique(blocks, return_counts=True)
    blocks[np.isin(blocks, found[counts < RARE])] = -1
    _, labels = np.unique(blocks, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(images))
    return measure_for("fluent-emoji-3d", images[order], labels[order].astype(np.int64))


if __name__ == "__main__":
    sys.exit(main())
