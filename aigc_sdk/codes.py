"""Texts as arrays of Unicode code points."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import GenerationFailed, shown


def encode(texts: Sequence[str | Sequence[int]]) -> NDArray[np.int32]:
    """Return the code points of texts, or given codes, int32 (n, p), -1 after the end of each; p is at least 1.

    Example:
        >>> encode(["春", ""]).tolist()
        [[26149], [-1]]
    """
    codes = np.full((len(texts), max(1, *map(len, texts))), -1, np.int32)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = list(map(ord, text)) if isinstance(text, str) else list(text)
    return codes


def decode(codes: NDArray[np.int32]) -> str:
    """Return the text of code points, int32 (p,), up to the first -1.

    Raises:
        GenerationFailed: one is none of a character.

    Example:
        >>> decode(np.array([26149, -1], np.int32))
        '春'
    """
    end = np.flatnonzero(codes == -1)
    used = codes[: end[0]] if len(end) else codes
    if ((used < 0) | (used > 0x10FFFF) | ((used >= 0xD800) & (used <= 0xDFFF))).any():
        raise GenerationFailed(f"{shown(used.tolist())} are not all code points of characters.")
    return "".join(map(chr, used.tolist()))
