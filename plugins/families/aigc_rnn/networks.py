"""Recurrent networks over tokens: a whole sequence at once for training, a step at a time for sampling.

Besides its token every input may have a label, the same one all along, and a place, where in the whole it stands; there
may be several of each, int64 (n, k), and the vectors of all of them are added. Labels are numbered through; places are
numbered each from 0 on.

A state is a dict of tensors whose first dimension is the item, all zero at the beginning of a text:
"hidden" and, of an LSTM, "cell", float32 (n, layers, width); with attention "memory", float32 (n, span, width), the
last hidden states, and "age", int64 (n,), how many steps there were.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = dict[str, Tensor]
Read = tuple[Tensor, State]

# What is masked gets this logit: an infinity in a graph is refused by its loaders.
MASKED = -1e9

# Rows of the weights for each unit of a layer.
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class RecurrentNetwork(nn.Module):
    """Logits of the next token, of the tokens so far.

    Layers of an LSTM (Hochreiter & Schmidhuber 1997), a GRU (Cho et al. 2014) or a tanh RNN (Elman 1990).

    Args:
        tokens: how many there are.
        labels: how many there are, 0 for none.
        places: how many there are of each, () for none.
        cell: "lstm", "gru" or "rnn".
        layers: one on the other.
        width: units of each.
        dropout: share of the values between layers that are left out in training.
        tied: whether the vectors of the tokens are also the weights of the output (Press & Wolf 2016).
        layer_norm: whether what each layer gives is normalised (Ba et al. 2016).
        attention: how many of the last hidden states are attended to, 0 for none.
    """

    offsets: Tensor

    def __init__(
        self,
        tokens: int,
        labels: int,
        places: Sequence[int] = (),
        *,
        cell: str,
        layers: int,
        width: int,
        dropout: float,
        tied: bool,
        layer_norm: bool,
        attention: int,
    ) -> None:
        super().__init__()
        self.cell, self.width = cell, width
        self.embedding = nn.Embedding(tokens, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.label = nn.Embedding(labels, width) if labels else None
        self.place = nn.Embedding(sum(places), width) if places else None
        # Where tokens and each of the places begin in a table of all.
        offsets = torch.tensor([0, *accumulate((tokens, *places))][:-1])
        self.register_buffer("offsets", offsets, persistent=False)
        self.layers = nn.ModuleList([Layer(cell, width) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) if layer_norm else nn.Identity() for _ in range(layers)])
        self.dropout = nn.Dropout(dropout)
        self.attention = Attention(width, attention) if attention else None
        self.output = nn.Linear(width, tokens)
        if tied:
            self.output.weight = self.embedding.weight

    @property
    def state_shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """The shape for one item, and the dtype, of each part of the state."""
        names = ("hidden", "cell") if self.cell == "lstm" else ("hidden",)
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = dict.fromkeys(
            names, ((len(self.layers), self.width), torch.float32)
        )
        if self.attention:
            shapes |= {"memory": ((self.attention.span, self.width), torch.float32), "age": ((), torch.int64)}
        return shapes

    def start(self, n: int, device: Any = None) -> State:
        """Return the state before the first token of n texts."""
        return {
            name: torch.zeros(n, *shape, dtype=dtype, device=device)
            for name, (shape, dtype) in self.state_shapes.items()
        }

    def inputs(self, tokens: Tensor, label: Tensor | None, place: Tensor | None) -> Tensor:
        """Return the vectors (n, t, width) of tokens int64 (n, t), labels (n, k), and places (n, t, k)."""
        x: Tensor = self.embedding(tokens) * math.sqrt(self.width)
        if self.label is not None and label is not None:
            x = x + self.label(label).sum(1)[:, None]
        if self.place is None or place is None:
            return x
        row = place + self.offsets[1:] - self.embedding.num_embeddings
        return x + F.embedding_bag(row.flatten(0, 1), self.place.weight, mode="sum").view(x.shape)

    def forward(
        self, tokens: Tensor, label: Tensor | None, state: State, place: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Read whole sequences.

        Args:
            tokens: int64 (n, t).
            label: int64 (n, k), or None.
            state: before the first of them.
            place: int64 (n, t, k), or None.

        Returns:
            Logits float32 (n, t, tokens) of what comes after each, and the state after the last.
        """
        x = self.dropout(self.inputs(tokens, label, place))
        after: dict[str, list[Tensor]] = {"hidden": [], "cell": []}
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            cell = state["cell"][:, i] if "cell" in state else None
            x, hidden, cell = layer(x, state["hidden"][:, i], cell)
            after["hidden"].append(hidden)
            if cell is not None:
                after["cell"].append(cell)
            x = self.dropout(norm(x))
        made = {name: torch.stack(parts, 1) for name, parts in after.items() if parts}
        if self.attention:
            x, memory = self.attention(x, state["memory"], state["age"])
            made |= {"memory": memory, "age": state["age"] + tokens.shape[1]}
        logits: Tensor = self.output(x)
        return logits, made

    def split(self, state: State) -> State:
        """Return the state with the layers apart, "hidden.0", "hidden.1", ..., for a `stepper`: (n, width) each."""
        apart = {name: part for name, part in state.items() if name not in ("hidden", "cell")}
        for name in state.keys() - apart.keys():
            apart |= {f"{name}.{i}": state[name][:, i].contiguous() for i in range(len(self.layers))}
        return apart

    def join(self, state: State) -> State:
        """Undo `split`."""
        layers = range(len(self.layers))
        return {
            name: torch.stack([state[f"{name}.{i}"] for i in layers], 1) if f"{name}.0" in state else state[name]
            for name in self.state_shapes
        }

    def stepper(self, label: Tensor | None) -> Callable[..., Read]:
        """Return f(token int64 (n, 1), state, added, places int64 (n, k) each = ()) -> (logits, state).

        It reads a token without dropout. What is the same in all steps is made once, here: what each token, place and
        label adds to the gates of the first layer, and the weights of the others, each as one matrix where that can be.

        `state` has the layers apart, as `split` gives it; `added` is added to the logits, float32 (tokens,) or ().

        Args:
            label: int64 (n, k), or None.
        """
        first, *others = (cast(Layer, layer) for layer in self.layers)
        layers = [first.step, *(layer.joined() for layer in others)]  # the first one takes its share of the gates
        table = first.share_of(self.embedding.weight * math.sqrt(self.width))
        of_label = None
        if self.place is not None:
            table = torch.cat([table, F.linear(self.place.weight, first.weight_x)])
        if self.label is not None and label is not None:
            of_label = F.embedding(label, F.linear(self.label.weight, first.weight_x)).sum(1)

        def step(token: Tensor, state: State, added: Tensor, places: Sequence[Tensor] = ()) -> Read:
            if places:
                x = F.embedding(torch.cat([token, *places], 1) + self.offsets, table).sum(1)
            else:
                x = F.embedding(token[:, 0], table)
            x = x if of_label is None else x + of_label
            after: State = {}
            for i, (layer, norm) in enumerate(zip(layers, self.norms, strict=True)):
                hidden, cell = layer(x, state[f"hidden.{i}"], state.get(f"cell.{i}"))
                after[f"hidden.{i}"] = hidden
                if cell is not None:
                    after[f"cell.{i}"] = cell
                x = norm(hidden)
            if self.attention:
                y, after["memory"] = self.attention(x[:, None], state["memory"], state["age"])
                x, after["age"] = y[:, 0], state["age"] + 1
            return F.linear(x, self.output.weight, self.output.bias + added), after

        return step


