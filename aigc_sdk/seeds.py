"""Seeds: which are accepted, how a request's seed becomes one seed per item, and Threefry.

A seed is a whole number from 0 to 2^53 - 1, because those survive JavaScript and JSON unchanged.
The random bits come from Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers:
as easy as 1, 2, 3"): a function of a key and a counter, with no state to carry.
"""

import os
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidRequest, shown

MAX_SEED = 2**53 - 1

# The second counter word of an item's seed; no stream inside a model uses it.
ITEM_STREAM = 0x5EED

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_WORD = 0xFFFFFFFF

# An item's index is one 32-bit word of the counter.
MAX_INDEX = 2**32

# Items whose seeds are derived at once.
_LANES = 256


def threefry(key: tuple[int, int], counter: tuple[int, int], lanes: int = 1) -> tuple[int, int]:
    """Return the two random 32-bit words of Threefry-2x32-20 for a key and a counter, or for many counters.

    Python's integers serve as long registers: the words of many counters stand 64 bits apart in one, so that one
    addition or shift serves all of them. For a hundred counters this takes about half of the time of numpy.

    Args:
        key: two 32-bit words.
        counter: two integers that hold `lanes` 32-bit words each, 64 bits apart.
        lanes: how many counters there are.

    Returns:
        Two integers that hold `lanes` words each, in the same way.

    Example:
        >>> [hex(word) for word in threefry((0, 0), (0, 0))]
        ['0x6b200159', '0x99ba4efe']
    """
    ones = _ones(lanes)
    mask = ones * _WORD
    keys = [ones * word for word in (key[0], key[1], key[0] ^ key[1] ^ _PARITY)]
    # The sum x0 may outgrow 32 bits within its lane, its low ones stay right; x1, which is shifted, may not.
    x0, x1 = counter[0] + keys[0], (counter[1] + keys[1]) & mask
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 += x1
            wide = x1 << rotation
            x1 = ((wide | (wide >> 32)) ^ x0) & mask
        x0 += keys[(block + 1) % 3]
        x1 = (x1 + keys[(block + 2) % 3] + ones * (block + 1)) & mask
    return x0 & mask, x1


@lru_cache(maxsize=4)
def _ones(lanes: int) -> int:
    """Return the integer that holds a 1 in every lane."""
    return sum(1 << 64 * lane for lane in range(lanes))


def check_seed(value: object, name: str = "seed") -> int:
    """Return the seed as an int, or raise.

    Raises:
        InvalidRequest: the value is not a whole number from 0 to 2^53 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= MAX_SEED:
        raise InvalidRequest(
            f"{name} is {shown(value)} ({type(value).__name__}); a seed is a whole number from 0 to {MAX_SEED}"
            " (2^53 - 1, the largest that JavaScript keeps whole)."
        )
    return int(value)


def check_seeds(values: object, name: str = "seeds") -> NDArray[np.int64]:
    """Return a list of item seeds as int64 (n,), or raise InvalidRequest that names the first wrong one."""
    if not isinstance(values, list) or not values:
        raise InvalidRequest(
            f"{name} is {shown(values)}; give a list of whole numbers from 0 to {MAX_SEED}, one for each item."
        )
    return np.array([check_seed(value, f"{name}[{i}]") for i, value in enumerate(values)], np.int64)


def draw_seed() -> int:
    """Return a new seed from the operating system's randomness."""
    return int.from_bytes(os.urandom(7), "little") >> 3


def item_seeds(seed: int, n: int, first: int = 0) -> NDArray[np.int64]:
    """Return the seeds of n of the items that a request's seed stands for, from item `first` on, int64 (n,).

    Item 0 carries the seed itself. Item i > 0 carries the top 53 bits of (word0 << 32 | word1) of
    Threefry with the seed's two halves as key and (i, 0x5EED) as counter. So a shorter request is a
    prefix of a longer one.

    Example:
        >>> item_seeds(7, 3).tolist()
        [7, 1128727371089977, 8352454184800371]
        >>> item_seeds(7, 2, first=1).tolist()
        [1128727371089977, 8352454184800371]
    """
    key = (seed & _WORD, seed >> 32)
    seeds = np.empty(n, "<i8")
    for start in range(0, n, _LANES):
        lanes = min(_LANES, n - start)
        ones = _ones(lanes)
        index = int.from_bytes(np.arange(first + start, first + start + lanes, dtype="<i8").tobytes(), "little")
        word0, word1 = threefry(key, (index, ones * ITEM_STREAM), lanes)
        bits = ((word0 << 32 | word1) >> 11) & (ones * MAX_SEED)
        seeds[start : start + lanes] = np.frombuffer(bits.to_bytes(8 * lanes, "little"), "<i8")
    if first == 0:
        seeds[0] = seed
    return seeds.astype(np.int64, copy=False)
