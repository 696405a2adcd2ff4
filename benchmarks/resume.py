"""Whether a training that is killed at random moments ends in the weights of one that nothing interrupted.

    python benchmarks/resume.py [--family vae|gan] [--kills 12] [--steps 300] [--seed 0]

Each training runs in a process of its own, on scikit-learn's digits, with augmentation, equal classes and the best
weights kept, so that everything with a state has one; the VAE with early stopping, the GAN with spectral normalisation
and adaptive DiffAugment too. One runs undisturbed. Each of the others is killed three times with SIGKILL and resumed.

A kill comes when a step drawn evenly from all steps was reached, and then a part of a second drawn evenly, so that a
busy machine changes nothing of where the kills fall. Checkpoints are written every fifth of a second, so that kills hit
writes too. Of a GAN's kills, the first of each run and every second one after it fall between the discriminator's
learning and the generator's: in the drawn step, or the first one made if that is over, the process kills itself. The
last run is killed at the end of its steps and in its export as well, and then goes on to its model files; the others
end with the last checkpoint, which holds the final weights.

Compared are all tensors of the last checkpoint: the averaged weights and the trained ones, with all buffers, each
optimizer's state, and torch's random numbers; the metrics; and the models.
"""

import argparse
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import onnx
from safetensors.numpy import load_file

from aigc_sdk.errors import TrainingFailed
from aigc_sdk.runtime.safety import graph_sha256
from aigc_sdk.training import Run
from aigc_sdk.training.checkpoint import CHECKPOINT, load_checkpoint
from aigc_sdk.training.run import METRICS
from datasets import fetch
from timing import Report

KILLS_PER_RUN = 3
LOG_STEPS = 10

COMMON = {
    "epochs": "null",
    "latent": 8,
    "batch_size": 32,
    "log_steps": LOG_STEPS,
    "checkpoint_minutes": 1 / 300,
    "augment": "shift",
    "balance_classes": "true",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "vae": {"width": 16, "blocks": 1, "early_stop_epochs": 100, "binarize": "true"},
    # The networks whose normalisation keeps vectors from step to step; the share of varied images adapts if left out.
    "gan": {"network": "resnet", "width": 8, "diffaugment": '["color", "translation", "cutout"]'},
}

PROGRAM = "from aigc_sdk.cli import main; main()"


def die_between_sides(step: int) -> None:
    """Make this process kill itself in that step of a GAN or a later one, when the discriminator has learned."""
    from aigc_gan.family import GAN

    training_step = GAN.training_step

    def dying(self: GAN, batch: Any, phase: str, made: int, carry: Any) -> Any:
        if phase == "generator" and made >= step:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, batch, phase, made, carry)

    GAN.training_step = dying  # type: ignore[assignment]  # a kill from outside would not come at this very moment


@dataclass(frozen=True)
class Training:
    """A training that is begun, killed and resumed.

    Attributes:
        family: of the model.
        steps: in all.
        out: the run folder.
    """

    family: str
    steps: int
    out: Path

    def command(self, program: str) -> list[str]:
        """Return the command that trains, or goes on training."""
        options = COMMON | OPTIONS[self.family] | {"steps": self.steps}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        arguments = ["train", self.family, str(fetch("digits-8x8")), "--out", str(self.out), "--resume", *flags]
        return [sys.executable, "-c", program, *arguments]

    def train(self, is_time: Callable[[], bool] = lambda: False, *, program: str = PROGRAM) -> bool:
        """Train, and kill the process as soon as it is time; return whether it was killed before its end."""
        with (
            TemporaryFile("w+") as words,
            subprocess.Popen(self.command(program), stderr=words, stdout=subprocess.DEVNULL) as process,
        ):
            while process.poll() is None:
                if is_time():
                    process.kill()
                time.sleep(0.01)
            if process.returncode not in (0, -signal.SIGKILL):
                words.seek(0)
                raise SystemExit(f"The training failed:\n{words.read()}")
        return process.returncode != 0

    def kill(self, is_time: Callable[[], bool], moment: str) -> int:
        """Train until it is time, kill, and say what that left; return 1, or 0 when the training ended before."""
        return self._report(self.train(is_time), moment)

    def kill_between_sides(self, step: int) -> int:
        """Train until the discriminator has learned in that step, kill, and return as `kill` does."""
        find = f"import sys; sys.path.append({str(Path(__file__).parent)!r})"
        program = f"{find}; from resume import die_between_sides; die_between_sides({step}); {PROGRAM}"
        return self._report(self.train(program=program), f"between both sides, from step {step} on")

    def _report(self, killed: bool, moment: str) -> int:
        out = self.out
        kept = load_checkpoint(out)["clock"]["step"] if (out / CHECKPOINT).exists() else "none"
        halves = len(list(out.rglob("*.tmp")))
        left = f"metrics to step {last_step(out)}, checkpoint of {kept}, {halves} half-written files"
        print(f"{out.name} {'killed' if killed else 'ended before'} {moment}: {left}", flush=True)
        return int(killed)


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
    try:
        return (out / CHECKPOINT).exists() and bool(load_checkpoint(out)["finished"])
    except TrainingFailed:  # replaced by the next checkpoint while it was read
        return False


