"""What data sets share: fingerprint, report, the split into train, validation and test."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidData, printable

_EXAMPLES = 5  # of what is left out, named for each reason
_WORDS = 1000  # characters of a name and a detail


@dataclass(frozen=True)
class DataSpec:
    """What a family needs to know of the data to build its modules.

    Attributes:
        shape: of one item: (height, width, channels) of images, (characters of the longest,) of texts, ...
        labels: the names of the classes, () for data without labels.
        label_frequencies: how often each class occurs in the training part; sums to 1.
        n: items in the training part.
        details: what else the modality says, such as `aigc_text.data.TextDetails`; None for most.
    """

    shape: tuple[int, ...]
    labels: tuple[str, ...]
    label_frequencies: tuple[float, ...]
    n: int
    details: Any = None


def examples(names: Sequence[str], count: int | None = None) -> str:
    """Return the first few of some names, of which there are so many, for people.

    Example:
        >>> examples(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d, e, ...'
    """
    more = ", ..." if max(len(names), count or 0) > min(len(names), _EXAMPLES) else ""
    return f"{', '.join(map(printable, names[:_EXAMPLES]))}{more}"


@dataclass
class Skipped:
    """How many were left out for one reason, and the first few of them by name."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class DataReport:
    """What reading a data set found; `str` of it is for people.

    Attributes:
        n: how many items were read and kept.
        skipped: what was left out, by reason.
        notes: what else is worth knowing.
        cache_bytes: the size of the file of decoded pixels in the cache; 0 without one.
        left_out: all that was left out, a line for each: the reason, a tab, the name and the detail.
        what: the items are, one of them, such as "image".

    Example:
        >>> report = DataReport(n=3)
        >>> report.skip("unreadable", "cat.png", "image file is truncated")
        >>> print(report)
        3 items read, 1 left out
          unreadable: 1 (cat.png: image file is truncated)
    """

    n: int = 0
    skipped: dict[str, Skipped] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cache_bytes: int = field(default=0, compare=False)
    left_out: list[str] = field(default_factory=list, repr=False)
    what: str = "item"

    def skip(self, reason: str, name: str, detail: str = "") -> None:
        """Count one that is left out."""
        skipped = self.skipped.setdefault(reason, Skipped())
        skipped.count += 1
        words = printable(f"{name}: {detail}" if detail else name)
        words = words if len(words) <= _WORDS else f"{words[: _WORDS - 60]}...{words[-50:]}"
        self.left_out.append(f"{reason}\t{words}")
        if len(skipped.examples) < _EXAMPLES:
            skipped.examples.append(words)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON can hold it, with examples in the place of all that was left out."""
        values = asdict(self)
        return {name: values[name] for name in ("n", "skipped", "notes")}

    @property
    def line(self) -> str:
        """The report for people, on one line."""
        return "; ".join(map(str.strip, str(self).splitlines()))

    def __str__(self) -> str:
        left_out = sum(skipped.count for skipped in self.skipped.values())
        others = f", {left_out:,} left out" if left_out else ""
        lines = [f"{self.n:,} {self.what if self.n == 1 else f'{self.what}s'} read{others}"]
        for reason, skipped in self.skipped.items():
            lines.append(f"  {reason}: {skipped.count:,} ({examples(skipped.examples, skipped.count)})")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class Sequences:
    """Items of different lengths, as codes: characters of texts, or events of music.

    Attributes:
        name: what people call them.
        codes: int32 (codes,), those of all items, one after the other.
        starts: int64 (n + 1,), where each item begins; the last is where all end.
    """

    name: str
    codes: NDArray[np.int32]
    starts: NDArray[np.int64]

    @property
    def n(self) -> int:
        """The number of items."""
        return len(self.starts) - 1

    def row_codes(self, row: int) -> NDArray[np.int32]:
        """Return the codes of one item, int32 (length,)."""
        return self.codes[self.starts[row] : self.starts[row + 1]]


def split_by_digest(
    name: str, digests: NDArray[np.uint64], validation: float, test: float, what: str
) -> dict[str, NDArray[np.int64]]:
    """Split items by their digests, uint64 (n,); raises InvalidData when nothing is left to train on."""
    place = digests / 2**64
    parts = {
        "train": np.flatnonzero(place >= test + validation),
        "validation": np.flatnonzero((place >= test) & (place < test + validation)),
        "test": np.flatnonzero(place < test),
    }
    if not len(parts["train"]):
        raise InvalidData(f"{name} has {len(digests)} {what} and none is left to train on; use smaller fractions.")
    return parts


def frequencies_of(
    labels: NDArray[np.int64] | None, names: tuple[str, ...], train: NDArray[np.int64]
) -> tuple[float, ...]:
    """Return how often each class occurs in the training part; () without labels."""
    if labels is None:
        return ()
    counts = np.bincount(labels[train], minlength=len(names))
    return tuple((counts / counts.sum()).tolist())


class Rejected(NamedTuple):
    """Why an image is left out: the reason that it is counted under, and what exactly was wrong with this one."""

    reason: str
    detail: str
