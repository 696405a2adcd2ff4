"""Whether a training that is killed at random moments ends in the weights of one that nothing interrupted.

    python benchmarks/resume.py [--kills 12] [--steps 1000] [--seed 0]

Each training runs in a process of its own, on scikit-learn's digits, with augmentation, equal classes and early
stopping, so that everything with a state has one. One runs undisturbed. Each of the others is killed three times with
SIGKILL and resumed: twice at moments drawn evenly from the first half of what the undisturbed one took to train, import
of torch included, and once from all of it. Checkpoints are written every fifth of a second, so that kills hit writes
too. The last run is killed in its export as well, and then goes on to its model files; the others end with the last
checkpoint, which holds the final weights.
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
from tempfile import TemporaryDirectory, TemporaryFile

import onnx
from safetensors.numpy import load_file

from aigc_sdk.runtime.safety import graph_sha256
from aigc_sdk.training import Run
from aigc_sdk.training.checkpoint import CHECKPOINT, load_checkpoint
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


def train(out: Path, steps: int, kill_after_s: float = math.inf, *, export: bool = True) -> bool:
    """Train, and kill the process after so many seconds, or when only the export is left; return whether it was."""
    begun = time.monotonic()
    with (
        TemporaryFile("w+") as words,
        subprocess.Popen(command(out, steps), stderr=words, stdout=subprocess.DEVNULL) as process,
    ):
        while process.poll() is None:
            if time.monotonic() - begun >= kill_after_s or (not export and is_finished(out)):
                process.kill()
            time.sleep(0.05)
        if process.returncode not in (0, -signal.SIGKILL):
            words.seek(0)
            raise SystemExit(f"The training failed:\n{words.read()}")
    return process.returncode != 0


def is_finished(out: Path) -> bool:
    """Tell whether all steps are made."""
    return (out / CHECKPOINT).exists() and bool(load_checkpoint(out)["finished"])


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
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch", "lightning-fabric")
    moments = random.Random(arguments.seed)
    with TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        begun = time.time()
        train(whole, arguments.steps)
        training_s = (whole / CHECKPOINT).stat().st_mtime - begun
        wanted = found(whole)
        for name, sha256 in wanted.items():
            print(f"uninterrupted: {name:24} {sha256}")
        report.figure("an uninterrupted training", training_s, "s")
        report.figure("its export", time.time() - begun - training_s, "s")
        runs = math.ceil(arguments.kills / KILLS_PER_RUN)
        kills = different = 0
        for number in range(runs):
            out = Path(folder, f"run-{number}")
            kills += kill_often(out, arguments.steps, training_s, moments)
            is_last = number == runs - 1
            if is_last:
                kills += train(out, arguments.steps, export=False) + train(out, arguments.steps, moments.uniform(3, 20))
            train(out, arguments.steps, export=is_last)
            missed = [name for name, sha256 in found(out).items() if wanted[name] != sha256]
            different += bool(missed)
            print(
                f"run {number}: goes on to the end; {'differs: ' + ', '.join(missed) if missed else 'the same'}",
                flush=True,
            )
        report.figure("kills", kills)
        report.at_most("runs whose weights, metrics or models differ", different, 0)
    return report.exit_code


def kill_often(out: Path, steps: int, training_s: float, moments: random.Random) -> int:
    """Kill a training and resume it until it was killed three times on its way; return three."""
    hits = 0
    while hits < KILLS_PER_RUN:
        after_s = moments.uniform(0, training_s * (0.5 if hits < KILLS_PER_RUN - 1 else 1))
        killed = train(out, steps, after_s)
        hits = hits + 1 if killed else 0
        what = f"killed after {after_s:.2f} s" if killed else "finished before the kill, so begun anew"
        print(f"{out.name}: {what}; {_state(out)}", flush=True)
        if not killed:
            shutil.rmtree(out)
    return hits


def _state(out: Path) -> str:
    """Say what the kill left."""
    if not (out / "run.json").exists():
        return "nothing written yet"
    kept = load_checkpoint(out)["clock"]["step"] if (out / CHECKPOINT).exists() else "none"
    return f"checkpoint of step {kept}, {len(list(out.rglob('*.tmp')))} half-written files"


if __name__ == "__main__":
    sys.exit(main())