class Attention(nn.Module):
    """What is read now, with what the last hidden states hold that fits to it (Luong et al. 2015, eq. 5, 8, "general").

    Args:
        width: of a hidden state.
        span: how many of the last ones are looked at; the present one is not among them.
    """

    def __init__(self, width: int, span: int) -> None:
        super().__init__()
        self.span = span
        self.query = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, memory: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """Attend at every step of a sequence.

        Args:
            x: hidden states, (n, t, width).
            memory: those before the first, (n, span, width), zeros where there were none.
            age: how many steps there were before the first, int64 (n,).

        Returns:
            (n, t, width), and the memory after the last step.
        """
        steps = x.shape[1]
        states = torch.cat([memory, x], 1)
        scores = self.query(x) @ states.transpose(1, 2) / math.sqrt(x.shape[2])
        # Step i looks at the states i to i + span - 1 of these, which came just before it, if they are of this text.
        step, place = torch.arange(steps, device=x.device)[:, None], torch.arange(steps + self.span, device=x.device)
        near = (place >= step) & (place < step + self.span)
        there = place >= self.span - age[:, None]
        seen = near[None] & there[:, None]
        weights = torch.softmax(torch.where(seen, scores, MASKED), -1)
        # At the first step there is nothing to look at.
        found = torch.where(seen, weights, 0.0) @ states
        return torch.tanh(self.mix(torch.cat([found, x], 2))), states[:, steps:]


