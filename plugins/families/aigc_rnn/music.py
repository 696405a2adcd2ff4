"""How a recurrent network over events of music is trained (Eck & Schmidhuber 2002; Oore et al. 2018 for the events)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aigc_music.data import MusicDetails
from aigc_music.events import event_code, event_name
from aigc_music.keys import KEYS, tonic_offset
from aigc_rnn.config import NETWORK_OPTIONS, MusicRNNConfig
from aigc_rnn.losses import negative_log_likelihood
from aigc_rnn.networks import MASKED, RecurrentNetwork
from aigc_rnn.notes import Clock, are_drums, moved
from aigc_rnn.sampler import BEGIN, END, SPECIAL, UNKNOWN, Generate, StreamOn
from aigc_rnn.tokens import (
    SIZES,
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

_NOTHING = -1

_LOOPS = {"generate": Generate, "stream": StreamOn}

# Quarter notes a minute that may be asked for.
_SLOWEST, _FASTEST = 20, 400


class Reading(NamedTuple):
    """What predicting each event, and the end, of a batch of pieces costs."""

    nats: Tensor  # float32 (n, t + 1), 0 behind the end
    counted: Tensor  # bool (n, t + 1)


class MusicRNN(Family):
    """A recurrent network that predicts the next event, told of the key, the metre, and the place in the bar."""

    Config = MusicRNNConfig
    modality = "music"
    tasks = tuple(_LOOPS)
    network_options = (*NETWORK_OPTIONS, "conditions", "full_bars")  # bars are counted in full ones alone
    config: MusicRNNConfig
    codes: Tensor
    key_labels: Tensor
    offsets: Tensor

    @classmethod
    def sizes(cls, config: MusicRNNConfig, data: DataSpec) -> tuple[Size, ...]:  # noqa: ARG003 - whatever they are
        """Larger batches where the training has enough steps of smaller ones."""
        return SIZES

    @classmethod
    def usual_steps(cls, config: MusicRNNConfig, data: DataSpec, pass_steps: int) -> int:  # noqa: ARG003 - passes tell
        """Return the steps of some passes, within bounds; collections are small, and pieces are moved anew."""
        return usual_steps(pass_steps, most_passes=300)

    def build(self, data: DataSpec) -> None:
        """Make the network for the events of the data; raises InvalidData when there are too few."""
        config = self.config
        self.data, self.music = data, data.details
        # Told of the key, it reads and makes pieces as if their tonic were C: what it learns of one key holds for all.
        # The records of older runs do not count events that way.
        self.is_relative = "key" in config.conditions and bool(data.details.relative)
        codes = known_codes(data.details.relative if self.is_relative else data.details.events, config, "events")
        self.keys = tuple(data.details.keys) if "key" in config.conditions else ()
        self.meters = tuple(data.details.meters) if "meter" in config.conditions else ()
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.int32))
        # Which label each key is; one that the training part does not have is taken for the first.
        key_labels = [self.keys.index(name) if name in self.keys else 0 for name in KEYS]
        self.register_buffer("key_labels", torch.tensor(key_labels), persistent=False)
        self.register_buffer("offsets", torch.tensor([*map(tonic_offset, range(len(KEYS)))]), persistent=False)
        meters = [(int(beats), int(unit)) for beats, _, unit in (name.partition("/") for name in self.meters)]
        events, keys = (*[_NOTHING] * SPECIAL, *codes), [KEYS.index(name) for name in self.keys]
        end, counts_bars = END if config.full_bars else None, "bars" in config.conditions
        self.clock = Clock(events, keys, meters, end, counts_bars, self.is_relative)
        labels = len(self.keys) + len(self.meters)
        self.network = network_of(config, len(codes), labels, self.clock.places)

    def rows(self) -> dict[str, tuple[str, ...]]:
        """Return which event, key, metre, or place in the piece each row is of."""
        events = tuple(map(event_name, self.codes.tolist()))
        labels = (*(f"key {name}" for name in self.keys), *(f"metre {name}" for name in self.meters))
        return rows_of(self.network, events, labels, self.clock.place_names)

    @classmethod
    def spec_of(cls, card: ModelCard, codes: Sequence[Tensor]) -> DataSpec | None:
        """Return pieces of the events, keys, metres and bars that the card names."""
        controls = {control.name: control for control in card.controls}
        told = {
            name: dict.fromkeys(controls[name].choices, 1.0) if name in controls else {} for name in ("key", "meter")
        }
        bars = {int(controls["bars"].maximum or 1): 1.0} if "bars" in controls else {}
        events = {chr(event_code(name)): card.config["min_count"] for name in controls["prompt"].choices}
        # A prompt may have the events of all keys; where the network counts in one, its own are fewer.
        known = {event_code(name) for name in controls["prompt"].choices}
        tables = ([code for code in table.flatten().tolist() if code >= 0] for table in codes)
        own = max((table for table in tables if len({*table} & known) == len(table)), key=len, default=[])
        relative = {chr(code): card.config["min_count"] for code in own} if len(own) < len(known) else {}
        details = MusicDetails(events, told["key"], told["meter"], 120.0, bars, relative)
        return DataSpec((card.output.shape[0],), (), (), 1, details)

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
        """Return the mean negative log-likelihood of an event, given those before it (teacher forcing)."""
        reading = self.read(batch)
        return Losses(reading.nats.sum() / reading.counted.sum()), None

    def read(self, batch: Batch) -> Reading:
        """Return what predicting a batch of pieces costs."""
        codes = self.relative(batch)
        tokens, is_there = tokens_of(self.codes, codes), codes != _NOTHING
        begin = torch.full_like(tokens[:, :1], BEGIN)
        something, nothing = torch.ones_like(is_there[:, :1]), torch.zeros_like(is_there[:, :1])
        target = torch.where(torch.cat([is_there, nothing], 1), torch.cat([tokens, begin], 1), END)
        counted = torch.cat([something, is_there], 1)
        label = self.labels_of(batch)
        before = self.clock.before(codes, self.clock.bars_of(label))
        state = self.network.start(len(tokens), tokens.device)
        read, place = self.hidden(torch.cat([begin, tokens], 1), before.place)
        logits, _ = self.network(read, label, state, place)
        if before.barred is not None:
            logits = logits.masked_fill(before.barred, MASKED)
        return Reading(negative_log_likelihood(logits, target) * counted, counted)

    def hidden(self, tokens: Tensor, place: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return tokens (n, t) and places (n, t, k), in training with some not told (Bowman et al. 2016, section 3.1).

        What was made is never quite like what was learned from; a network that misses some of it goes by the key, the
        metre and the bars left too, which are always told.
        """
        share = self.config.token_dropout
        if not self.training or not share:
            return tokens, place
        missing = torch.rand(tokens.shape, device=tokens.device) < share
        missing[:, 0] = False  # the beginning
        tokens = torch.where(missing, UNKNOWN, tokens)
        if place is not None:
            missing = torch.rand(tokens.shape, device=tokens.device) < share
            place = torch.where(missing[:, :, None] & self.clock.is_back, 0, place)
        return tokens, place

    def relative(self, batch: Batch) -> Tensor:
        """Return the events as the network reads them, int32 (n, t)."""
        codes = batch["codes"]
        if not self.is_relative:
            return codes
        offset = self.offsets[batch["keys"]][:, None]
        return torch.where(are_drums(codes), codes, moved(codes, -offset))

    def labels_of(self, batch: Batch) -> Tensor | None:
        """Return the labels of keys and metres, int64 (n, k), as far as the network is told of them."""
        labels = [self.key_labels[batch["keys"]]] if self.keys else []
        labels += [len(self.keys) + batch["meters"]] if self.meters else []
        return torch.stack(labels, 1) if labels else None

    def validate(self, batch: Batch) -> dict[str, float]:
        """Return the nats of an event; those of the end of a piece count as its events'."""
        return {"nats_per_event": self.read(batch).nats.sum().item() / int((batch["codes"] != _NOTHING).sum())}

    def assess(self, step: int, means: Mapping[str, float]) -> dict[str, float]:
        """Return the perplexity of an event."""
        return {"perplexity": math.exp(min(means["nats_per_event"], 700))} if means else {}

    def events(self) -> list[int]:
        """Return the events that a prompt may have: those that are known in one of the keys."""
        if not self.is_relative:
            return self.codes.tolist()
        # Drums are those of the codes themselves, as in C.
        offsets = torch.tensor([0, *(tonic_offset(KEYS.index(key)) for key in self.keys)])
        return sorted(set(moved(self.codes.expand(len(offsets), -1), offsets[:, None]).flatten().tolist()))

    @property
    def most(self) -> int:
        """How many events a piece that is made has at most."""
        return self.config.max_length or self.data.shape[0]

    def controls(self, task: str) -> list[Control]:
        """Return what the piece is to be, what it begins with, how long it may get, and how events are chosen."""
        told = {"key": self.keys, "meter": self.meters}
        helps = {"key": "key of the piece", "meter": "metre of the piece, which begins at a bar line"}
        choices = [
            Control(
                name=name, kind="choice", choices=names, default=-1, help=f"{helps[name]}; -1 leaves it to the seed"
            )
            for name, names in told.items()
            if names
        ]
        return [
            *choices,
            Control(
                name="tempo",
                kind="number",
                minimum=_SLOWEST,
                maximum=_FASTEST,
                default=min(max(self.music.tempo, _SLOWEST), _FASTEST),
                help="quarter notes a minute",
            ),
            *self._bars_control(),
            Control(
                name="prompt",
                kind="music",
                choices=tuple(map(event_name, self.events())),
                maximum=self.most,
                default="",
                help="what the piece begins with; it is not part of what is made, which goes on behind it",
            ),
            Control(
                name="max_length",
                kind="integer",
                minimum=1,
                maximum=self.most,
                default=self.most,
                help="events to make, unless the piece ends before",
            ),
            *choosing_controls(self.config, len(self.codes), "event"),
        ]

    def _bars_control(self) -> Iterator[Control]:
        if self.clock.counts_bars:
            yield Control(
                name="bars",
                kind="integer",
                minimum=0,
                maximum=max(self.music.bars),
                default=0,
                help="bars of the piece, those of the prompt among them; 0 leaves it to the seed",
            )

    def output(self, task: str) -> OutputSpec:
        """Return notes."""
        return OutputSpec(dtype="float32", shape=(self.most, 6), length=True)

    def state(self, task: str) -> tuple[StatePart, ...]:
        """Return what the loop carries, for the task `stream`."""
        return state_of(StreamOn(*self._parts())) if task == "stream" else ()

    def sampler(self, task: str) -> nn.Module:
        """The network inside of its loop."""
        if task not in self.tasks:
            raise UnknownName.of("task of the family music-rnn", task, self.tasks)
        return _LOOPS[task](*self._parts())

    def _parts(
        self,
    ) -> tuple[RecurrentNetwork, tuple[int, ...], dict[str, tuple[float, ...]], Clock, Mapping[int, float] | None]:
        music: MusicDetails = self.music
        told = {"key": (self.keys, music.keys), "meter": (self.meters, music.meters)}
        frequencies = {name: tuple(shares[each] for each in names) for name, (names, shares) in told.items() if names}
        bars = music.bars if self.clock.counts_bars else None
        return self.network, tuple(self.codes.tolist()), frequencies, self.clock, bars
