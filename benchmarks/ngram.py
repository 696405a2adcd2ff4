"""An n-gram model of sequences of codes, as the baseline of networks that read the same.

Absolute discounting (Ney, Essen & Kneser 1994), interpolated with the next lower order, down to all codes alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DISCOUNT, ORDERS = 0.75, range(1, 9)

Codes = NDArray[np.int32]


def ngram_nats(train: Sequence[Codes], test: Sequence[Codes]) -> dict[int, NDArray[np.float64]]:
    """Return the nats of each code of the test sequences, one after the other, by the order of the model.

    Each sequence is read on from its beginning, before which there is nothing. All codes that training does not have
    count as one.

    Args:
        train: int32 (t,) each, at most 254 codes in all.
        test: the same.

    Example:
        >>> nats = ngram_nats([np.array([1, 2] * 50, np.int32)], [np.array([1, 2, 1], np.int32)])
        >>> [round(float(each.mean()), 2) for each in nats.values()][:3]
        [0.7, 0.16, 0.11]
    """
    known = np.unique(np.concatenate(train))
    bits = len(known).bit_length()  # unknown ones get the number behind the last
    learnt, asked = ((_numbers(np.concatenate(part), known), _places(part)) for part in (train, test))
    p = np.full(len(asked[0]), 1 / (len(known) + 1))
    found = {}
    for order in ORDERS:
        p = _interpolated(p, _grams(*learnt, order, bits), _grams(*asked, order, bits), bits)
        found[order] = -np.log(p)
    return found


def _numbers(codes: Codes, known: Codes) -> NDArray[np.uint64]:
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, place, len(known)).astype(np.uint64)


def _places(sequences: Sequence[Codes]) -> NDArray[np.int64]:
    """Return how many codes of its sequence are before each one."""
    lengths = np.array([len(each) for each in sequences])
    return np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)


def _grams(numbers: NDArray[np.uint64], places: NDArray[np.int64], order: int, bits: int) -> NDArray[np.uint64]:
    """Return the code at each place with the `order - 1` before it as one number; before all is 2^bits - 1."""
    assert order * bits <= 64
    grams = np.zeros(len(numbers), np.uint64)
    for back in reversed(range(order)):
        before = np.where(places >= back, np.roll(numbers, back), np.uint64(2**bits - 1))
        grams = grams << np.uint64(bits) | before
    return grams


def _interpolated(
    lower: NDArray[np.float64], known: NDArray[np.uint64], asked: NDArray[np.uint64], bits: int
) -> NDArray[np.float64]:
    """Return p(code | those before) of one order, of that of the next lower one."""
    grams, counts = np.unique(known, return_counts=True)
    contexts, first = np.unique(grams >> np.uint64(bits), return_index=True)
    totals, kinds = np.add.reduceat(counts, first), np.diff(np.append(first, len(grams)))

    def look(values: NDArray[Any], keys: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.float64]:
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where(keys[at] == wanted, values[at], 0).astype(np.float64)

    before = asked >> np.uint64(bits)
    count, total, kind = look(counts, grams, asked), look(totals, contexts, before), look(kinds, contexts, before)
    seen = np.maximum(total, 1)
    return np.where(total > 0, (np.maximum(count - DISCOUNT, 0) + DISCOUNT * kind * lower) / seen, lower)