def found(out: Path) -> dict[str, str]:
    """Return the sha256 of each part of the last checkpoint, of the metrics without times, and of the models."""
    tensors = load_file(out / CHECKPOINT)
    parts: dict[str, Any] = defaultdict(hashlib.sha256)
    for name in sorted(tensors):
        kind, _, rest = name.partition(".")
        part = f"optimizer {rest.partition('.')[0]}" if kind == "optimizers" else kind
        parts[part].update(name.encode() + tensors[name].tobytes())
    run = Run.open(out)
    lines = [{k: v for k, v in line.items() if k not in ("minutes", "items_per_s")} for line in run.metrics]
    digests = {part: digest.hexdigest() for part, digest in parts.items()}
    digests["metrics"] = hashlib.sha256(repr(lines).encode()).hexdigest()
    return digests | {f"model {task}": graph_sha256(onnx.load(path)) for task, path in run.models.items()}


def disturb(training: Training, moments: random.Random) -> tuple[int, int]:
    """Kill a training at drawn moments; return how many kills there were, and how many of them between two sides."""
    kills = between = 0
    for number, step in enumerate(sorted(moments.randrange(training.steps) for _ in range(KILLS_PER_RUN))):
        delay_s = moments.uniform(0, 0.5)
        if training.family == "gan" and number % 2 == 0:
            between += training.kill_between_sides(step)
        else:
            kills += training.kill(has_reached(training.out, step, delay_s), f"after step {step}")
    return kills + between, between


def finish(training: Training, *, with_models: bool) -> int:
    """Let a training come to its end; return how many kills there were on its way through the export."""
    out = training.out
    if not with_models:
        training.train(partial(is_finished, out))
        return 0
    kills = training.kill(partial(is_finished, out), "at the end of its steps")
    kills += training.kill(partial(has_model, out), "at its first model file")
    training.train()
    return kills


def main() -> int:
    """Train, kill, resume, compare; return 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=OPTIONS, default="vae")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    report = Report("aigc-sdk", "torch", "lightning-fabric")
    moments = random.Random(arguments.seed)
    with TemporaryDirectory() as folder:
        whole = Training(arguments.family, arguments.steps, Path(folder, "whole"))
        whole.train()
        wanted = found(whole.out)
        for name, sha256 in wanted.items():
            print(f"uninterrupted: {name:24} {sha256}", flush=True)
        runs = math.ceil(arguments.kills / KILLS_PER_RUN)
        kills = between = different = 0
        for number in range(runs):
            training = replace(whole, out=Path(folder, f"run-{number}"))
            drawn, of_them_between = disturb(training, moments)
            with_models = number == runs - 1
            kills += drawn + finish(training, with_models=with_models)
            between += of_them_between
            result = found(training.out)
            expected = [name for name in wanted if with_models or not name.startswith("model ")]
            missed = [name for name in expected if result.get(name) != wanted[name]]
            different += bool(missed)
            verdict = f"differs: {', '.join(missed)}" if missed else "the same"
            print(f"{training.out.name} goes on to the end: {verdict}", flush=True)
        report.figure("kills", kills)
        if arguments.family == "gan":
            report.at_least("kills between the two sides of a step", between, runs)
        report.at_most("runs in which anything differs", different, 0)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
