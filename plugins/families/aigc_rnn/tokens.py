"""What the families of texts and of music share: their tokens, their network, and how tokens are chosen."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import AdamW

from aigc_rnn.config import NetworkConfig
from aigc_rnn.networks import MASKED, RecurrentNetwork
from aigc_rnn.sampler import SPECIAL, UNKNOWN, StreamOn
from aigc_sdk.card import Control, StatePart, checked
from aigc_sdk.errors import InvalidData
from aigc_sdk.training import Family, Size

# Items in a batch, and of a stream characters in each place, with the steps from which on each is worth while: few
# steps of many characters teach less than many of few (benchmarks/text_budget.py).
SIZES = tuple(Size({"batch_size": size}, steps) for size, steps in ((16, 300), (32, 4000), (64, 10_000)))
STREAM_SIZES = (
    Size({"batch_size": 16, "span": 64}, 300),
    Size({"batch_size": 32, "span": 64}, 5000),
    Size({"batch_size": 32, "span": 128}, 10_000),
    Size({"batch_size": 64, "span": 128}, 20_000),
)

# A training that is given no limit makes so many passes, in so many steps at least, unless those are too many passes,
# and at most.
_PASSES, _MOST_PASSES, _LEAST_STEPS, _MOST_STEPS = 20, 100, 3000, 20_000


def usual_steps(pass_steps: int, most_passes: int = _MOST_PASSES) -> int:
    """Return how many steps a training has that is given no limit, of so many steps a pass.

    Example:
        >>> usual_steps(1), usual_steps(100), usual_steps(500), usual_steps(5000)
        (100, 3000, 10000, 20000)
    """
    steps = min(max(_PASSES * pass_steps, _LEAST_STEPS), _MOST_STEPS)
    return min(steps, most_passes * pass_steps)


def known_codes(counts: Mapping[str, int], config: NetworkConfig, what: str) -> list[int]:
    """Return the codes that occur often enough to be tokens, in order; raises InvalidData when there are too few."""
    codes = sorted(ord(character) for character, count in counts.items() if count >= config.min_count)
    if len(codes) < 2:
        raise InvalidData(
            f"Of {len(counts)} {what}, {len(codes)} occur at least min_count={config.min_count} times;"
            " give more, or a smaller min_count."
        )
    return codes


def network_of(config: NetworkConfig, codes: int, labels: int, places: Sequence[int] = ()) -> RecurrentNetwork:
    """Make the network for so many codes."""
    return RecurrentNetwork(
        SPECIAL + codes,
        labels,
        places,
        cell=config.cell,
        layers=config.layers,
        width=config.width,
        dropout=config.dropout,
        tied=config.tied,
        layer_norm=config.layer_norm,
        attention=config.attention,
    )


def rows_of(
    network: RecurrentNetwork, codes: tuple[str, ...], labels: tuple[str, ...], places: tuple[str, ...] = ()
) -> dict[str, tuple[str, ...]]:
    """Return what the rows of the network's tables, and of the buffer of its codes, belong to.

    Args:
        network: with the name "network" in its family.
        codes: a name for each, in order.
        labels: the same of labels.
        places: the same of places.
    """
    tokens = ("begin", "end", "unknown", *codes)
    rows = {"codes": codes}
    rows |= {f"network.{name}": tokens for name in ("embedding.weight", "output.weight", "output.bias")}
    rows |= {"network.label.weight": labels} if network.label is not None else {}
    return rows | ({"network.place.weight": places} if network.place is not None else {})


def folded_biases(network: RecurrentNetwork, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the biases of a network out of what its model file holds.

    The exporter works out sums beforehand: of the two biases of each layer of an LSTM or tanh RNN, and of those of the
    output with what bars tokens that stand for no code. The file has them in the order of the layers.
    """
    named = network.state_dict()
    others = [each for name, each in tensors.items() if name.removeprefix("network.") not in named and "." not in name]
    found = dict[str, Tensor]()
    rows = len(named["layers.0.bias_x"])
    sums = [each for each in others if each.shape == (rows,)]
    if network.cell != "gru" and len(sums) == len(network.layers):
        for i, total in enumerate(sums):
            found |= {f"network.layers.{i}.bias_x": total, f"network.layers.{i}.bias_h": torch.zeros_like(total)}
    outputs = [each for name, each in tensors.items() if each.shape == named["output.bias"].shape and name != "least"]
    if "network.output.bias" not in tensors and len(outputs) == 1:
        is_barred = outputs[0] < MASKED / 2  # so far that no digit of the bias is left; they are improbable
        found["network.output.bias"] = torch.where(is_barred, outputs[0][~is_barred].min(), outputs[0])
    if "network.output.weight" not in tensors and "network.embedding.weight" in tensors:  # tied: it is stored once
        found["network.output.weight"] = tensors["network.embedding.weight"]
    return found


def adam(family: Family) -> AdamW:
    """Make the optimizer of all weights."""
    return AdamW(family.parameters(), lr=family.config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)


def tokens_of(known: Tensor, codes: Tensor) -> Tensor:
    """Return the tokens, int64 (n, t), of codes; what is not known, or nothing, is UNKNOWN.

    Args:
        known: the codes of the tokens from SPECIAL on, in order, int32 (k,).
        codes: int32 (n, t).
    """
    place = torch.searchsorted(known, codes).clamp(max=len(known) - 1)
    return torch.where(known[place] == codes, place + SPECIAL, UNKNOWN)


def choosing_controls(config: NetworkConfig, codes: int, what: str) -> list[Control]:
    """Return the controls that say how a token is chosen, of so many; `what` is what people call one."""
    return [
        Control(
            name="temperature",
            kind="number",
            minimum=0,
            maximum=5,
            default=config.temperature,
            help=f"1 as trained, less is more probable, 0 the most probable {what} each time",
        ),
        Control(
            name="top_k",
            kind="integer",
            minimum=0,
            maximum=codes,
            default=0,
            help=f"choose among the so many most probable {what}s; 0 among all",
        ),
        Control(
            name="top_p",
            kind="number",
            minimum=0.01,
            maximum=1,
            default=config.top_p,
            help=f"choose among the most probable {what}s whose probabilities sum to this",
        ),
        Control(
            name="repetition_penalty",
            kind="number",
            minimum=1,
            maximum=5,
            default=1.0,
            help="divide the logit of what was there already by this; 1 for no penalty",
        ),
    ]


def state_of(loop: StreamOn) -> tuple[StatePart, ...]:
    """Return what a loop carries from call to call."""
    values = [
        {"name": name, "dtype": str(part.dtype).removeprefix("torch."), "shape": tuple(part.shape[1:])}
        for name, part in loop.start(1).items()
    ]
    return tuple(checked(StatePart, value) for value in values)
