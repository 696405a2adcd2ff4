"""What is exported: the whole loop from seeds and a prompt to code points or notes, and the score of a text."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional as F

from aigc_music.events import DRUMS, PROGRAMS
from aigc_rnn.networks import MASKED, RecurrentNetwork, State
from aigc_rnn.notes import Clock, moved
from aigc_sdk.training.random import Stream, draw_choices, uniform_at
from aigc_sdk.training.sampling import cumulative

# Tokens that stand for no character. Zero is what a state of zeros says was read last.
BEGIN, END, UNKNOWN = range(3)
SPECIAL = 3

# What a text or piece may be told to be, and which random numbers draw it where it is not told.
_DRAWN = {"label": Stream.LABEL, "key": Stream.KEY, "meter": Stream.METER}

# A temperature of 0 is the most probable token; below this, division would leave the range of float32.
_COLDEST = 1e-4

# Of more tokens than these, a block is drawn first.
_MANY = 256

# In the place of the step until which an item makes characters, where it ended before the first.
_ENDED = -1

# No text is longer; the exporter needs to know that there is a bound.
_MOST_CHARACTERS = 2**24


class Choosing(NamedTuple):
    """How a token is chosen of logits, for each item: (n, 1) each, but for the ranks that are allowed."""

    penalty: Tensor
    temperature: Tensor
    allowed: Tensor  # 1 or 0, (n, ranks): as many ranks as any item has to be looked at for, which may be one
    top_p: Tensor  # (n, ranks), below 0 where the rank is not allowed, and of items of which no token is left out
    others: Tensor  # in the place of the probability of a rank that is not kept: 1, or 0 where no token is left out

    @classmethod
    def of(cls, controls: dict[str, Tensor], tokens: int) -> "Choosing":
        """Make it of the controls, (n,) each; temperature 0 is the most probable token alone; top_k 0 is all."""
        names = ("repetition_penalty", "temperature", "top_k", "top_p")
        penalty, temperature, top_k, top_p = (controls[name][:, None] for name in names)
        top_k = torch.where(temperature > 0, top_k, 1)
        # To rank all tokens takes longer than a step of a small network, so it is done where an item asks for it.
        wanted = torch.where((top_k == 0) & (top_p < 1), tokens, top_k)
        ranks = int(wanted.clamp(min=1, max=tokens).max().item())
        torch._check(ranks >= 1)  # type: ignore[no-untyped-call]  # torch has no types here
        torch._check(ranks <= tokens)  # type: ignore[no-untyped-call]
        allowed, is_limited = (torch.arange(ranks)[None] < top_k) | (top_k == 0), (top_k > 0) | (top_p < 1)
        top_p = torch.where(allowed & is_limited, top_p, -1.0)
        return cls(penalty, temperature.clamp(min=_COLDEST), allowed.float(), top_p, is_limited.float())


def choose(logits: Tensor, seen: Tensor, u: Tensor, how: Choosing) -> Tensor:
    """Return a token for each item, int64 (n, 1).

    First the logits of tokens that were seen are brought down (Keskar et al. 2019, eq. 1); then they are divided by the
    temperature; then all but the `top_k` most probable are left out (Fan et al. 2018); then all that come after the
    most probable ones whose probabilities sum to `top_p` (Holtzman et al. 2020); of the rest, in the order of the
    tokens, the first one is drawn up to which the probabilities sum to more than u of all.

    Args:
        logits: float32 (n, tokens).
        seen: bool (n, tokens).
        u: uniform in [0, 1), multiples of 2^-24, float32 (n, 1); (n, 2) for many tokens, of which a block is drawn
            first, and then one in it.
        how: of the controls.
    """
    penalised = torch.minimum(logits / how.penalty, logits * how.penalty)  # the first is less where they are positive
    logits = torch.where(seen, penalised, logits) / how.temperature
    shares = torch.softmax(logits, 1)
    best, _ = torch.topk(shares, how.allowed.shape[1], dim=1)
    best = best * how.allowed
    upto = best.cumsum(1)
    least = torch.where(upto - best < how.top_p * upto[:, -1:], best, how.others).amin(1, keepdim=True)
    shares = torch.where(shares < least, 0.0, shares)
    if u.shape[1] == 1:
        return _draw(shares, u)
    # As runtimes round otherwise, each edge between two tokens is a chance that they draw different ones.
    size = math.isqrt(shares.shape[1] - 1) + 1
    blocks = F.pad(shares, (0, size * size - shares.shape[1])).view(-1, size, size)
    block = _draw(blocks.sum(2), u[:, :1])
    within = torch.gather(blocks, 1, block[:, :, None].expand(-1, 1, size))[:, 0]
    return block * size + _draw(within, u[:, 1:])


def _draw(shares: Tensor, u: Tensor) -> Tensor:
    """Return the first place up to which shares (n, k) sum to more than u (n, 1) of their sum, int64 (n, 1)."""
    # Sums of float32 are rounded otherwise by each runtime, at each of many tokens.
    reached = shares.double().cumsum(1)
    # The product is less than the sum, so that there is one: u is at most 1 - 2^-24.
    return (reached > u * reached[:, -1:]).to(torch.int32).argmax(1, keepdim=True)


class _Sampler(nn.Module):
    """What all tasks share.

    Args:
        network: of as many tokens as there are codes, and the special ones.
        codes: of the tokens from SPECIAL on: code points, or events.
        frequencies: of the choices of each control that decides about labels, one after the other.
    """

    codes: Tensor
    barred: Tensor

    def __init__(
        self, network: RecurrentNetwork, codes: tuple[int, ...], frequencies: Mapping[str, tuple[float, ...]]
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("codes", torch.tensor([-1] * SPECIAL + list(codes), dtype=torch.int32))
        barred = torch.zeros(len(self.codes))
        barred[[BEGIN, UNKNOWN]] = MASKED
        self.register_buffer("barred", barred)
        self.labels, first = dict[str, int](), 0
        for name, shares in frequencies.items():
            self.register_buffer(f"cumulative_{name}", cumulative(shares))
            self.labels[name], first = first, first + len(shares)

    def label(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor | None:
        """Return the labels, int64 (n, k), drawn from the seed where none is asked for; None without any."""
        columns = []
        for name, first in self.labels.items():
            drawn = draw_choices(seed, 1, getattr(self, f"cumulative_{name}"), _DRAWN[name])[:, 0]
            columns.append(torch.where(controls[name] < 0, drawn, controls[name]) + first)
        return torch.stack(columns, 1) if columns else None

    def tokens_of(self, codes: Tensor) -> Tensor:
        """Return the tokens, int64 (n, p), of code points int32 (n, p); what is no known one is UNKNOWN."""
        same = codes[:, :, None] == self.codes[None, None, SPECIAL:]
        place = same.to(torch.int64).argmax(2) + SPECIAL
        return torch.where(same.any(2), place, UNKNOWN)


class _Loop(_Sampler):
    """What makes texts or pieces, a token at a time.

    Args:
        network, codes, frequencies: as for `_Sampler`.
        clock: what reads events; None for characters.
        bars: how often pieces have so many bars, where they are counted.
    """

    cumulative_bars: Tensor
    bars: Tensor
    least: Tensor

    # Whether an item that has made all it may is left as it is, for a later call.
    keeps = False

    def __init__(
        self,
        network: RecurrentNetwork,
        codes: tuple[int, ...],
        frequencies: Mapping[str, tuple[float, ...]],
        clock: Clock | None = None,
        bars: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__(network, codes, frequencies)
        self.clock = clock
        if bars:
            self.register_buffer("cumulative_bars", cumulative(tuple(bars.values())))
            self.register_buffer("bars", torch.tensor(list(bars)))
        # What is left out gets these logits: where that is all, the end comes, at whatever temperature.
        self.register_buffer("least", torch.where(torch.arange(len(self.codes)) == END, -1e4, MASKED))

    def start(self, n: int) -> State:
        """Return what the loop carries before the first token: zeros."""
        tokens = len(self.codes)
        parts = self.network.start(n) | {
            "token": torch.zeros(n, dtype=torch.int64),  # BEGIN
            "seen": torch.zeros(n, tokens, dtype=torch.bool),
            "done": torch.zeros(n, dtype=torch.bool),
        }
        return parts | (self.clock.start(n) if self.clock else {})

    def whole(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor | None:
        """Return how many bars a piece is to have, int64 (n,), drawn from the seed where none is asked for."""
        if "bars" not in controls:
            return None
        drawn = self.bars[draw_choices(seed, 1, self.cumulative_bars, Stream.BARS)[:, 0]]
        return torch.where(controls["bars"] > 0, controls["bars"], drawn)

    def loop(
        self, seed: Tensor, controls: dict[str, Tensor], state: State, position: Tensor
    ) -> tuple[tuple[Tensor, ...], State]:
        """Go on from a state, and make up to max_length characters or events more.

        Args:
            seed: int64 (n,).
            controls: of the card.
            state: what `start` returns, or what this did; with "position" where items are kept.
            position: how many tokens were read before, of the prompt and of what was made, int64 (n,).

        Returns:
            Content and length, int64 (n,), with tempo, metre and key of music; and the state.
        """
        prompt, most, clock = controls["prompt"], controls["max_length"][:, None], self.clock
        how = Choosing.of(controls, len(self.codes))
        label = self.label(seed, controls)
        network_step = self.network.stepper(label)
        position = position[:, None]
        given = (prompt >= 0).to(torch.int64).sum(1, keepdim=True)
        # Steps of this call that read the prompt; after them every step makes a token.
        reading = (given - position).clamp(min=0)
        last = reading + most
        width, total = _size(most.max()), _size(last.max())
        steps, column = torch.arange(total)[None], given * 0
        # What is known of all steps before the first: the tokens of the prompt, below 0 behind it, and the draws.
        at = torch.minimum(position + steps, torch.full_like(given, prompt.shape[1] - 1))
        offset = None if clock is None else clock.offset_of(label)
        prompts = [prompt] if offset is None else [moved(prompt, -offset)]
        if offset is not None and clock is not None and clock.has_instruments:  # drums stay where they are
            prompts.append(prompt)
        forced = [torch.where(steps < reading, torch.gather(self.tokens_of(each), 1, at), -1) for each in prompts]
        places = (steps - reading).clamp(min=0) + (position - given).clamp(min=0)
        streams = (Stream.TOKEN, Stream.TOKEN_IN_BLOCK)[: 1 + (len(self.codes) > _MANY)]
        u = [uniform_at(seed, places, stream).double() for stream in streams]
        tokens = torch.arange(len(self.codes))[None]
        bars = None if clock is None else clock.bars_of(label, self.whole(seed, controls))

        def goes_on(t: Tensor, _: Tensor, until: Tensor, *_parts: Tensor) -> Tensor:
            return t < until.max()

        def step(t: Tensor, made: Tensor, until: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
            before = dict(zip(names, parts, strict=True))
            place = () if clock is None or bars is None else clock.place(before, bars)
            logits, after = network_step(before["token"], before, self.barred, place)
            left_out = None if clock is None else clock.left_out(before, bars)
            logits = logits if left_out is None else torch.where(left_out, self.least, logits)
            drawn = [each.index_select(1, t) for each in u]
            token = choose(logits, before["seen"], torch.cat(drawn, 1) if len(drawn) > 1 else drawn[0], how)
            next_forced, *of_drums = (each.index_select(1, t) for each in forced)
            if of_drums:
                next_forced = torch.where(before["instrument"] % PROGRAMS == DRUMS, of_drums[0], next_forced)
            token = torch.where(next_forced < 0, token, next_forced)
            after |= {"token": token, "seen": before["seen"] | (tokens == token)}
            row = token
            if clock is not None:
                row, moved = clock.read(token, before)
                after |= moved
            if self.keeps:
                after["position"] = before["position"] + 1
                after = {name: _kept(t < until, after[name], before[name]) for name in names}
            until = torch.where(token == END, torch.minimum(until, t), until)  # which no prompt has
            made = made.scatter(1, column + t, row)
            return t + 1, made, until, *_as_it_came(after[name] for name in names)

        made = torch.full((seed.shape[0], total), BEGIN)  # in each step
        until = torch.where(state["done"][:, None], _ENDED, last)
        apart = self.network.split({name: part for name, part in state.items() if name != "done"})
        single = {"token": 0} | (clock.parts if clock is not None else {})
        apart |= {name: apart[name][:, None] + first for name, first in single.items()}
        names = list(apart)
        # No input of the graph may be carried as it is.
        carried = (torch.tensor(0), made, until, *(part.clone() for part in apart.values()))
        loop = while_loop if torch.compiler.is_exporting() else _while
        _, made, until, *parts = loop(goes_on, step, carried)
        after = dict(zip(names, parts, strict=True)) | {"done": (until < last)[:, 0]}
        after |= {name: after[name][:, 0] - first for name, first in single.items()}
        others = {name: after[name] for name in state if name in after}
        state = self.network.join(after) | others
        place = torch.arange(width)[None]
        made = torch.gather(made, 1, (reading + place).clamp(max=total - 1))
        made = torch.where(place < until - reading, made, BEGIN)
        if clock is not None:
            return (*clock.notes(made, controls["tempo"], offset), *clock.written(label, seed)), state
        content = self.codes[made]
        return (content, (content >= 0).to(torch.int64).sum(1)), state


class Generate(_Loop):
    """seed, prompt, max_length and how to choose -> code points or notes, and how many."""

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return content (n, t) or (n, t, 6), length int64 (n,), how music is written; t is the largest max_length."""
        return self.loop(seed, controls, self.start(seed.shape[0]), torch.zeros_like(seed))[0]


