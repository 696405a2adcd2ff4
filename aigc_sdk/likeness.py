"""Likeness: whether items made again are those that were made before, but for rounding.

Numbers are compared as what they are. A whole number is the same if it is equal, and within rounding if it is one
step away, such as a level of a pixel. A float is within rounding if it is at most 1e-4 away, or 1e-4 of its value
where that is beyond 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Contents of one size pass when at most this share of their values differs, all of them within rounding.
SHARE = 1e-3
# Of contents of variable length this share is the same: where a number is rounded otherwise, all that follows differs.
SAME_ITEMS = 0.75
# More is no rounding: this share of the values, or so many times of what rounding explains.
GROSS_SHARE, GROSS_TIMES = 1e-2, 10

_FLOAT_GAP = 1e-4
_CONTENT = "content"

IDENTICAL = "identical"


@dataclass(frozen=True)
class Made:
    """One item as arrays.

    Attributes:
        content: as long as the item is.
        parts: what else was made with it, by name: of the output `content.NAME` the row of this item.
    """

    content: Array
    parts: Mapping[str, Array]


@dataclass(frozen=True)
class Gap:
    """How far arrays are apart.

    Attributes:
        values: how many there are.
        differing: how many of them differ; of floats by more than rounding explains.
        largest: the largest difference, in steps of whole numbers, or in what rounding explains of a float. Infinite
            where one is NaN, or infinite, and the other is another.
    """

    values: int = 0
    differing: int = 0
    largest: float = 0.0

    @classmethod
    def of(cls, made: Array, wanted: Array) -> "Gap":
        """Compare arrays; where one is longer than the other in its first dimension, the rest of it differs.

        Example:
            >>> Gap.of(np.array([1, 2, 3], np.uint8), np.array([1, 2, 5], np.uint8))
            Gap(values=3, differing=1, largest=2.0)
            >>> Gap.of(np.array([0.5, 0.25], np.float32), np.array([0.5, 0.5], np.float32)).differing
            1
        """
        if made.dtype != wanted.dtype or made.shape[1:] != wanted.shape[1:] or made.ndim != wanted.ndim:
            return cls(wanted.size, wanted.size, np.inf)
        made, wanted = np.atleast_1d(made, wanted)
        n = min(len(made), len(wanted))
        gaps = _gaps(made[:n], wanted[:n])
        rest = max(made.size, wanted.size) - gaps.size
        differing = int((gaps > (wanted.dtype.kind == "f")).sum())
        largest = float(gaps.max(initial=0))
        return cls(gaps.size + rest, differing + rest, np.inf if rest else largest)

    def __add__(self, other: "Gap") -> "Gap":
        return Gap(self.values + other.values, self.differing + other.differing, max(self.largest, other.largest))

    @property
    def share(self) -> float:
        """The share of the values that differs."""
        return self.differing / max(1, self.values)

    @property
    def is_gross(self) -> bool:
        """Whether rounding cannot explain it."""
        return self.share > GROSS_SHARE or self.largest > GROSS_TIMES


@dataclass(frozen=True)
class Likeness:
    """What a comparison found.

    Attributes:
        passed: the items are the same, within the tolerance.
        measured: what differs, in words.
        is_gross: they differ by more than rounding explains.
    """

    passed: bool
    measured: str
    is_gross: bool = False


def same_rows(made: Array, wanted: Array) -> NDArray[np.bool_]:
    """Return which rows of two arrays of one shape are the same, bool (n,); floats may differ by rounding.

    Example:
        >>> same_rows(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 5]])).tolist()
        [True, False]
    """
    same: NDArray[np.bool_] = _gaps(made, wanted) <= (wanted.dtype.kind == "f")
    return np.asarray(same.reshape(len(wanted), -1).all(1))


def compare_arrays(made: Array, wanted: Array, least: int = 0) -> Likeness:
    """Compare arrays of one size, such as images.

    Args:
        made: (n, ...).
        wanted: of the same dtype and shape.
        least: so many values may differ within rounding, even if they are more than the share.

    Example:
        >>> levels = np.full((1, 28, 28, 1), 7, np.uint8)
        >>> compare_arrays(levels, levels + 1)
        Likeness(passed=False, measured='1.0e+00 of the values differ, by at most 1', is_gross=True)
    """
    return _of_one_size(Gap.of(made, wanted), wanted.dtype, least)


def compare_items(made: Sequence[Made], wanted: Sequence[Made], *, has_length: bool, plural: str = "items") -> Likeness:
    """Compare items with those that they should be: their contents and all their parts.

    Args:
        made: the items.
        wanted: as many, at least one; without parts they are compared by their contents.
        has_length: whether the contents are of variable length.
        plural: what messages call such items.
    """
    gaps = [_gaps_of(one, other) for one, other in zip(made, wanted, strict=True)]
    totals = {name: sum((each[name] for each in gaps), Gap()) for name in gaps[0]}
    content, dtype = totals.pop(_CONTENT), wanted[0].content.dtype
    missed = [name for name, total in totals.items() if total.differing]
    if has_length:
        same = sum(not any(gap.differing for gap in each.values()) for each in gaps)
        is_far = content.share > GROSS_SHARE or (dtype.kind == "f" and content.is_gross)  # codes have no steps
        likeness = Likeness(same >= SAME_ITEMS * len(gaps), f"{same} of {len(gaps)} {plural} are the same", is_far)
    else:
        alike = _of_one_size(content, dtype)
        likeness = Likeness(alike.passed and not missed, alike.measured, alike.is_gross)
    words = [f"{name} differs in {sum(each[name].differing > 0 for each in gaps)} of {len(gaps)}" for name in missed]
    is_gross = likeness.is_gross or any(total.is_gross for total in totals.values())
    return Likeness(likeness.passed, "; ".join([likeness.measured, *words]), not likeness.passed and is_gross)


def _of_one_size(gap: Gap, dtype: np.dtype[Any], least: int = 0) -> Likeness:
    passed = gap.differing <= max(least, SHARE * gap.values) and gap.largest <= 1
    by = f"{gap.largest:.3g} times the tolerance" if dtype.kind == "f" else f"{gap.largest:.0f}"
    return Likeness(passed, f"{gap.share:.1e} of the values differ, by at most {by}", not passed and gap.is_gross)


def _gaps_of(made: Made, wanted: Made) -> dict[str, Gap]:
    """Return how far the content and each part that the wanted item has are away."""
    parts = {name: Gap.of(made.parts[name], part) for name, part in wanted.parts.items()}
    return {_CONTENT: Gap.of(made.content, wanted.content), **parts}


def _gaps(made: Array, wanted: Array) -> NDArray[np.float64]:
    """Return how far each value is away: in steps, or in what rounding explains of a float."""
    if wanted.dtype.kind != "f":
        steps = np.abs(made.astype(np.float64) - wanted.astype(np.float64))
        return np.where(made == wanted, 0.0, np.maximum(steps, 1))  # beyond 2^53 float64 has no single steps
    one, other = made.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gaps = np.abs(one - other) / (_FLOAT_GAP * np.maximum(1, np.abs(other)))
    return np.where(one == other, 0.0, np.where(np.isfinite(gaps), gaps, np.inf))
