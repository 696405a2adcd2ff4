"""Seeds: which are accepted, how a request's seed becomes one seed per item, and Threefry in numpy.

A seed is a whole number from 0 to 2^53 - 1, because those survive JavaScript and JSON unchanged.
The random bits come from Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers:
as easy as 1, 2, 3"): a function of a key and a counter, with no state to carry.
"""

import secrets

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidRequest, shown

MAX_SEED = 2**53 - 1

# The second counter word of an item's seed; no stream inside a model uses it.
ITEM_STREAM = 0x5EED

_PARITY = np.uint32(0x1BD11BDA)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

Words = NDArray[np.uint32]


def threefry(key: tuple[Words, Words], counter: tuple[Words, Words]) -> tuple[Words, Words]:
    """Return the two random 32-bit words of Threefry-2x32-20 for each key and counter.

    Args:
        key: two uint32 arrays.
        counter: two uint32 arrays; all four broadcast against each other.

    Example:
        >>> zero = np.zeros(1, np.uint32)
        >>> [hex(word.item()) for word in threefry((zero, zero), (zero, zero))]
        ['0x6b200159', '0x99ba4efe']
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = ((x1 << np.uint32(rotation)) | (x1 >> np.uint32(32 - rotation))) ^ x0
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x0, x1


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
    return secrets.randbits(53)


def item_seeds(seed: int, n: int) -> NDArray[np.int64]:
    """Return the seeds of the n items that a request's seed stands for, int64 (n,).

    Item 0 carries the seed itself. Item i > 0 carries the top 53 bits of (word0 << 32 | word1) of
    Threefry with the seed's two halves as key and (i, 0x5EED) as counter. So a shorter request is a
    prefix of a longer one.

    Example:
        >>> item_seeds(7, 3).tolist()
        [7, 1128727371089977, 8352454184800371]
    """
    key = (np.full(1, seed & 0xFFFFFFFF, np.uint32), np.full(1, seed >> 32, np.uint32))
    counter = (np.arange(n, dtype=np.uint32), np.full(n, ITEM_STREAM, np.uint32))
    word0, word1 = threefry(key, counter)
    bits = (word0.astype(np.uint64) << np.uint64(32)) | word1
    seeds = (bits >> np.uint64(11)).astype(np.int64)
    seeds[0] = seed
    return seeds
