"""How fast texts are made: the whole loop in one file, against loops of torch and of Python around the same network.

    python benchmarks/text_speed.py

An LSTM of 2 layers of 256 units over 96 tokens, of random weights, makes 200 characters; two threads, one run. The
bounds are for loops that make the very same texts, with temperature, top-k, top-p and repetition penalty: one of torch
around torch.nn.LSTM, and one of Python around a file that makes one step. Their random numbers are drawn before the
clock starts. Beside them stand this project's own loop in eager torch, whose step is written out in smaller operations,
and the two others with no more than a softmax and a draw.
"""

import argparse
import sys
from collections.abc import Callable
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
from aigc_rnn.sampler import BEGIN, SPECIAL, UNKNOWN, Choosing, choose
from aigc_sdk.generator import start_state
from aigc_sdk.training import Run
from aigc_sdk.training.random import Stream, uniform_at
from timing import Report, interleave, medians, stopwatch

TOKENS, STEPS = 96, 200
RUNS = {1: 15, 64: 7}
CHARACTERS = [chr(code) for code in range(0x21, 0x21 + TOKENS - SPECIAL)]


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    report = Report("torch", "onnxruntime", "numpy")
    torch.set_num_threads(2)
    with TemporaryDirectory() as folder:
        run = untrained(Path(folder) / "run")
        network: Any = run.family().network
        same = run.exportable("generate").eager
        # The end is as probable as any character to such a network; these seeds do not meet it.
        lengths = same.run(np.arange(1500), controls(run, 1500, STEPS))["length"]
        seeds = np.flatnonzero(lengths == STEPS)[: max(RUNS)]
        assert len(seeds) == max(RUNS)
        whole = session(run.models["generate"].read_bytes())
        library = Library(network)
        stepwise = session(trace(Step(network), *Step.arrays(network), Step.outputs(network)).SerializeToString())
        for n, least in ((1, 5.0), (64, 2.0)):
            fed = controls(run, n, STEPS)
            u = uniform_at(torch.from_numpy(seeds[:n]), torch.arange(STEPS)[None], Stream.TOKEN)
            tensors = {name: torch.from_numpy(values) for name, values in fed.items()}
            made = whole.run(["content"], {"seed": seeds[:n], **fed})[0]
            for other in (eager(library, n, u, tensors), stepped(stepwise, network, n, u.numpy(), fed)):
                report.at_most(f"N = {n}: share of characters that another loop makes", differing(other, made), 0.01)
            actions: dict[str, Callable[[], Any]] = {
                "file": lambda n=n, fed=fed: whole.run(["content"], {"seed": seeds[:n], **fed}),  # type: ignore[misc]
                "torch.nn.LSTM": lambda n=n, u=u, t=tensors: eager(library, n, u, t),  # type: ignore[misc]
                "one step": lambda n=n, u=u, fed=fed: stepped(stepwise, network, n, u.numpy(), fed),  # type: ignore[misc]
                "own loop in torch": lambda n=n, fed=fed: same.run(seeds[:n], fed),  # type: ignore[misc]
                "torch.nn.LSTM, softmax and draw": lambda n=n: eager(library, n, None, {}),  # type: ignore[misc]
                "one step, softmax and draw": lambda n=n: stepped(stepwise, network, n, None, {}),  # type: ignore[misc]
            }
            times = medians(interleave({name: stopwatch(action) for name, action in actions.items()}, RUNS[n]))
            report.figure(f"N = {n}: file", 1000 * times["file"], "ms")
            bounds = {"torch.nn.LSTM": least} | ({"one step": 1.5} if n == 1 else {})
            for name in list(times)[1:]:
                ratio = times[name] / times["file"]
                if name in bounds:
                    report.at_least(f"N = {n}: {name} / the file", ratio, bounds[name], "x")
                else:
                    report.figure(f"N = {n}: {name} / the file", ratio, "x")
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
        logits, after = self.network.step(self.network.reader(None)(token), state)
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


def eager(step: Library, n: int, u: torch.Tensor | None, fed: dict[str, torch.Tensor]) -> NDArray[Any]:
    """Make texts in a loop of torch; without u by a softmax and a draw alone."""
    network = step.network
    with torch.inference_mode():
        token, tokens = torch.full((n,), BEGIN), torch.arange(TOKENS)
        hidden, cell = (part.transpose(0, 1).contiguous() for part in network.start(n).values())
        seen, barred = torch.zeros(n, TOKENS, dtype=torch.bool), torch.zeros(TOKENS)
        barred[[BEGIN, UNKNOWN]] = MASKED
        how = None if u is None else Choosing.of(fed, TOKENS)
        made = []
        for t in range(STEPS):
            logits, hidden, cell = step(token, hidden, cell)
            if how is None or u is None:
                token = torch.multinomial(torch.softmax(logits, 1), 1)[:, 0]
            else:
                token = choose(logits + barred, seen, u[:, t : t + 1], how)
                seen |= tokens == token[:, None]
            made.append(token)
        return torch.stack(made, 1).numpy()


def stepped(
    file: ort.InferenceSession,
    network: RecurrentNetwork,
    n: int,
    u: NDArray[np.float32] | None,
    fed: dict[str, NDArray[Any]],
) -> NDArray[Any]:
    """Make texts in a loop of Python around a file that makes one step; without u by a softmax and a draw alone."""
    rng, rows, tokens = np.random.default_rng(0), np.arange(n)[:, None], np.arange(TOKENS)
    token, seen = np.full(n, BEGIN), np.zeros((n, TOKENS), bool)
    hidden, cell = (part.numpy() for part in network.start(n).values())
    column = {name: values[:, None] for name, values in fed.items()}
    made = []
    for t in range(STEPS):
        logits, hidden, cell = file.run(None, {"token": token, "hidden": hidden, "cell": cell})
        if u is None:
            shares = np.exp(logits - logits.max(1, keepdims=True)).cumsum(1)
            token = (shares <= rng.random((n, 1)) * shares[:, -1:]).sum(1).clip(max=TOKENS - 1)
        else:
            logits[:, [BEGIN, UNKNOWN]] = MASKED
            penalty = column["repetition_penalty"]
            logits = np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)
            logits = logits / np.maximum(column["temperature"], 1e-4)
            order = np.argsort(-logits, 1, kind="stable")
            logits = logits[rows, order]
            allowed = (tokens < column["top_k"]) | (column["top_k"] == 0)
            shares = np.exp(np.where(allowed, logits, MASKED) - logits[:, :1])
            shares /= shares.sum(1, keepdims=True)
            kept = allowed & (shares.cumsum(1) - shares < column["top_p"])
            reached = np.where(kept, shares, 0).cumsum(1)
            place = (reached <= u[:, t : t + 1] * reached[:, -1:]).sum(1, keepdims=True)
            token = order[rows, np.where(column["temperature"] > 0, place, 0)][:, 0]
            seen |= tokens == token[:, None]
        made.append(token)
    return np.stack(made, 1)


def differing(tokens: NDArray[np.int64], codes: NDArray[np.int32]) -> float:
    """Return the share of tokens that are not those of code points."""
    return float((np.array([0] * SPECIAL + [*map(ord, CHARACTERS)])[tokens] != codes).mean())


if __name__ == "__main__":
    sys.exit(main())
