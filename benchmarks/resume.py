"""Whether a training that is killed at random moments ends in the weights of one that nothing interrupted.

    python benchmarks/resume.py [--kills 12] [--steps 400] [--seed 0]

Each training runs in a process of its own, on scikit-learn's digits, with augmentation, equal classes and early
stopping, so that everything with a state has one. One runs undisturbed. Each of the others is killed three times with
SIGKILL, each time at a moment drawn evenly from none to half of the time that the first took from the import of torch
to the end of the export, and resumed. Checkpoints are written every fifth of a second, so that kills hit writes too.
"""

import argparse
import hashlib
import math
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from safetensors.numpy import load_file

from aigc_sdk.runtime.safety import graph_sha256
from aigc_sdk.training import Run
from datasets import fetch
from timing import Report

KILLS_PER_RUN = 3

OPTIONS = {
    "latent": 8,
    "width": 16,
    "blocks": 1,
    "batch_size": 32,
    "log_steps": 20,
    "checkpoint_minutes": 1 / 300,
    "early_stop_epochs": 100,
    "augment": "shift",
    "balance_classes": "true",
    "binarize": "true",
}


def command(out: Path, steps: int) -> list[str]:
    """Return the command that trains, or goes on training."""
    options = OPTIONS | {"steps": steps, "epochs": "null"}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    program = "from aigc_sdk.cli import main; main()"
    return [
        sys.executable,
        "-c",
        program,
        "train",
        "vae",
        str(fetch("digits-8x8")),
        "--out",
        str(out),
        "--resume",
        *flags,
    ]


def train(out: Path, steps: int, kill_after_s: float | None = None) -> bool:
    """Train, and kill the process after so many seconds; return whether it was killed."""
    with subprocess.Popen(command(out, steps), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            _, words = process.communicate(timeout=kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            _, words = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"The training failed:\n{words}")
    return process.returncode != 0


def found(out: Path) -> dict[str, str]:
    """Return the sha256 of the weights, averaged and trained, of the metrics without times, and of the models."""
    tensors = load_file(out / "checkpoint.safetensors")
    digests = {}
    for kind in ("ema", "trained"):
        digest = hashlib.sha256()
        for name in sorted(name for name in tensors if name.startswith(f"{kind}.")):
            digest.update(name.encode() + tensors[name].tobytes())
        digests[f"{kind} weights"] = digest.hexdigest()
    run = Run.open(out)
    lines = [{k: v for k, v in line.items() if k not in ("minutes", "items_per_s")} for line in run.metrics]
    digests["metrics"] = hashlib.sha256(repr(lines).encode()).hexdigest()
    return digests | {f"model {task}": graph_sha256(onnx.load(path)) for task, path in run.models.items()}


def main() -> int:
    """Train, kill, resume, compare; return 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch", "lightning-fabric")
    moments = random.Random(arguments.seed)
    with TemporaryDirectory() as folder:
        begun = time.monotonic()
        train(Path(folder, "whole"), arguments.steps)
        duration_s = time.monotonic() - begun
        wanted = found(Path(folder, "whole"))
        for name, sha256 in wanted.items():
            print(f"uninterrupted: {name:24} {sha256}")
        report.figure("an uninterrupted training with its export", duration_s, "s")
        kills = different = 0
        for number in range(math.ceil(arguments.kills / KILLS_PER_RUN)):
            out, hits = Path(folder, f"run-{number}"), 0
            while hits < KILLS_PER_RUN:
                after_s = moments.uniform(0, duration_s / 2)
                killed = train(out, arguments.steps, after_s)
                hits += killed
                what = f"killed after {after_s:.2f} s" if killed else "finished before the kill, so begun anew"
                print(f"run {number}: {what}; {_state(out)}", flush=True)
                if not killed:
                    shutil.rmtree(out)
                    hits = 0
            kills += hits
            train(out, arguments.steps)
            missed = [name for name, sha256 in found(out).items() if wanted[name] != sha256]
            different += bool(missed)
            print(
                f"run {number}: resumed to the end; {'differs in ' + ', '.join(missed) if missed else 'the same'}",
                flush=True,
            )
        report.figure("kills", kills)
        report.at_most("runs whose weights, metrics or models differ", different, 0)
    return report.exit_code


def _state(out: Path) -> str:
    """Say what the kill left."""
    if not (out / "run.json").exists():
        return "nothing written yet"
    steps = [line["step"] for line in Run.open(out).metrics]
    models = len(list(out.glob("*.onnx")))
    left = len(list(out.rglob("*.tmp")))
    return f"at step {max(steps, default=0)} or later, {models} model files, {left} half-written files"


if __name__ == "__main__":
    sys.exit(main())
