"""The VAE family without an option against Pythae's VAE, on MNIST, in the same CPU seconds of one thread.

    python benchmarks/vae_budget.py [--seeds 0 1 2] [--budgets 90 600] [--peer resnet-bce] [--pythae PYTHON] [--kept]

Both train until the CPU seconds are spent, so that what else the machine does costs neither more than a slower core.
The Frechet distance of digits-features compares 5,000 images of each with MNIST's test set. At 90 s the bound is what
Pythae's VAE makes of N(0, 1), at 600 s the better of its samplers, the fit of its mixture counted in the seconds.
Pythae is run by PYTHON, or in an environment that is made in the cache; of its networks for images of this size and its
losses the peer has those that are best at 90 s (--peer tries another). On 2026-11-30, an AMD EPYC of AVX-512, seed 0:
resnet with bce 4.8, with mse 13.8; mlp with bce 5.5, with mse 13.3; conv, of 17 million weights, made 97 steps, 46.9.

Figures are kept in benchmarks/runs/vae-budget, a file for each training, and what is there is not made again: an
interrupted run goes on. With --kept nothing is trained, and what is kept is judged.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import venv
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_sdk.evaluation.gaussians import frechet_distance, moments
from aigc_sdk.files import cache_folder, write_bytes
from aigc_sdk.training import Run
from datasets import fetch
from timing import Report, git_commit, machine

KEPT = Path(__file__).parent / "runs" / "vae-budget"
SAMPLES = 5000
PEER = "resnet-bce"
FIT_FROM_S = 600  # budgets from which on the peer's better sampler counts
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def main() -> int:
    """Train what is not kept yet, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="+", type=int, default=[90, 600], help="CPU seconds")
    parser.add_argument("--peer", default=PEER, help="its network (mlp, conv or resnet) and loss (mse or bce)")
    parser.add_argument("--pythae", type=Path, help="a Python that has torch and pythae")
    parser.add_argument("--kept", action="store_true", help="print the figures that are kept")
    parser.add_argument("--train", nargs=3, metavar=("CPU_S", "SEED", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        return train(float(arguments.train[0]), int(arguments.train[1]), Path(arguments.train[2]))
    report = Report("aigc-sdk", "torch", "onnxruntime")
    for budget in arguments.budgets:
        found: dict[str, list[float]] = {"ours": [], f"pythae-{arguments.peer}": []}
        for seed in arguments.seeds:
            for who, values in found.items():
                path = KEPT / f"{who}-{budget}-{seed}.json"
                if not path.exists() and not arguments.kept:
                    peer = arguments.peer, arguments.pythae
                    figures = ours(budget, seed) if who == "ours" else pythae(budget, seed, *peer)
                    keep(path, {"who": who, "cpu_s": budget, "seed": seed, **figures})
                if path.exists():
                    values.append(told(report, json.loads(path.read_text())))
        judge(report, budget, found)
    return report.exit_code


def keep(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures of one training, and what they were made with."""
    made = {"commit": git_commit(), "machine": machine(["torch"])}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(figures | made, indent=1) + "\n").encode())


def told(report: Report, figures: dict[str, Any]) -> float:
    """Print the figures of one training; return the distance that counts."""
    name = f"{figures['who']}, {figures['cpu_s']} s, seed {figures['seed']}, {figures['steps']:,} steps"
    for sampler, value in figures["frechet"].items():
        report.figure(f"{name}: {sampler}", value)
    return min(figures["frechet"].values())


def judge(report: Report, budget: int, found: dict[str, list[float]]) -> None:
    """Compare the means over the seeds."""
    if not all(found.values()):
        report.at_least(f"{budget} s: trainings of both that are kept", 0, 1)
        return
    seeds = " and ".join(str(len(values)) for values in found.values())
    means = {who: float(np.mean(values)) for who, values in found.items()}
    report.at_most(f"{budget} s: Frechet distance, mean of {seeds} seeds", *means.values())


def frechet(images: NDArray[np.uint8]) -> float:
    """Return the distance of images from MNIST's test set."""
    with np.load(fetch("mnist-test")) as archive:
        real, made = (sdk.measure("digits-features", some) for some in (archive["images"], images))
    return float(frechet_distance(moments(made.astype(np.float64)), moments(real.astype(np.float64))))


def ours(budget: int, seed: int) -> dict[str, Any]:
    """Train the family in a process of one thread, and measure its model file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, __file__, "--train", str(budget), str(seed), str(out)]
        subprocess.run(command, check=True, env=os.environ | ONE_THREAD)
        run = Run.open(out)
        images = sdk.generate(run.models["generate"], SAMPLES, seed=seed).to_numpy()
        figures: dict[str, Any] = json.loads((out / "cpu.json").read_text())
        last = run.metrics[-1]
        return {
            "steps": last["step"],
            "train_s": 60 * last["minutes"],
            **figures,
            "config": run.record.config,
            "frechet": {"generate": frechet(images)},
        }


def train(cpu_s: float, seed: int, out: Path) -> int:
    """Train without an option for so many CPU seconds of this process."""
    import torch

    from aigc_sdk.training import progress

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    # The clock of trainings counts what this process computes, and not how long it waited for a core.
    progress.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]  # all that it uses of it
    sdk.train("vae", fetch("mnist"), out=out, seed=seed, minutes=cpu_s / 60)
    write_bytes(out / "cpu.json", json.dumps({"all_with_export_s": time.process_time()}).encode())
    return 0


def pythae(budget: int, seed: int, peer: str, python: Path | None) -> dict[str, Any]:
    """Train Pythae's VAE in its own environment, and measure what it made."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "made.npz"
        script = Path(__file__).with_name("vae_pythae.py")
        command = [python or environment(), script, fetch("mnist"), out, "--cpu-s", budget, "--seed", seed]
        network, _, loss = peer.partition("-")
        command += ["--network", network, "--loss", loss]
        command += ["--mixture"] if budget >= FIT_FROM_S else []
        subprocess.run([str(word) for word in command], check=True, env=os.environ | ONE_THREAD)
        with np.load(out) as archive:
            distances = {name: frechet(images) for name, images in archive.items()}
        return {**json.loads(out.with_suffix(".json").read_text()), "frechet": distances}


def environment() -> Path:
    """Return the Python of an environment with Pythae and the torch of this one, which is made on first use."""
    folder = cache_folder() / "peers" / "pythae-0.1.2"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        torch = f"torch=={version('torch').partition('+')[0]}"
        # It imports torchvision and does not say so.
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pythae==0.1.2", torch, "torchvision"], check=True)
        write_bytes(done, b"")
    return python


if __name__ == "__main__":
    sys.exit(main())
