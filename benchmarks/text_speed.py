"""How fast texts are made: the whole loop in one file, against loops of torch and of Python around the same network.

    python benchmarks/text_speed.py

An LSTM of 2 layers of 256 units over 96 tokens, of random weights, makes 200 characters; two threads, one run. The
other loops make the very same texts: one of torch around torch.nn.LSTM, one of Python around a file that makes one
step, and this project's own loop in eager torch, whose step is written out in smaller operations. With the defaults
nothing has to be ranked, in no loop, and the bounds are for torch; with top_k = 40 and top_p = 0.95 there is more to do
around a step, and the bound is for Python. All other figures are printed beside. The random numbers of the first two
loops are drawn before the clock starts.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_onnx.convert import trace
from aigc_rnn.networks import MASKED, RecurrentNetwork
from aigc_rnn.sampler import BEGIN, END, SPECIAL, UNKNOWN, Choosing, choose
from aigc_sdk.generator import Generator, start_state
from aigc_sdk.training import Run
from aigc_sdk.training.random import Stream, uniform_at
from timing import Report, interleave, medians, stopwatch

TOKENS, STEPS = 96, 200
RUNS = {1: 31, 64: 9}
CHARACTERS = [chr(code) for code in range(0x21, 0x21 + TOKENS - SPECIAL)]

OPTIONS: dict[str, dict[str, Any]] = {"top 40, 0.95": {"top_k": (40,), "top_p": (0.95, np.float32)}, "plain": {}}
CODES = np.array([-1] * SPECIAL + [*map(ord, CHARACTERS)], np.int32)


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    report = Report("torch", "onnxruntime", "numpy")
    torch.set_num_threads(2)
    with TemporaryDirectory() as folder:
        run = untrained(Path(folder) / "run")
        network: Any = run.family().network
        same = run.exportable("generate").eager
        whole, library = session(run.models["generate"].read_bytes()), Library(network)
        stepwise = session(trace(Step(network), *Step.arrays(network), Step.outputs(network)).SerializeToString())
        for (what, options), (n, least) in itertools.product(OPTIONS.items(), ((1, 5.0), (64, 2.0))):
            seeds = lasting(same, run, options)[:n]
            fed = controls(run, n, STEPS) | {name: np.full(n, *value) for name, value in options.items()}
            u = uniform_at(torch.from_numpy(seeds), torch.arange(STEPS)[None], Stream.TOKEN)
            tensors = {name: torch.from_numpy(values) for name, values in fed.items()}
            made = whole.run(["content"], {"seed": seeds, **fed})[0]
            actions: dict[str, Callable[[], Any]] = {
                "file": partial(whole.run, ["content"], {"seed": seeds, **fed}),
                "torch.nn.LSTM": partial(eager, library, u, tensors),
                "one step": partial(stepped, stepwise, network, u.numpy(), fed),
                "own loop in torch": partial(same.run, seeds, fed),
            }
            for name in ("torch.nn.LSTM", "one step"):
                differing = float((actions[name]() != made).mean())
                report.at_most(f"{what}, N = {n}: {name}, share of other characters", differing, 0.01)
            times = medians(interleave({name: rested(action) for name, action in actions.items()}, RUNS[n]))
            report.figure(f"{what}, N = {n}: file", 1000 * times["file"], "ms")
            bounds = {"one step": 1.5} if options and n == 1 else {} if options else {"torch.nn.LSTM": least}
            for name in list(times)[1:]:
                ratio = times[name] / times["file"]
                if name in bounds:
                    report.at_least(f"{what}, N = {n}: {name} / the file", ratio, bounds[name], "x")
                else:
                    report.figure(f"{what}, N = {n}: {name} / the file", ratio, "x")
        first_chunk(report, run)
    return report.exit_code


def first_chunk(report: Report, run: Run) -> None:
    """Compare what a user waits for the first character of a stream with one bare run of the same file."""
    prompt = "".join(CHARACTERS[:10])
    bare = session(run.models["stream"].read_bytes())
    fed = {"seed": np.arange(1), **controls(run, 1, 1, prompt)} | start_state(sdk.load(run.models["stream"]).card, 1)
    with sdk.load(run.folder, task="stream") as model:

        def streamed() -> str:
            return next(model.stream(seed=7, prompt=prompt, chunk_size=1))

        times = medians(
            interleave({"stream": stopwatch(streamed), "bare": stopwatch(lambda: bare.run(None, fed))}, 100, warmups=5)
        )
    report.figure("one bare run of the stream's file, one character", 1000 * times["bare"], "ms")
    report.ratio("first chunk of a stream / one bare run", times, "stream", "bare", 3.0)


def rested(action: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that times the action when the threads of what ran before have gone to sleep."""
    timed = stopwatch(action)

    def run() -> float:
        time.sleep(0.05)
        return timed()

    return run


def untrained(folder: Path) -> Run:
    """Return a run of one step on random texts of all characters."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.permutation(CHARACTERS)) for _ in range(64)]
    return sdk.train(
        "rnn", texts, out=folder, steps=1, width=256, layers=2, max_length=STEPS, min_count=1, validation_fraction=0
    )


def session(data: bytes) -> ort.InferenceSession:
    """Load a file for two threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def lasting(model: Generator, run: Run, options: dict[str, Any]) -> NDArray[np.int64]:
    """Return seeds whose texts last: the end is as probable as any character to such a network."""
    fed = controls(run, 1500, STEPS) | {name: np.full(1500, *value) for name, value in options.items()}
    seeds = np.flatnonzero(model.run(np.arange(1500), fed)["length"] == STEPS)
    assert len(seeds) >= max(RUNS)
    return seeds


