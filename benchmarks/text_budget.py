"""Short trainings on a text of 1.1 MB: `rnn` with its default options against nanoGPT's recipe for a CPU.

    python benchmarks/text_budget.py [--seconds 75 300] [--seeds 3]

Both have as many CPU seconds of one thread, in turn, in processes of their own, and the same split: they train on what
`rnn` trains on and are judged by nats of a character of what it validates on. `rnn` is told `minutes` alone, and its
clock counts CPU seconds, reading, choosing its options and validating among them.

The recipe is that of nanoGPT's read-me for training on Shakespeare's characters without a GPU (Karpathy 2022): 4 layers
of 4 heads, 128 wide, blocks of 64, batches of 12, no dropout, no biases; AdamW of 1e-3 with betas 0.9 and 0.99, decay
0.1 of matrices, gradients of norm 1 at most, 100 steps of warm-up, then a cosine to 1e-4 over all steps. How many
steps the seconds hold is measured first, which does not count. It runs in float32, as nanoGPT does on a CPU, and where
`rnn` does in bfloat16 too, in the first of the budgets; the better one of both runs in the others. It reads what is
held out in blocks that overlap by half, and of each the second half counts, so that every character has 32 before it at
least; that is kinder to it than blocks side by side.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aigc_sdk as sdk
from aigc_rnn.config import RNNConfig
from aigc_sdk.training import loop, progress
from aigc_sdk.training.trainer import precision
from aigc_text.data import load_texts
from datasets import fetch
from timing import Report

CHARACTERS = 1_100_000
LEAST_GAINS = {75: 0.20, 300: 0.08}

LAYERS, HEADS, WIDTH, BLOCK, BATCH = 4, 4, 128, 64, 12
PEAK, LOWEST, DECAY, WARMUP, CLIP = 1e-3, 1e-4, 0.1, 100, 1.0
_TIMED_STEPS = 20


class Layer(nn.Module):
    """A pre-norm block of causal attention and a perceptron (Radford et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out, self.down = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Read (n, t, width)."""
        n, t, _ = x.shape
        q, k, v = (part.view(n, t, HEADS, -1).transpose(1, 2) for part in self.qkv(self.before(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, WIDTH))
        return x + self.down(F.gelu(self.up(self.between(x))))


class GPT(nn.Module):
    """Logits of the next character, (n, t, characters), of characters int64 (n, t)."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(characters, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.layers, self.norm = nn.Sequential(*(Layer() for _ in range(LAYERS))), nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                is_residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if is_residual else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict what comes after each."""
        x = self.token(tokens) + self.place.weight[: tokens.shape[1]]
        return F.linear(self.norm(self.layers(x)), self.token.weight)


def run_gpt(text: Path, seconds: float, seed: int, *, mixed: bool) -> dict[str, Any]:
    """Train by the recipe for so many CPU seconds; return the nats of what is held out, and the steps."""
    train, held_out, characters = parts(text)
    torch.manual_seed(seed)
    step_s = _train(GPT(characters), train, _TIMED_STEPS + 5, mixed=mixed, timed=True)
    steps = max(1, int(seconds / step_s))
    torch.manual_seed(seed)
    model = GPT(characters)
    begun = time.process_time()
    _train(model, train, steps, mixed=mixed)
    spent = time.process_time() - begun
    return {"nats": _nats(model.eval(), held_out), "steps": steps, "seconds": spent}


def parts(text: Path) -> tuple[Tensor, Tensor, int]:
    """Return what `rnn` trains and validates on, as numbers of characters, and how many of them there are."""
    data = load_texts(text)
    defaults = RNNConfig()
    split = data.split(defaults.validation_fraction, defaults.test_fraction)
    codes = torch.from_numpy(data.codes.astype("int64"))
    known, tokens = torch.unique(codes, return_inverse=True)
    begin, end = (int(data.starts[row]) for row in (split["validation"][0], split["validation"][-1] + 1))
    return tokens[:begin], tokens[begin:end], len(known)


def _train(model: GPT, train: Tensor, steps: int, *, mixed: bool, timed: bool = False) -> float:
    """Make the steps; return the CPU seconds of one, without the first five where that is what it is for."""
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if weight.ndim != 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99), fused=True)
    warmup = min(WARMUP, steps // 10)
    begun = time.process_time()
    for step in range(steps):
        if timed and step == 5:
            begun = time.process_time()
        share = (step - warmup) / max(1, steps - warmup)
        rate = PEAK * (step + 1) / (warmup + 1) if step < warmup else LOWEST + (PEAK - LOWEST) * _half_cosine(share)
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = torch.randint(len(train) - BLOCK - 1, (BATCH, 1)) + torch.arange(BLOCK + 1)
        block = train[at]
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = model(block[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), block[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
    return (time.process_time() - begun) / (steps - 5 if timed else steps)


def _half_cosine(share: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * share)


@torch.inference_mode()
def _nats(model: GPT, text: Tensor) -> float:
    half = BLOCK // 2
    blocks = text.unfold(0, BLOCK + 1, half)
    nats = torch.cat(
        [
            F.cross_entropy(model(each[:, :-1]).transpose(1, 2), each[:, 1:], reduction="none")[:, half:]
            for each in blocks.split(64)
        ]
    )
    return nats.double().mean().item()


def run_rnn(text: Path, seconds: float, seed: int, init: str | None = None) -> dict[str, Any]:
    """Train `rnn` without an option, from `init`, for so many CPU seconds; return nats, steps and what was chosen."""
    progress.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]  # CPU seconds are minutes
    loop._export_all = lambda *_: None  # type: ignore[assignment]  # the model files come after the minutes
    with TemporaryDirectory() as folder:
        begun = time.process_time()
        run = sdk.train("rnn", text, out=Path(folder) / "run", seed=seed, init=init, minutes=seconds / 60)
        spent = time.process_time() - begun
        last = [line for line in run.metrics if "validation" in line][-1]
    chosen = {name: run.record.config[name] for name in ("width", "batch_size", "span")}
    return {"nats": last["validation"]["nats_per_character"], "steps": last["step"], "seconds": spent, **chosen}


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, nargs="+", default=[*LEAST_GAINS], help="CPU seconds of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # what, text, seconds, seed: in a process of its own
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        what, text, seconds, seed = arguments.one
        given = Path(text), float(seconds), int(seed)
        family, _, init = what.partition(" from ")
        made = run_rnn(*given, init or None) if family == "rnn" else run_gpt(*given, mixed=what.endswith("bfloat16"))
        print(json.dumps(made))
        return 0
    report = Report("aigc-sdk", "torch")
    kinds = ["rnn", "nanoGPT float32"] + ["nanoGPT bfloat16"] * (precision("auto") == "bf16-mixed")
    print(f"rnn computes in {precision('auto')}")
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(fetch("shakespeare").read_text(encoding="utf-8")[:CHARACTERS], encoding="utf-8")
        for seconds in arguments.seconds:
            for seed in range(arguments.seeds):
                for kind in kinds if seed % 2 == 0 else reversed(kinds):
                    rows.append({"kind": kind, "budget": seconds, "seed": seed, **one(kind, text, seconds, seed)})
                    told = ", ".join(f"{name} {value}" for name, value in rows[-1].items() if name != "nats")
                    report.figure(told, rows[-1]["nats"], "nats")
            _judge(report, rows, seconds)
            better = min(kinds[1:], key=lambda kind: mean(row["nats"] for row in rows if row["kind"] == kind))
            kinds = ["rnn", better]
    return report.exit_code


def one(kind: str, text: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Train in a process of its own and return its figures; the kind is a peer, "rnn", or "rnn from NAME"."""
    command = [sys.executable, __file__, "--one", kind, str(text), str(seconds), str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def _judge(report: Report, rows: list[dict[str, Any]], seconds: int) -> None:
    """Print the means over the seeds, and how far apart they are."""
    nats: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["budget"] == seconds:
            nats.setdefault(row["kind"], {})[row["seed"]] = row["nats"]
    for kind, by_seed in nats.items():
        report.figure(f"{seconds} CPU s: {kind}, nats of a character", mean(by_seed.values()))
    peers = [by_seed for kind, by_seed in nats.items() if kind != "rnn"]
    gain = min(mean(peer.values()) for peer in peers) - mean(nats["rnn"].values())
    if seconds in LEAST_GAINS:
        report.at_least(f"{seconds} CPU s: nats of rnn below nanoGPT's", gain, LEAST_GAINS[seconds])
    else:
        report.figure(f"{seconds} CPU s: nats of rnn below nanoGPT's", gain)


if __name__ == "__main__":
    sys.exit(main())
