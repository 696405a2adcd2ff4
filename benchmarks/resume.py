"""Whether a training that is killed at random moments ends in the weights of one that nothing interrupted.

    python benchmarks/resume.py [--kills 12] [--steps 300] [--seed 0]

Each training runs in a process of its own, on scikit-learn's digits, with augmentation, equal classes and early
stopping, so that everything with a state has one. One runs undisturbed. Each of the others is killed three times with
SIGKILL and resumed. A kill comes when a step drawn evenly from all steps was reached, and then a part of a second drawn
evenly, so that a busy machine changes nothing of where the kills fall. Checkpoints are written every fifth of a second,
so that kills hit writes too. The last run is killed at the end of its steps and in its export as well, and then goes on
to its model files; the others end with the last checkpoint, which holds the final weights.
"""

import argparse
import hashlib
import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import onnx
from safetensors.numpy import load_file

from aigc_sdk.runtime.safety import graph_sha256
from aigc_sdk.training import Run
from aigc_sdk.training.checkpoint import CHECKPOINT, load_checkpoint
from aigc_sdk.training.run import METRICS
from datasets import fetch
from timing import Report

KILLS_PER_RUN = 3
LOG_STEPS = 10

OPTIONS = {
    "latent": 8,
    "width": 16,
    "blocks": 1,
    "batch_size": 32,
    "log_steps": LOG_STEPS,
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


def train(out: Path, steps: int, is_time: Callable[[], bool] = lambda: False) -> bool:
    """Train, and kill the process as soon as it is time; return whether it was killed before its end."""
    with (
        TemporaryFile("w+") as words,
        subprocess.Popen(command(out, steps), stderr=words, stdout=subprocess.DEVNULL) as process,
    ):
        while process.poll() is None:
            if is_time():
                process.kill()
            time.sleep(0.01)
        if process.returncode not in (0, -signal.SIGKILL):
            words.seek(0)
            raise SystemExit(f"The training failed:\n{words.read()}")
    return process.returncode != 0


def has_model(out: Path) -> bool:
    """Tell whether the export is under way and has written a file."""
    return any(out.glob("*.onnx"))


def has_reached(out: Path, step: int, delay_s: float) -> Callable[[], bool]:
    """Return a function that tells whether the step was reached so many seconds ago."""
    reached: list[float] = []

    def is_time() -> bool:
        if not reached and (step < LOG_STEPS or last_step(out) >= step):
            reached.append(time.monotonic())
        return bool(reached) and time.monotonic() - reached[0] >= delay_s

    return is_time


def last_step(out: Path) -> int:
    """Return the step of the last whole line of metrics, 0 when there is none."""
    lines = (out / METRICS).read_text().splitlines(keepends=True) if (out / METRICS).exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


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
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch", "lightning-fabric")
    moments = random.Random(arguments.seed)
    steps = arguments.steps
    with TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        train(whole, steps)
        wanted = found(whole)
        for name, sha256 in wanted.items():
            print(f"uninterrupted: {name:24} {sha256}", flush=True)
        runs = math.ceil(arguments.kills / KILLS_PER_RUN)
        kills = different = 0
        for number in range(runs):
            out = Path(folder, f"run-{number}")
            for step in sorted(moments.randrange(steps) for _ in range(KILLS_PER_RUN)):
                kills += kill(out, steps, has_reached(out, step, moments.uniform(0, 0.5)), f"after step {step}")
            if number == runs - 1:
                kills += kill(out, steps, partial(is_finished, out), "at the end of its steps")
                kills += kill(out, steps, partial(has_model, out), "at its first model file")
                train(out, steps)
            else:
                train(out, steps, partial(is_finished, out))
            missed = [name for name, sha256 in found(out).items() if wanted[name] != sha256]
            different += bool(missed)
            verdict = f"differs: {', '.join(missed)}" if missed else "the same"
            print(f"{out.name} goes on to the end: {verdict}", flush=True)
        report.figure("kills", kills)
        report.at_most("runs whose weights, metrics or models differ", different, 0)
    return report.exit_code


def kill(out: Path, steps: int, is_time: Callable[[], bool], moment: str) -> int:
    """Train until it is time, kill, and say what that left; return 1, or 0 when the training ended before."""
    killed = train(out, steps, is_time)
    kept = load_checkpoint(out)["clock"]["step"] if (out / CHECKPOINT).exists() else "none"
    left = f"metrics to step {last_step(out)}, checkpoint of {kept}, {len(list(out.rglob('*.tmp')))} half-written files"
    print(f"{out.name} {'killed' if killed else 'ended before'} {moment}: {left}", flush=True)
    return int(killed)


if __name__ == "__main__":
    sys.exit(main())
