"""How fast texts are made: the whole loop in one file, against loops of torch and of Python around the same network.

    python benchmarks/text_speed.py

An LSTM of 2 layers of 256 units over 96 tokens, of random weights, makes 200 characters; two threads, one run. The
other loops do no more than they need to: a softmax and a draw, no prompt, no controls, no seeds of single items.
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
from aigc_rnn.networks import RecurrentNetwork
from aigc_rnn.sampler import BEGIN, SPECIAL
from aigc_sdk.generator import start_state
from aigc_sdk.training import Run
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
        whole = session(run.models["generate"].read_bytes())
        stepwise = session(trace(Step(network), *Step.arrays(network), Step.outputs(network)).SerializeToString())
        for n, least in ((1, 5.0), (64, 2.0)):
            actions: dict[str, Callable[[], Any]] = {
                "file": lambda n=n: whole.run(["content"], feeds(whole, run, n, STEPS)),  # type: ignore[misc]
                "torch, by hand": lambda n=n: eager(Step(network), network, n),  # type: ignore[misc]
                "torch, nn.LSTM": lambda n=n: eager(Library(network), network, n),  # type: ignore[misc]
                "one step": lambda n=n: stepped(stepwise, network, n),  # type: ignore[misc]
            }
            times = medians(interleave({name: stopwatch(action) for name, action in actions.items()}, RUNS[n]))
            for name, seconds in times.items():
                report.figure(f"N = {n}: {name}", 1000 * seconds, "ms")
            fastest = min(seconds for name, seconds in times.items() if name.startswith("torch"))
            report.at_least(f"N = {n}: the faster loop of torch / the file", fastest / times["file"], least, "x")
            ratio = times["one step"] / times["file"]
            if n == 1:
                report.at_least(f"N = {n}: a Python loop around one step / the file", ratio, 1.5, "x")
            else:
                report.figure(f"N = {n}: a Python loop around one step / the file", ratio, "x")
        first_chunk(report, run)
    return report.exit_code


def first_chunk(report: Report, run: Run) -> None:
    """Compare what a user waits for the first character of a stream with one bare run of the same file."""
    prompt = "".join(CHARACTERS[:10])
    bare = session(run.models["stream"].read_bytes())
    fed = feeds(bare, run, 1, 1, prompt) | start_state(sdk.load(run.models["stream"]).card, 1)
    with sdk.load(run.folder) as model:

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


def feeds(file: ort.InferenceSession, run: Run, n: int, steps: int, prompt: str = "") -> dict[str, NDArray[Any]]:
    """Return what the file is fed with for n items."""
    codes = np.array([[*map(ord, prompt)] or [-1]] * n, np.int32)
    controls = sdk.load(run.folder).card.controls
    fed = {"seed": np.arange(n), "prompt": codes, "max_length": np.full(n, steps)}
    fed |= {each.name: np.full(n, each.default, each.dtype) for each in controls if each.name not in fed}
    return {each.name: fed[each.name] for each in file.get_inputs() if each.name in fed}


class Step(torch.nn.Module):
    """The network for one step, with its state as inputs and outputs."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, token: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits and the state."""
        logits, state = self.network.step(token, None, {"hidden": hidden, "cell": cell})
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


def eager(step: Step, network: RecurrentNetwork, n: int) -> torch.Tensor:
    """Make texts in a loop of torch."""
    with torch.inference_mode():
        token = torch.full((n,), BEGIN)
        hidden, cell = network.start(n).values()
        if isinstance(step, Library):
            hidden, cell = hidden.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous()
        made = []
        for _ in range(STEPS):
            logits, hidden, cell = step(token, hidden, cell)
            token = torch.multinomial(torch.softmax(logits, 1), 1)[:, 0]
            made.append(token)
        return torch.stack(made, 1)


def stepped(file: ort.InferenceSession, network: RecurrentNetwork, n: int) -> NDArray[Any]:
    """Make texts in a loop of Python around a file that makes one step."""
    rng = np.random.default_rng(0)
    token = np.full(n, BEGIN)
    hidden, cell = (part.numpy() for part in network.start(n).values())
    made = []
    for _ in range(STEPS):
        logits, hidden, cell = file.run(None, {"token": token, "hidden": hidden, "cell": cell})
        shares = np.exp(logits - logits.max(1, keepdims=True)).cumsum(1)
        token = (shares <= rng.random((n, 1)) * shares[:, -1:]).sum(1).clip(max=TOKENS - 1)
        made.append(token)
    return np.stack(made, 1)


if __name__ == "__main__":
    sys.exit(main())