def controls(run: Run, n: int, steps: int, prompt: str = "") -> dict[str, NDArray[Any]]:
    """Return the controls of n items."""
    codes = np.array([[*map(ord, prompt)] or [-1]] * n, np.int32)
    fed = {"prompt": codes, "max_length": np.full(n, steps)}
    known = sdk.load(run.folder).card.controls
    return fed | {each.name: np.full(n, each.default, each.dtype) for each in known if each.name not in fed}


class Step(torch.nn.Module):
    """The network for one step, with its state as inputs and outputs."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, token: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits and the state."""
        state = self.network.split({"hidden": hidden, "cell": cell})
        logits, after = self.network.step(self.network.reader(None)(token[:, None]), state, torch.zeros(()))
        state = self.network.join(after)
        return logits, state["hidden"], state["cell"]

    @staticmethod
    def arrays(network: RecurrentNetwork) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return what it is traced with."""
        return {"token": torch.zeros(4, dtype=torch.int64), **network.start(4)}, {}

    @staticmethod
    def outputs(network: RecurrentNetwork) -> tuple[str, ...]:
        """Return the names of what it gives."""
        return ("logits", *(f"{name}.next" for name in network.start(1)))


class Library(Step):
    """The same by torch's own LSTM."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__(network)
        self.lstm = torch.nn.LSTM(network.width, network.width, len(network.layers), batch_first=True)
        for i, layer in enumerate(network.layers):
            for name, weights in layer.named_parameters():
                place, part = name.split("_")
                getattr(self.lstm, f"{place}_{'ih' if part == 'x' else 'hh'}_l{i}").data.copy_(weights)

    def forward(self, token: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits and the state, which here has the layer first."""
        x, (hidden, cell) = self.lstm(self.network.inputs(token[:, None], None), (hidden, cell))
        return self.network.output(x[:, 0]), hidden, cell


def eager(step: Library, u: torch.Tensor, fed: dict[str, torch.Tensor]) -> NDArray[Any]:
    """Make texts in a loop of torch."""
    network, n = step.network, len(u)
    with torch.inference_mode():
        token, tokens = torch.full((n,), BEGIN), torch.arange(TOKENS)
        hidden, cell = (part.transpose(0, 1).contiguous() for part in network.start(n).values())
        seen, barred = torch.zeros(n, TOKENS, dtype=torch.bool), torch.zeros(TOKENS)
        barred[[BEGIN, UNKNOWN]] = MASKED
        how = Choosing.of(fed, TOKENS)
        forced, given = torch.zeros(n, 1, dtype=torch.int64), torch.zeros(n)  # no prompt
        codes, done, made = torch.from_numpy(CODES), torch.zeros(n, dtype=torch.bool), []
        for t in range(STEPS):
            logits, hidden, cell = step(token, hidden, cell)
            token = choose(logits + barred, seen, u[:, t : t + 1], how)[:, 0]
            token = torch.where(t < given, forced[:, min(t, forced.shape[1] - 1)], token)
            seen |= tokens == token[:, None]
            done |= (token == END) | (t >= fed["max_length"])
            if done.all():
                break
            token = torch.where(done, BEGIN, token)
            made.append(codes[token])
        return torch.stack(made, 1).numpy()


def stepped(
    file: ort.InferenceSession, network: RecurrentNetwork, u: NDArray[np.float32], fed: dict[str, NDArray[Any]]
) -> NDArray[Any]:
    """Make texts in a loop of Python around a file that makes one step."""
    n, tokens = len(u), np.arange(TOKENS)
    token, seen = np.full(n, BEGIN), np.zeros((n, TOKENS), bool)
    hidden, cell = (part.numpy() for part in network.start(n).values())
    names = ("repetition_penalty", "temperature", "top_k", "top_p")
    penalty, temperature, top_k, top_p = (fed[name][:, None] for name in names)
    ranks = top_k.any() or (top_p < 1).any()
    forced, given, done = np.zeros((n, 1), np.int64), np.zeros(n), np.zeros(n, bool)  # no prompt
    made = []
    for t in range(STEPS):
        logits, hidden, cell = file.run(None, {"token": token, "hidden": hidden, "cell": cell})
        logits[:, [BEGIN, UNKNOWN]] = MASKED
        logits = np.where(seen, np.minimum(logits / penalty, logits * penalty), logits) / temperature
        shares = np.exp(logits - logits.max(1, keepdims=True))
        if ranks:
            best = -np.sort(-shares, 1)
            allowed = (tokens < top_k) | (top_k == 0)
            share = np.where(allowed, best, 0)
            share /= share.sum(1, keepdims=True)
            kept = allowed & (share.cumsum(1) - share < top_p)
            least = best[np.arange(n), kept.sum(1) - 1]
            shares = np.where(shares >= least[:, None], shares, 0)
        reached = shares.cumsum(1)
        token = (reached <= u[:, t : t + 1] * reached[:, -1:]).sum(1)
        token = np.where(t < given, forced[:, min(t, forced.shape[1] - 1)], token)
        seen |= tokens == token[:, None]
        done |= (token == END) | (t >= fed["max_length"])
        if done.all():
            break
        token = np.where(done, BEGIN, token)
        made.append(CODES[token])
    return np.stack(made, 1)


if __name__ == "__main__":
    sys.exit(main())
