"""Runs of codes that stand in other sequences too, as hashes find them: what texts and tunes have copied."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# An odd number, so that it has an inverse modulo 2^64.
_BASE = 0x9E3779B97F4A7C15
_CHUNK = 2**22

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Codes:
    """Sequences of numbers one after the other: the code points of texts, the steps of tunes.

    Attributes:
        codes: uint64 (n,).
        left: int64 (n,), how many there are from here to the end of the sequence.
        owner: int64 (n,), which text or piece each is of.
    """

    codes: NDArray[np.uint64]
    left: NDArray[np.int64]
    owner: NDArray[np.int64]

    def windows(self, size: int) -> int:
        """Return how many runs of so many codes there are."""
        return int(np.count_nonzero(self.left >= size))


def found(asked: Codes, corpus: Codes, size: int) -> Bools:
    """Return for each code whether the run of `size` that begins there stands in a sequence of the corpus.

    Runs are compared by hashes of 64 bits (Karp & Rabin 1987): sum c_k B^k mod 2^64 is a difference of two running
    sums.
    """
    hashes = np.concatenate([*_hashes(asked, size), np.zeros(0, np.uint64)])
    whole = asked.left >= size
    wanted, place = np.unique(hashes[whole], return_inverse=True)
    seen = np.zeros(len(wanted), bool)
    for start, chunk in zip(range(0, len(corpus.codes), _CHUNK), _hashes(corpus, size), strict=True):
        there = chunk[corpus.left[start : start + len(chunk)] >= size]
        at = np.searchsorted(wanted, there)
        at[at == len(wanted)] = 0
        if len(wanted):
            seen[at[wanted[at] == there]] = True
    result = np.zeros(len(asked.codes), bool)
    result[whole] = seen[place]
    return result


def _hashes(sequences: Codes, size: int) -> Iterator[NDArray[np.uint64]]:
    """Yield the hash of the run at each code, chunk by chunk; those that leave their sequence mean nothing."""
    span = min(_CHUNK, len(sequences.codes)) + size
    powers, inverses = (_powers(base, span) for base in (_BASE, pow(_BASE, -1, 2**64)))
    for start in range(0, len(sequences.codes), _CHUNK):
        n = min(_CHUNK, len(sequences.codes) - start)
        codes = np.zeros(n + size, np.uint64)
        part = sequences.codes[start : start + n + size]
        codes[: len(part)] = part
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((codes + 1) * powers[: n + size], dtype=np.uint64)])
        yield (sums[size : size + n] - sums[:n]) * inverses[:n]


def _powers(base: int, n: int) -> NDArray[np.uint64]:
    factors = np.full(n, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)
