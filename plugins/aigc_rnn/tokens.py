"""What the families of texts and of music share: their tokens, their network, and how tokens are chosen."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import AdamW

from aigc_rnn.config import NetworkConfig
from aigc_rnn.networks import RecurrentNetwork
from aigc_rnn.sampler import SPECIAL, UNKNOWN, StreamOn
from aigc_sdk.card import Control, StatePart, checked
from aigc_sdk.errors import InvalidData
from aigc_sdk.training import Family


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
