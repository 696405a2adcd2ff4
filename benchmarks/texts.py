"""How good the ready-made models of texts are: Shakespeare's last tenth, the form of poems, and what is copied.

    python benchmarks/texts.py [shakespeare] [copying] [poems] [names]

`shakespeare`: nats of a character of the last tenth of the text, read on as a whole by the network with the weights
that the model file holds, against an n-gram model of the same training text (absolute discounting, Ney, Essen & Kneser
1994, of 0.75, interpolated with the next lower order, the best order up to 8). `copying`: what stands in the cards, and
whether a model that is trained to memorise is caught. `poems`: 10,000, each looked at alone. `names`: which of 10,000
stand in the lists. The n-gram and the memorising model are made here, in some minutes.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import aigc_sdk as sdk
from aigc_rnn.losses import negative_log_likelihood
from aigc_rnn.sampler import BEGIN
from aigc_rnn.tokens import tokens_of
from aigc_sdk.generation import load, model_file
from aigc_sdk.training import Run
from aigc_sdk.training.checkpoint import load_averaged_weights
from aigc_text.data import TextDataset, load_texts
from datasets import fetch, poem_kind
from ngram import ngram_nats
from stored import weights_in
from timing import Report

RUNS = Path(__file__).parent / "runs"
NAMES = ("shakespeare", "poems", "names")

MOST_NATS, MOST_PARAMETERS, MOST_MINUTES, MOST_MB, LEAST_GAIN = 1.40, 3_000_000, 90, 4, 0.2
LEAST_FORM = 0.95
_SPAN = 4096


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="shakespeare, copying, poems, names; or all")
    parts = parser.parse_args().parts or ["shakespeare", "copying", "poems", "names"]
    report = Report("aigc-sdk", "torch", "onnxruntime")
    for name in NAMES:
        made = json.loads((RUNS / name / "made.json").read_text())
        print(f"{name}: {made}")
        report.at_most(f"{name}: minutes of training", made["minutes"], MOST_MINUTES)
        for task in ("generate", "stream"):
            report.at_most(f"{name}: {task}", model_file(name, task=task).stat().st_size / 1e6, MOST_MB, "MB")
    checks = {"shakespeare": check_shakespeare, "copying": check_copying, "poems": check_poems, "names": check_names}
    for part in parts:
        checks[part](report)
    return report.exit_code


def check_shakespeare(report: Report) -> None:
    """Measure the nats of the last tenth, and those of the n-gram."""
    run = Run.open(RUNS / "shakespeare")
    family: Any = run.family_class()(run.options())
    family.build(run.record.data_spec(family.modality))
    family.load_state_dict(load_averaged_weights(run.folder) | weights_in(model_file("shakespeare")), strict=False)
    family.eval()
    weights = sum(each.numel() for each in family.parameters())
    report.at_most("shakespeare: parameters", weights, MOST_PARAMETERS)
    data = load_texts(fetch("shakespeare"))
    train, test = tenth(data, run)
    report.figure("characters held out", len(test))
    report.figure("share of the text", len(test) / len(data.codes))
    nats = read_on(family, test)
    report.at_most("shakespeare: nats of a character of the last tenth", nats, MOST_NATS)
    orders = {order: float(each.mean()) for order, each in ngram_nats([train], [test]).items()}
    best = min(orders, key=lambda order: orders[order])
    print("n-gram, nats by order:", {order: round(value, 4) for order, value in orders.items()})
    report.at_least(f"shakespeare: nats below the n-gram of order {best}", orders[best] - nats, LEAST_GAIN)


def tenth(data: TextDataset, run: Run) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return what the model and the n-gram may learn from, and the last tenth; between lies what was validated on."""
    options = run.options()
    parts = data.split(options.validation_fraction, options.test_fraction)
    ends = [data.starts[parts[name][-1] + 1] for name in ("train", "validation")]
    return data.codes[: ends[0]], data.codes[ends[1] :]


