"""Random bits in torch, written so that they export to ONNX and stay exact in every runtime.

Each use of randomness in a model has a stream of its own. A draw is a function of the item's seed, the
stream and the position within the draw, so that it depends neither on other draws nor on other items.
"""

import statistics
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_MASK = 0xFFFFFFFF
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

# The normal quantile table has this many intervals; its ends are at half of a 2^-15 step.
_INTERVALS = 4096
_END = 2.0**-16


class Stream(IntEnum):
    """What each stream of random numbers is for; a number stands for one use only, in all families."""

    LATENT = 0
    LABEL = 1
    POSTERIOR = 2
    CANDIDATE_LATENT = 3
    CANDIDATE_LABEL = 4
    TOKEN = 5
    TOKEN_IN_BLOCK = 6
    KEY = 7
    METER = 8
    BARS = 9


def threefry(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the two random words of Threefry-2x32-20 (Salmon et al. 2011) for each key and counter.

    Args:
        key: two int64 tensors that hold 32-bit words.
        counter: two more; all four broadcast against each other.

    Returns:
        Two int64 tensors that hold 32-bit words.

    Example:
        >>> zero = torch.zeros(1, dtype=torch.long)
        >>> [hex(word.item()) for word in threefry((zero, zero), (zero, zero))]
        ['0x6b200159', '0x99ba4efe']
    """
    words: tuple[Tensor, Tensor] = torch.ops.aigc.threefry(*key, *counter)
    return words


def rounds(key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the two words of Threefry for whatever has +, &, |, ^, and << and >> of what is not negative."""
    # These alone, on int64, stay exact in an exported graph. The sum x0 may outgrow 32 bits, its low ones stay right;
    # x1, which is shifted, may not. A rotation is what a left shift keeps in the low word, and what it puts into the
    # high one.
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x0, x1 = counter[0] + keys[0], (counter[1] + keys[1]) & _MASK
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            wide = x1 << rotation
            x1 = ((wide | (wide >> 32)) ^ x0) & _MASK
        x0 = x0 + keys[(block + 1) % 3]
        x1 = (x1 + (keys[(block + 2) % 3] + (block + 1))) & _MASK
    return x0 & _MASK, x1


# One operator for torch, so that tracing a sampler does not go through all of its steps several times.
@torch.library.custom_op("aigc::threefry", mutates_args=())
def _threefry(key_0: Tensor, key_1: Tensor, counter_0: Tensor, counter_1: Tensor) -> tuple[Tensor, Tensor]:
    return rounds((key_0, key_1), (counter_0, counter_1))


@_threefry.register_fake
def _shapes(key_0: Tensor, key_1: Tensor, counter_0: Tensor, counter_1: Tensor) -> tuple[Tensor, Tensor]:
    word = key_0 + key_1 + counter_0 + counter_1
    return torch.empty_like(word), torch.empty_like(word)


def bits(seed: Tensor, count: int, stream: Stream) -> Tensor:
    """Return `count` random 32-bit words for each seed, those at positions 0 to count - 1; see `bits_at`."""
    return bits_at(seed, torch.arange(count)[None, :], stream)


def bits_at(seed: Tensor, positions: Tensor, stream: Stream) -> Tensor:
    """Return the random 32-bit words of each seed at these positions.

    Args:
        seed: int64 (n,), any value.
        positions: int64 (n, count) or (1, count), 0 to 2^32 - 1.
        stream: what they are for.

    Returns:
        int64 (n, count), 0 to 2^32 - 1.
    """
    low = seed & _MASK
    # Without its low word the seed divides by 2^32, so that a shift and a division agree for negative seeds too.
    high = ((seed - low) >> 32) & _MASK
    return threefry((low[:, None], high[:, None]), (positions, torch.tensor([[int(stream)]])))[0]


def uniform(seed: Tensor, count: int, stream: Stream) -> Tensor:
    """Return float32 (n, count), uniform in [0, 1), those at positions 0 to count - 1; see `uniform_at`."""
    return uniform_at(seed, torch.arange(count)[None, :], stream)


def uniform_at(seed: Tensor, positions: Tensor, stream: Stream) -> Tensor:
    """Return float32 (n, count), uniform in [0, 1): the top 24 bits of each word times 2^-24; see `bits_at`."""
    return (bits_at(seed, positions, stream) >> 8).float() * 2.0**-24


def normal(seed: Tensor, count: int, stream: Stream) -> Tensor:
    """Return float32 (n, count), standard normal by a table of quantiles with linear interpolation.

    The top 12 bits of each word pick the interval, the next 16 the place in it. The tails end near 4.2.
    A table is bit-identical in every runtime; logarithms and cosines are not.
    """
    word = bits(seed, count, stream)
    index, part = word >> 20, ((word & 0xFFFFF) >> 4).float() * 2.0**-16
    low, high = (F.embedding(place, _QUANTILES)[..., 0] for place in (index, index + 1))
    return low + (high - low) * part


def draw_choice(choice: Tensor, seed: Tensor, cumulative: Tensor) -> Tensor:
    """Return each item's choice, and where it is -1, one drawn from the seed by the inverse CDF.

    Args:
        choice: int64 (n,), -1 to k - 1.
        seed: int64 (n,).
        cumulative: float32 (k,), the cumulative frequencies of the choices.

    Returns:
        int64 (n,), 0 to k - 1.
    """
    return torch.where(choice < 0, draw_choices(seed, 1, cumulative, Stream.LABEL)[:, 0], choice)


def draw_choices(seed: Tensor, count: int, cumulative: Tensor, stream: Stream) -> Tensor:
    """Return `count` choices for each seed, int64 (n, count), 0 to k - 1, by the inverse CDF.

    Args:
        seed: int64 (n,).
        count: choices for each item.
        cumulative: float32 (k,), the cumulative frequencies of the choices.
        stream: what they are for.
    """
    return (uniform(seed, count, stream)[:, :, None] >= cumulative[None, None, :-1]).to(torch.int64).sum(2)


def _quantiles() -> Tensor:
    inverse = statistics.NormalDist().inv_cdf
    table = [inverse(min(max(i / _INTERVALS, _END), 1 - _END)) for i in range(_INTERVALS + 1)]
    return torch.tensor(table)[:, None]


_QUANTILES = _quantiles()
