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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_onnx.convert import trace
from aigc_rnn.networks import MASKED, RecurrentNetwork
from aigc_rnn.sampler import BEGIN, END, SPECIAL, UNKNOWN, Choosing, choose
from aigc_sdk.generator import start_state
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.training import Run
from aigc_sdk.training.random import Stream, uniform_at
from timing import Report, interleave, medians, stopwatch

TOKENS, STEPS = 96, 200
RUNS = {1: 31, 64: 21}

# Of 64 items one may go its own way from some step on, where a rounding decides which token is the last of top_k.
DIFFERING = 1 / 64

CHARACTERS = [chr(code) for code in range(0x21, 0x21 + TOKENS - SPECIAL)]

OPTIONS: dict[str, dict[str, Any]] = {"top 40, 0.95": {"top_k": (40,), "top_p": (0.95, np.float32)}, "plain": {}}

Array = NDArray[Any]


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    report = Report("torch", "onnxruntime", "numpy")
    with TemporaryDirectory() as folder:
        run = untrained(Path(folder) / "run")
        compare(report, run, Characters)
        first_chunk(report, run, "".join(CHARACTERS[:10]), [*map(ord, CHARACTERS[:10])])
    return report.exit_code


class Reader(Protocol):
    """What a loop outside of the graph keeps of the items that it makes; arrays are numpy's."""

    def told(self) -> dict[str, Array]:
        """Return what a step takes besides token and state."""

    def barred(self) -> Array:
        """Return the tokens that are not made, bool (tokens,) or (n, tokens)."""

    def read(self, token: Array) -> None:
        """Go on by a token of each item, int64 (n,); BEGIN behind the end."""

    def content(self) -> Array:
        """Return what a model's file does."""


class Characters:
    """Keeps texts."""

    def __init__(self, family: Any, fed: dict[str, Array]) -> None:  # noqa: ARG002 - a text does not need its controls
        self._codes = np.array([-1] * SPECIAL + family.codes.tolist(), np.int32)
        self._barred = np.isin(np.arange(len(self._codes)), (BEGIN, UNKNOWN))
        self._made = list[Array]()

    def told(self) -> dict[str, Array]:
        """Return nothing."""
        return {}

    def barred(self) -> Array:
        """Return what stands for no character."""
        return self._barred

    def read(self, token: Array) -> None:
        """Keep a character of each text."""
        self._made.append(self._codes[token])

    def content(self) -> Array:
        """Return code points, int32 (n, t)."""
        return np.stack(self._made, 1)


def compare(report: Report, run: Run, reader: Callable[[Any, dict[str, Array]], Reader]) -> None:
    """Compare the loop in the file of a run with the others, each with a new reader of the family and the controls."""
    torch.set_num_threads(2)
    family = run.family()
    network: Any = family.network
    same = run.exportable("generate").eager
    whole, library = session(run.models["generate"].read_bytes()), Library(network)
    told = tensors(reader(family, controls(run, 4, STEPS)).told())
    arrays = {"token": torch.zeros(4, dtype=torch.int64), **network.start(4), **told}
    stepwise = session(trace(Step(network), arrays, {}, ("logits", "hidden.next", "cell.next")).SerializeToString())
    for (what, options), (n, least) in itertools.product(OPTIONS.items(), ((1, 5.0), (64, 2.0))):
        seeds, fed = lasting(run, options, n)
        u = uniform_at(torch.from_numpy(seeds), torch.arange(STEPS)[None], Stream.TOKEN)
        made = whole.run(["content"], {"seed": seeds, **fed})[0]
        actions: dict[str, Callable[[], Any]] = {
            "file": partial(whole.run, ["content"], {"seed": seeds, **fed}),
            "torch.nn.LSTM": lambda u=u, fed=fed: eager(library, reader(family, fed), u, fed),
            "one step": lambda u=u, fed=fed: stepped(stepwise, network, reader(family, fed), u.numpy(), fed),
            "own loop in torch": partial(same.run, seeds, fed),
        }
        for name in ("torch.nn.LSTM", "one step"):
            differing = (actions[name]() != made).reshape(n, STEPS, -1).any(2).mean()
            report.at_most(f"{what}, N = {n}: {name}, share of places that differ", float(differing), DIFFERING)
        times = medians(interleave({name: rested(action) for name, action in actions.items()}, RUNS[n]))
        report.figure(f"{what}, N = {n}: file", 1000 * times["file"], "ms")
        bounds = {"one step": 1.5} if options and n == 1 else {} if options else {"torch.nn.LSTM": least}
        for name in list(times)[1:]:
            ratio = times[name] / times["file"]
            if name in bounds:
                report.at_least(f"{what}, N = {n}: {name} / the file", ratio, bounds[name], "x")
            else:
                report.figure(f"{what}, N = {n}: {name} / the file", ratio, "x")


def first_chunk(report: Report, run: Run, prompt: str, codes: list[int]) -> None:
    """Compare what a user waits for the first part of a stream with one bare run of the same file, with one prompt."""
    bare, file = session(run.models["stream"].read_bytes()), OnnxGenerator.open(run.models["stream"])
    # The first event of a piece of music need not be a note.
    seed = int(np.argmax(file.run(np.arange(100), controls(run, 100, 1, codes))["length"] > 0))
    fed = {"seed": np.array([seed]), **controls(run, 1, 1, codes)} | start_state(file.card, 1)
    with sdk.load(run.folder, task="stream") as model:

        def streamed() -> Any:
            return next(model.stream(seed=seed, prompt=prompt, chunk_size=1))

        times = medians(
            interleave({"stream": stopwatch(streamed), "bare": stopwatch(lambda: bare.run(None, fed))}, 100, warmups=5)
        )
    report.figure("one bare run of the stream's file, one step", 1000 * times["bare"], "ms")
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