@torch.inference_mode()
def read_on(family: Any, codes: NDArray[np.int32]) -> float:
    """Return the nats of a character of a text that is read from its beginning to its end, without a new beginning."""
    tokens = tokens_of(family.codes, torch.from_numpy(codes.copy())[None])
    before = torch.cat([torch.tensor([[BEGIN]]), tokens[:, :-1]], 1)
    state, total = family.network.start(1), 0.0
    for start in range(0, tokens.shape[1], _SPAN):
        logits, state = family.network(before[:, start : start + _SPAN], None, state)
        total += negative_log_likelihood(logits, tokens[:, start : start + _SPAN]).double().sum().item()
    return total / tokens.shape[1]


def check_copying(report: Report) -> None:
    """Print what the cards say, and train a small model on a little of Shakespeare until it knows it by heart."""
    for name in NAMES:
        for score in load(name).card.scores:
            if score["metric"] == "verbatim":
                print(f"{name}: {score['verdict']}")
                report.figure(f"{name}: share of the windows found in the training texts", float(str(score["value"])))
                for part, value in dict(score["details"]).items():  # type: ignore[call-overload]  # a mapping
                    report.figure(f"{name}: {part.replace('_', ' ')}", value)
                report.at_most(f"{name}: said to copy", int("It copies" in str(score["verdict"])), 0)
    text = fetch("shakespeare").read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        little, other = (Path(folder) / name for name in ("little.txt", "other.txt"))
        little.write_text(text[100_000:125_000], encoding="utf-8")
        other.write_text(text[1_000_000:1_100_000], encoding="utf-8")
        options = {"width": 192, "dropout": 0.0, "batch_size": 8, "span": 64}
        options |= {"validation_fraction": 0.0, "test_fraction": 0.0}
        run = sdk.train("rnn", little, out=Path(folder) / "run", epochs=150, **options)
        score = sdk.evaluate(run.folder, other, train=little, metrics=["verbatim"], n=50, max_length=200)["verbatim"]
    print(f"trained to memorise: {score.verdict}")
    report.figure("trained to memorise: share of the windows found", score.value)
    report.at_least("trained to memorise: said to copy", int("It copies" in score.verdict), 1)


def check_poems(report: Report) -> None:
    """Look at 10,000 poems, half of each form."""
    valid, right = 0, 0
    for asked, text in _made("poems", [["five", "seven"][i % 2] for i in range(10_000)]):
        valid += text.isprintable() or text.replace("\n", "").isprintable()
        right += poem_kind(text) == asked
    report.at_least("poems: of 10,000 valid text", valid, 10_000)
    report.at_least("poems: share in the form that was asked for", right / 10_000, LEAST_FORM)


def check_names(report: Report) -> None:
    """Count which names of 10,000 are real ones, trained on or held out, and how many kinds there are."""
    data = load_texts(fetch("names"))
    options = Run.open(RUNS / "names").options()
    parts = data.split(options.validation_fraction, options.test_fraction)
    texts = {part: {"".join(map(chr, data.row_codes(row))) for row in rows.tolist()} for part, rows in parts.items()}
    for label in data.label_names:
        made = [text for _, text in _made("names", [label] * 3000)]
        report.figure(f"names, {label}: distinct of 3,000", len(set(made)))
        for part in ("train", "test"):
            found = sum(text in texts[part] for text in made) / len(made)
            report.figure(f"names, {label}: share that stands in the {part} part", found)
        print("  ", ", ".join(made[:12]), "; most often", Counter(made).most_common(3))


def _made(name: str, labels: list[str]) -> Iterator[tuple[str, str]]:
    for batch in range(math.ceil(len(labels) / 1000)):
        asked = labels[1000 * batch : 1000 * (batch + 1)]
        yield from zip(asked, map(str, sdk.generate(name, label=asked, seed=batch, deadline_s=None)), strict=True)


if __name__ == "__main__":
    sys.exit(main())
