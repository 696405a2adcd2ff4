"""How a recurrent network over characters is trained (Graves 2013, "Generating Sequences With Recurrent Networks")."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aigc_rnn.config import NETWORK_OPTIONS, RNNConfig
from aigc_rnn.losses import negative_log_likelihood
from aigc_rnn.networks import RecurrentNetwork
from aigc_rnn.sampler import BEGIN, END, Generate, Score, StreamOn
from aigc_rnn.tokens import (
    SIZES,
    STREAM_SIZES,
    adam,
    choosing_controls,
    folded_biases,
    known_codes,
    network_of,
    rows_of,
    state_of,
    tokens_of,
    usual_steps,
)
from aigc_sdk.card import Control, ModelCard, OutputSpec, StatePart
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import UnknownName
from aigc_sdk.training import Batch, Carry, Family, Losses, Size
from aigc_text.data import TextDetails

# Of the places in which a stream is read, this share begins anew at each step, so that beginning is learned too.
_BEGIN_SHARE = 1 / 16

# What a model of a stream makes at most, and if it is not asked for a length.
_STREAM_LENGTH, _STREAM_DEFAULT = 2000, 500

_LOOPS = {"generate": Generate, "stream": StreamOn}

# Characters of a step on a stream where neither the options nor a budget say so.
_SPAN = 128

# Of no text: before the first character, and behind the last.
_NOTHING = -1


class RNN(Family):
    """A recurrent network that predicts the next character, conditional on the label when the data has labels."""

    Config = RNNConfig
    modality = "text"
    tasks = (*_LOOPS, "score")
    measures = ("score",)
    network_options = NETWORK_OPTIONS
    config: RNNConfig
    codes: Tensor

    @classmethod
    def sizes(cls, config: RNNConfig, data: DataSpec) -> tuple[Size, ...]:  # noqa: ARG003 - whatever the options
        """Larger steps where the training has enough of smaller ones; documents are read whole."""
        return STREAM_SIZES if data.details.is_stream else SIZES

    @classmethod
    def usual_steps(cls, config: RNNConfig, data: DataSpec, pass_steps: int) -> int:  # noqa: ARG003 - passes tell
        """Return the steps of some passes, within bounds."""
        return usual_steps(pass_steps)

    def build(self, data: DataSpec) -> None:
        """Make the network for the characters of the data; raises InvalidData when there are too few."""
        config = self.config
        codes = known_codes(data.details.characters, config, "characters")
        self.data, self.span = data, config.span or _SPAN
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.int32))
        self.network = network_of(config, len(codes), len(data.labels))

    def rows(self) -> dict[str, tuple[str, ...]]:
        """Return which character or label each row is of."""
        characters = tuple(f"character {chr(code)!r}" for code in self.codes.tolist())
        return rows_of(self.network, characters, tuple(f"label {label!r}" for label in self.data.labels))

    @classmethod
    def spec_of(cls, card: ModelCard, codes: Sequence[Tensor]) -> DataSpec | None:  # noqa: ARG003 - the card has them
        """Return a text of the characters and labels that the card names."""
        choices = {control.name: control.choices for control in card.controls}
        if "prompt" not in choices:  # of a score
            return None
        labels, count = choices.get("label", ()), card.config["min_count"]
        shares = (1 / len(labels),) * len(labels) if labels else ()
        details = TextDetails(dict.fromkeys(choices["prompt"], count))
        return DataSpec((card.output.shape[0],), labels, shares, 1, details)

    def recovered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the biases."""
        return folded_biases(self.network, tensors)

    def optimizers(self) -> dict[str, Optimizer]:
        """One Adam for all weights."""
        return {"all": adam(self)}

    def phases(self, step: int) -> tuple[str, ...]:
        """There is one."""
        return ("all",)

    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the mean negative log-likelihood of a character, given those before it (teacher forcing).

        A stream is read on from the state that the batch before left, through which no gradient goes (truncated
        back-propagation through time, Williams & Peng 1990).
        """
        if not self.data.details.is_stream:
            nats, counted = self.of_documents(batch)
            return Losses(nats.sum() / counted.sum()), None
        tokens = tokens_of(self.codes, batch["codes"])
        n = len(tokens)
        if carry is None:
            carry = {"state": self.network.start(n, tokens.device), "last": torch.full_like(tokens[:, 0], BEGIN)}
        begins = batch["begins"] | (torch.rand(n, device=tokens.device) < _BEGIN_SHARE)
        state = {name: _reset(part, begins) for name, part in carry["state"].items()}
        last = torch.where(begins, BEGIN, carry["last"])
        logits, state = self.network(torch.cat([last[:, None], tokens[:, :-1]], 1), None, state)
        nats = negative_log_likelihood(logits, tokens)
        carry = {"state": {name: part.detach() for name, part in state.items()}, "last": tokens[:, -1]}
        return Losses(nats.mean()), carry

    def of_documents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the negative log-likelihood of each character and of the end, in nats, and which of them count.

        Returns:
            float32 (n, t + 1), 0 behind the end; bool (n, t + 1). The pieces of a stream have no end.
        """
        codes = batch["codes"]
        tokens = tokens_of(self.codes, codes)
        is_read = codes != _NOTHING
        before = torch.cat([torch.full_like(tokens[:, :1], BEGIN), tokens], 1)
        after = torch.cat([tokens, torch.full_like(tokens[:, :1], END)], 1)
        nothing, something = torch.zeros_like(is_read[:, :1]), torch.ones_like(is_read[:, :1])
        there = torch.cat([is_read, nothing], 1)
        counted = there if self.data.details.is_stream else torch.cat([something, is_read], 1)
        target = torch.where(there, after, END)
        label = batch["labels"][:, None] if "labels" in batch else None
        logits, _ = self.network(before, label, self.network.start(len(tokens), tokens.device))
        return negative_log_likelihood(logits, target) * counted, counted

    def validate(self, batch: Batch) -> dict[str, float]:
        """Return the nats of a character; those of the end of a text count as its characters'."""
        nats, _ = self.of_documents(batch)
        return {"nats_per_character": nats.sum().item() / int((batch["codes"] != _NOTHING).sum())}

    def assess(self, step: int, means: Mapping[str, float]) -> dict[str, float]:
        """Return the perplexity of a character, and its bits."""
        if not means:
            return {}
        nats = means["nats_per_character"]
        return {"perplexity": math.exp(min(nats, 700)), "bits_per_character": nats / math.log(2)}

    @property
    def most(self) -> int:
        """How many characters a text that is made has at most."""
        return self.config.max_length or (_STREAM_LENGTH if self.data.details.is_stream else 2 * self.data.shape[0])

    def controls(self, task: str) -> list[Control]:
        """Return the prompt, how long a text may get, and how characters are chosen; of a score nothing."""
        if task == "score":
            return []
        usual = min(self.most, _STREAM_DEFAULT) if self.data.details.is_stream else self.most
        controls = [
            Control(
                name="prompt",
                kind="text",
                choices=tuple(map(chr, self.codes.tolist())),
                maximum=self.most,
                default="",
                help="what the text begins with; it is not part of what is made",
            ),
            Control(
                name="max_length",
                kind="integer",
                minimum=1,
                maximum=self.most,
                default=usual,
                help="characters to make, unless the text ends before",
            ),
            *choosing_controls(self.config, len(self.codes), "character"),
        ]
        if labels := self.data.labels:
            help_ = "kind of the text; -1 leaves it to the seed"
            controls.insert(0, Control(name="label", kind="choice", choices=labels, default=-1, help=help_))
        return controls

    def output(self, task: str) -> OutputSpec:
        """Return code points; of a score the nats and the characters."""
        if task == "score":
            return OutputSpec(dtype="float32", shape=(2,))
        return OutputSpec(dtype="int32", shape=(self.most,), length=True)

    def state(self, task: str) -> tuple[StatePart, ...]:
        """Return what the loop carries, for the task `stream`."""
        if task != "stream":
            return ()
        return state_of(StreamOn(*self._parts()))

    def sampler(self, task: str) -> nn.Module:
        """The network inside of its loop."""
        if task not in self.tasks:
            raise UnknownName.of("task of the family rnn", task, self.tasks)
        if task == "score":
            return Score(*self._parts(), ends=not self.data.details.is_stream)
        return _LOOPS[task](*self._parts())

    def _parts(self) -> tuple[RecurrentNetwork, tuple[int, ...], dict[str, tuple[float, ...]]]:
        frequencies = {"label": self.data.label_frequencies} if self.data.labels else {}
        return self.network, tuple(self.codes.tolist()), frequencies


def _reset(part: Tensor, begins: Tensor) -> Tensor:
    """Return a part of the state with zeros where a text begins, bool (n,)."""
    return part.masked_fill(begins.reshape(-1, *[1] * (part.ndim - 1)), 0)