def lasting(run: Run, options: dict[str, Any], n: int) -> tuple[NDArray[np.int64], dict[str, Array]]:
    """Return seeds and controls of items that last: the end is as probable as anything to such a network."""
    fed = controls(run, 1500, STEPS) | {name: np.full(1500, *value) for name, value in options.items()}
    ended = OnnxGenerator.open(run.models["stream"]).run(np.arange(1500), fed)["finished"]
    rows = np.flatnonzero(~ended)[:n]
    assert len(rows) == n
    return rows, {name: values[rows] for name, values in fed.items()}


def controls(run: Run, n: int, steps: int, prompt: Sequence[int] = ()) -> dict[str, Array]:
    """Return the controls of n items, which have all labels in turn, and as many bars as there can be."""
    fed = {"prompt": np.array([[*prompt] or [-1]] * n, np.int32), "max_length": np.full(n, steps)}
    for each in sdk.load(run.folder).card.controls:
        if each.name not in fed:
            default = each.maximum if each.name == "bars" else each.default
            value = np.arange(n) % len(each.choices) if each.kind == "choice" else default
            fed[each.name] = np.full(n, value, each.dtype)
    return fed


class Step(torch.nn.Module):
    """The network for one step, with its state as inputs and outputs."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        token: torch.Tensor,
        hidden: torch.Tensor,
        cell: torch.Tensor,
        label: torch.Tensor | None = None,
        place: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Return the logits and the state."""
        state = self.network.split({"hidden": hidden, "cell": cell})
        logits, after = self.network.stepper(label)(
            token[:, None], state, torch.zeros(()), () if place is None else [place]
        )
        state = self.network.join(after)
        return logits, state["hidden"], state["cell"]


class Library(Step):
    """The same by torch's own LSTM."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__(network)
        self.lstm = torch.nn.LSTM(network.width, network.width, len(network.layers), batch_first=True)
        for i, layer in enumerate(network.layers):
            for name, weights in layer.named_parameters():
                place, part = name.split("_")
                getattr(self.lstm, f"{place}_{'ih' if part == 'x' else 'hh'}_l{i}").data.copy_(weights)

    def forward(
        self,
        token: torch.Tensor,
        hidden: torch.Tensor,
        cell: torch.Tensor,
        label: torch.Tensor | None = None,
        place: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Return the logits and the state, which here has the layer first."""
        x = self.network.inputs(token[:, None], label, None if place is None else place[:, None])
        x, (hidden, cell) = self.lstm(x, (hidden, cell))
        return self.network.output(x[:, 0]), hidden, cell


def eager(step: Library, reader: Reader, u: torch.Tensor, fed: dict[str, Array]) -> Array:
    """Make items in a loop of torch."""
    network, n = step.network, len(u)
    with torch.inference_mode():
        tokens = torch.arange(network.output.out_features)
        token = torch.full((n,), BEGIN)
        hidden, cell = (part.transpose(0, 1).contiguous() for part in network.start(n).values())
        seen, done = torch.zeros(n, len(tokens), dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        most, how = torch.from_numpy(fed["max_length"]), Choosing.of(tensors(fed), len(tokens))
        forced, given = torch.zeros(n, 1, dtype=torch.int64), torch.zeros(n)  # no prompt
        for t in range(STEPS):
            logits, hidden, cell = step(token, hidden, cell, **tensors(reader.told()))
            logits = logits.masked_fill_(torch.from_numpy(reader.barred()), MASKED)
            token = choose(logits, seen, u[:, t : t + 1], how)[:, 0]
            token = torch.where(t < given, forced[:, min(t, forced.shape[1] - 1)], token)
            seen |= tokens == token[:, None]
            done |= (token == END) | (t >= most)
            if done.all():
                break
            token = torch.where(done, BEGIN, token)
            reader.read(token.numpy())
        return reader.content()


def tensors(arrays: dict[str, Array]) -> dict[str, torch.Tensor]:
    """Return arrays as torch has them."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def stepped(
    file: ort.InferenceSession,
    network: RecurrentNetwork,
    reader: Reader,
    u: NDArray[np.float32],
    fed: dict[str, Array],
) -> Array:
    """Make items in a loop of Python around a file that makes one step."""
    n, tokens = len(u), np.arange(network.output.out_features)
    token, seen, done = np.full(n, BEGIN), np.zeros((n, len(tokens)), bool), np.zeros(n, bool)
    hidden, cell = (part.numpy() for part in network.start(n).values())
    names = ("repetition_penalty", "temperature", "top_k", "top_p")
    penalty, temperature, top_k, top_p = (fed[name][:, None] for name in names)
    ranks = top_k.any() or (top_p < 1).any()
    forced, given = np.zeros((n, 1), np.int64), np.zeros(n)  # no prompt
    for t in range(STEPS):
        logits, hidden, cell = file.run(None, {"token": token, "hidden": hidden, "cell": cell, **reader.told()})
        np.copyto(logits, MASKED, where=reader.barred())
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
        reader.read(token)
    return reader.content()


if __name__ == "__main__":
    sys.exit(main())