class Layer(nn.Module):
    """One recurrent layer, for whole sequences in torch's own kernels or for a step in operators that can be exported.

    Args:
        kind: "lstm", "gru" or "rnn".
        width: of what goes in and comes out.
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        rows, bound = _GATES[kind] * width, width**-0.5
        self.weight_x, self.weight_h = (nn.Parameter(torch.empty(rows, width).uniform_(-bound, bound)) for _ in "xh")
        self.bias_x, self.bias_h = (nn.Parameter(torch.zeros(rows)) for _ in "xh")
        if kind == "lstm":  # at first it remembers (Jozefowicz et al. 2015, section 2.2)
            nn.init.ones_(self.bias_x[width : 2 * width])

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Read (n, t, width) from a state (n, width); return what comes out at each step, and the state at the end."""
        weights: list[Tensor] = [self.weight_x, self.weight_h, self.bias_x, self.bias_h]
        options = (weights, True, 1, 0.0, self.training, False, True)  # one layer, one direction, the batch first
        hidden = hidden[None].contiguous()
        if cell is not None:
            x, hidden, cell = torch.lstm(x, (hidden, cell[None].contiguous()), *options)
            return x, hidden[0], cell[0]
        x, hidden = (torch.gru if self.kind == "gru" else torch.rnn_tanh)(x, hidden, *options)
        return x, hidden[0], None

    def share_of(self, x: Tensor) -> Tensor:
        """Return what inputs (n, width) add to the gates, (n, rows)."""
        return F.linear(x, self.weight_x, self.bias_x if self.kind == "gru" else self.bias_x + self.bias_h)

    def step(self, share: Tensor, hidden: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Read the share of one input (n, rows); return the hidden state, which is what comes out, and the cell's."""
        if self.kind == "gru":
            from_h = F.linear(hidden, self.weight_h, self.bias_h)
            (reset_x, update_x, new_x), (reset_h, update_h, new_h) = share.chunk(3, 1), from_h.chunk(3, 1)
            update = torch.sigmoid(update_x + update_h)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            return (1 - update) * new + update * hidden, None
        # The share where a bias would be: one operator, not two.
        return _opened(F.linear(hidden, self.weight_h, share), cell)

    def joined(self) -> Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
        """Return f(x, hidden, cell) -> what `step` returns of the share of x: of one product, where that can be."""
        if self.kind == "gru":
            return lambda x, hidden, cell: self.step(self.share_of(x), hidden, cell)
        weights, bias = torch.cat([self.weight_x, self.weight_h], 1), self.bias_x + self.bias_h
        return lambda x, hidden, cell: _opened(F.linear(torch.cat([x, hidden], 1), weights, bias), cell)


def _opened(gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the hidden state and the cell's, by the gates of an LSTM or the sum of a tanh RNN, which has no cell."""
    if cell is None:
        return torch.tanh(gates), None
    into, keep, new, out = gates.chunk(4, 1)
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(into) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(cell), cell
