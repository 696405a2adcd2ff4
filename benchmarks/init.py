"""A training that starts from a ready-made model against one from nothing: Jane Austen's novels, `rnn`.

    python benchmarks/init.py [--minutes 10 5] [--seeds 1]

Both have no option but how long they may take, of one thread and in CPU seconds, so that what else the machine does
costs nothing: 10 minutes from nothing, and 5 from `shakespeare`, whose network is then taken too. They are judged by
the nats of a character of what both hold out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import aigc_sdk as sdk
from datasets import fetch
from timing import Report

MODEL = "shakespeare"


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", nargs=2, type=float, default=[10, 5], help="from nothing, and from the model")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # init, minutes, seed: in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        init, minutes, seed = arguments.one
        print(json.dumps(trained(init or None, float(minutes), int(seed))))
        return 0
    report, rows = Report("aigc-sdk", "torch"), list[dict[str, Any]]()
    for seed in range(arguments.seeds):
        for init, minutes in zip(("", MODEL), arguments.minutes, strict=True):
            rows.append({"init": init, "minutes": minutes, "seed": seed, **_one(init, minutes, seed)})
            told = ", ".join(f"{name} {value}" for name, value in rows[-1].items() if name != "nats")
            report.figure(told, rows[-1]["nats"], "nats")
    nothing, begun = (mean(row["nats"] for row in rows if row["init"] == init) for init in ("", MODEL))
    report.figure(f"{arguments.minutes[0]:g} CPU minutes from nothing: nats of a character", nothing)
    report.at_most(f"{arguments.minutes[1]:g} CPU minutes from {MODEL}: the same", begun, nothing)
    return report.exit_code


def _one(init: str, minutes: float, seed: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", init, str(minutes), str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def trained(init: str | None, minutes: float, seed: int) -> dict[str, Any]:
    """Train for so many CPU minutes; return the nats of what is held out, the steps and the network."""
    import torch

    from aigc_sdk.training import loop, progress

    torch.set_num_threads(1)
    progress.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]  # CPU seconds are minutes
    loop._export_all = lambda *_: None  # type: ignore[assignment]  # the model files come after the minutes
    with TemporaryDirectory() as folder:
        begun = time.process_time()
        run = sdk.train("rnn", fetch("austen"), out=Path(folder) / "run", seed=seed, init=init, minutes=minutes)
        spent = time.process_time() - begun
        last = [line for line in run.metrics if "validation" in line][-1]
    chosen = {name: run.record.config[name] for name in ("width", "batch_size", "span")}
    return {"nats": last["validation"]["nats_per_character"], "steps": last["step"], "seconds": spent, **chosen}


if __name__ == "__main__":
    sys.exit(main())
