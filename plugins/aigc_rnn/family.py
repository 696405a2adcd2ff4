"""How a recurrent network over characters is trained (Graves 2013, "Generating Sequences With Recurrent Networks")."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from aigc_rnn.config import RNNConfig
from aigc_rnn.losses import negative_log_likelihood
from aigc_rnn.networks import RecurrentNetwork
from aigc_rnn.sampler import BEGIN, END, SPECIAL, UNKNOWN, Generate, Score, StreamOn
from aigc_sdk.card import Control, OutputSpec, StatePart, checked
from aigc_sdk.data import DataSpec
from aigc_sdk.errors import InvalidData, UnknownName
from aigc_sdk.training import Batch, Carry, Family, Losses

# Of the places in which a stream is read, this share begins anew at each step, so that beginning is learned too.
_BEGIN_SHARE = 1 / 16

# What a model of a stream makes at most, and if it is not asked for a length.
_STREAM_LENGTH, _STREAM_DEFAULT = 2000, 500

_LOOPS = {"generate": Generate, "stream": StreamOn}

# Of no text: before the first character, and behind the last.
_NOTHING = -1


class RNN(Family):
    """A recurrent network that predicts the next character, conditional on the label when the data has labels."""

    Config = RNNConfig
    modality = "text"
    tasks = (*_LOOPS, "score")
    measures = ("score",)
    config: RNNConfig
    codes: Tensor

    def build(self, data: DataSpec) -> None:
        """Make the network for the characters of the data; raises InvalidData when there are too few."""
        config = self.config
        codes = sorted(ord(character) for character, count in data.characters.items() if count >= config.min_count)
        if len(codes) < 2:
            raise InvalidData(
                f"Of {len(data.characters)} characters, {len(codes)} occur at least min_count={config.min_count} times;"
                " give more text, or a smaller min_count."
            )
        self.data, self.span = data, config.span
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.int32))
        self.network = RecurrentNetwork(
            SPECIAL + len(codes),
            len(data.labels),
            cell=config.cell,
            layers=config.layers,
            width=config.width,
            dropout=config.dropout,
            tied=config.tied,
            layer_norm=config.layer_norm,
            attention=config.attention,
        )

    def optimizers(self) -> dict[str, Optimizer]:
        """One Adam for all weights."""
        return {"all": AdamW(self.parameters(), lr=self.config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)}

    def phases(self, step: int) -> tuple[str, ...]:
        """There is one."""
        return ("all",)

    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the mean negative log-likelihood of a character, given those before it (teacher forcing).

        A stream is read on from the state that the batch before left, through which no gradient goes (truncated
        back-propagation through time, Williams & Peng 1990).
        """
        if not self.data.is_stream:
            nats, counted = self.of_documents(batch)
            return Losses(nats.sum() / counted.sum()), None
        tokens = self.tokens_of(batch["codes"])
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
        tokens = self.tokens_of(codes)
        is_read = codes != _NOTHING
        before = torch.cat([torch.full_like(tokens[:, :1], BEGIN), tokens], 1)
        after = torch.cat([tokens, torch.full_like(tokens[:, :1], END)], 1)
        nothing, something = torch.zeros_like(is_read[:, :1]), torch.ones_like(is_read[:, :1])
        there = torch.cat([is_read, nothing], 1)
        counted = there if self.data.is_stream else torch.cat([something, is_read], 1)
        target = torch.where(there, after, END)
        logits, _ = self.network(before, batch.get("labels"), self.network.start(len(tokens), tokens.device))
        return negative_log_likelihood(logits, target) * counted, counted

    def tokens_of(self, codes: Tensor) -> Tensor:
        """Return the tokens, int64 (n, t), of code points; what is unknown, or nothing, is UNKNOWN."""
        place = torch.searchsorted(self.codes, codes).clamp(max=len(self.codes) - 1)
        return torch.where(self.codes[place] == codes, place + SPECIAL, UNKNOWN)

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
        return self.config.max_length or (_STREAM_LENGTH if self.data.is_stream else 2 * self.data.shape[0])

    def controls(self, task: str) -> list[Control]:
        """Return the prompt, how long a text may get, and how characters are chosen; of a score nothing."""
        if task == "score":
            return []
        usual = min(self.most, _STREAM_DEFAULT) if self.data.is_stream else self.most
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
            Control(
                name="temperature",
                kind="number",
                minimum=0,
                maximum=5,
                default=1.0,
                help="1 as trained, less is more probable, 0 the most probable character each time",
            ),
            Control(
                name="top_k",
                kind="integer",
                minimum=0,
                maximum=len(self.codes),
                default=0,
                help="choose among the so many most probable characters; 0 among all",
            ),
            Control(
                name="top_p",
                kind="number",
                minimum=0.01,
                maximum=1,
                default=1.0,
                help="choose among the most probable characters whose probabilities sum to this",
            ),
            Control(
                name="repetition_penalty",
                kind="number",
                minimum=1,
                maximum=5,
                default=1.0,
                help="divide the logit of a character that was there already by this; 1 for no penalty",
            ),
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
        loop = StreamOn(*self._parts())
        values = [
            {"name": name, "dtype": str(part.dtype).removeprefix("torch."), "shape": tuple(part.shape[1:])}
            for name, part in loop.start(1).items()
        ]
        return tuple(checked(StatePart, value) for value in values)

    def sampler(self, task: str) -> nn.Module:
        """The network inside of its loop."""
        if task not in self.tasks:
            raise UnknownName.of("task of the family rnn", task, self.tasks)
        if task == "score":
            return Score(*self._parts(), ends=not self.data.is_stream)
        return _LOOPS[task](*self._parts())

    def _parts(self) -> tuple[RecurrentNetwork, tuple[int, ...], tuple[float, ...]]:
        return self.network, tuple(self.codes.tolist()), self.data.label_frequencies


def _reset(part: Tensor, begins: Tensor) -> Tensor:
    """Return a part of the state with zeros where a text begins, bool (n,)."""
    return part.masked_fill(begins.reshape(-1, *[1] * (part.ndim - 1)), 0)