class StreamOn(_Loop):
    """The same, from the state that the call before left on: each call makes up to max_length tokens more."""

    keeps = True

    def forward(self, seed: Tensor, controls: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return what `Generate` does, the state with the position, and whether all has ended, bool (n,)."""
        before = {name.removeprefix("state."): part for name, part in state.items()}
        made, after = self.loop(seed, controls, before, before["position"])
        parts = [after[name.removeprefix("state.")] for name in state]
        return *made, *parts, after["done"] | (after["position"] < 0)


class Score(_Sampler):
    """A text -> how probable it is, whatever its label.

    Args:
        ends: whether texts end, so that the end counts too.
    """

    def __init__(
        self,
        network: RecurrentNetwork,
        codes: tuple[int, ...],
        frequencies: Mapping[str, tuple[float, ...]],
        *,
        ends: bool,
    ) -> None:
        super().__init__(network, codes, frequencies)
        self.ends = ends
        # A label that the training part does not have is none that a text could be of.
        logs = [math.log(share) if share else MASKED for share in frequencies.get("label", (1.0,))]
        self.register_buffer("log_frequencies", torch.tensor(logs))

    log_frequencies: Tensor

    def forward(self, content: Tensor, length: Tensor) -> Tensor:
        """Return float32 (n, 2): -log p in nats, and the number of characters.

        Args:
            content: code points, int32 (n, t), -1 behind the end.
            length: int64 (n,).
        """
        (n, width), kinds = content.shape, len(self.log_frequencies)
        # Each text once for each label that it may be of.
        tokens = self.tokens_of(content)[:, None].expand(n, kinds, width).reshape(n * kinds, width)
        last = length[:, None].expand(n, kinds).reshape(n * kinds)
        label = torch.arange(kinds)[None].expand(n, kinds).reshape(n * kinds, 1) if self.labels else None
        steps = width + int(self.ends)
        state = self.network.split(self.network.start(n * kinds))
        names, network_step = list(state), self.network.stepper(label)

        def goes_on(t: Tensor, *_: Tensor) -> Tensor:
            return (t < steps) & (t <= last).any()

        def step(t: Tensor, log_p: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
            before = torch.index_select(tokens, 1, (t - 1).clamp(min=0).reshape(1))[:, 0]
            token = torch.index_select(tokens, 1, t.clamp(max=tokens.shape[1] - 1).reshape(1))[:, 0]
            before = torch.where(t == 0, BEGIN, before)[:, None]
            logits, after = network_step(before, dict(zip(names, parts, strict=True)), torch.zeros(()))
            target = torch.where(t < last, token, END)
            found = torch.gather(torch.log_softmax(logits, 1), 1, target[:, None])[:, 0]
            counts = t <= last if self.ends else t < last
            log_p = log_p + torch.where(counts, found, 0.0)
            return t + 1, log_p, *_as_it_came(after[name] for name in names)

        carried = (torch.tensor(0), torch.zeros(n * kinds), *(part.clone() for part in state.values()))
        loop = while_loop if torch.compiler.is_exporting() else _while
        _, log_p, *_ = loop(goes_on, step, carried)
        nats = -torch.logsumexp(log_p.view(n, kinds) + self.log_frequencies, 1)
        return torch.stack([nats, length.float()], 1)


def _size(number: Tensor) -> int:
    """Return a number of steps, which is at least one, as a size of tensors."""
    size = int(number.item())
    torch._check(size >= 1)  # type: ignore[no-untyped-call]  # torch has no types here
    torch._check(size <= _MOST_CHARACTERS)  # type: ignore[no-untyped-call]
    return size


def _while(condition: Any, body: Any, carried: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Loop in Python as `while_loop` does in a graph; in eager torch that one would compile first."""
    while condition(*carried):
        carried = body(*carried)
    return carried


def _as_it_came(parts: Iterable[Tensor]) -> list[Tensor]:
    """Return what a loop carries, lying in memory as what came in does; else none is made."""
    return [part.contiguous() for part in parts]


def _kept(alive: Tensor, after: Tensor, before: Tensor) -> Tensor:
    """Return what comes after where an item is alive, bool (n,), and what was before elsewhere."""
    alive = alive.reshape(-1, *[1] * (after.ndim - 1))
    # Flags are only ever set; few runtimes choose between two of them.
    return before | (alive & after) if after.dtype == torch.bool else torch.where(alive, after, before)
