"""Evaluator: measures how good generated items are. Score: what it measured, and under which protocol."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidRequest, shown

Direction = Literal["lower", "higher"]


@dataclass(frozen=True)
class Samples:
    """What an evaluator compares: features, one row of K numbers for each item.

    Attributes:
        fake: float32 (n_fake, K), of generated items, in the order in which they were made or given.
        real: float32 (n_real, K), of reference items that the model was not trained on, in random order.
        train: float32 (n_train, K), of what it was trained on, in random order; None when nobody said.
    """

    fake: NDArray[np.float32]
    real: NDArray[np.float32]
    train: NDArray[np.float32] | None = None

    @property
    def baseline(self) -> NDArray[np.float32] | None:
        """Training items, as many as there are generated ones: what a perfect model could have made."""
        return None if self.train is None else self.train[: len(self.fake)]


@dataclass(frozen=True)
class ItemSamples:
    """What an evaluator compares that asks for the items themselves, in the form that their modality gives them.

    Images are arrays uint8 (height, width, channels), texts `str`, pieces of music `Piece`.

    Attributes:
        fake: generated items, in the order in which they were made or given.
        real: items of the reference, which the model was not trained on, in random order.
        train: what it was trained on, in its order; of a stream of text, one text. None when nobody said.
        baseline: as many of the training items as there are generated ones, in random order.
        controls: what each generated item was asked for, by control; nothing where the contents were given.
    """

    fake: Sequence[Any]
    real: Sequence[Any]
    train: Sequence[Any] | None = None
    baseline: Sequence[Any] | None = None
    controls: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What an evaluator returns.

    Attributes:
        value: the figure.
        interval: its 95 % bootstrap interval.
        baseline: the same figure with training items in the place of generated ones, if there are any.
        details: further figures, for example a p-value.
        verdict: what the figure means, in one plain sentence.
    """

    value: float
    interval: tuple[float, float]
    baseline: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""


class Evaluator(ABC):
    """A metric: compares generated items with real ones.

    `direction` says which values are better, `explanation` what is measured, in plain words for the report;
    `min_items` is how many generated and how many real items it needs. One with `needs_train` is not measured when
    nobody knows what the model was trained on. `modality` is what it measures, or empty: features of whatever has
    them. Its spec says it too, so that a metric of something else is not imported. One with `needs_items` gets
    ItemSamples; the others of a modality that has features get these, as Samples.
    """

    direction: ClassVar[Direction]
    explanation: ClassVar[str]
    min_items: ClassVar[int] = 2
    needs_train: ClassVar[bool] = False
    needs_items: ClassVar[bool] = False
    modality: ClassVar[str] = ""

    @abstractmethod
    def measure(self, samples: Any, seed: int) -> Measured:
        """Measure; the same samples and seed give the same figures.

        Args:
            samples: Samples of finite features, or ItemSamples, with at least `min_items` generated and as many real
                items.
            seed: of the bootstrap and of every other random act.
        """


_RENAMED = {"TextSamples": ItemSamples, "MusicSamples": ItemSamples}


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is ItemSamples now, and will be gone in the next version", DeprecationWarning, 2)
    return _RENAMED[name]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure with its 95 % bootstrap interval, and all that it depends on.

    Scores compare by their values, and only scores of one protocol do: same metric, extractor, resizing, reference
    and numbers of items. `reference` and `train` are fingerprints of data; `train` is that of the training items for
    a metric that is about them, and else None.

    Example:
        >>> common = {"metric": "recall", "direction": "higher", "n_real": 100, "n_fake": 100, "extractor": "digits"}
        >>> common |= {"extractor_sha256": "ab" * 32, "resizing": "none", "reference": "cd" * 32, "seed": 0}
        >>> low, high = (Score(value=v, interval=(v - 0.05, v + 0.05), **common) for v in (0.5, 0.7))
        >>> low < high, high.compare(low)
        (True, 'better')
    """

    metric: str
    value: float
    direction: Direction
    interval: tuple[float, float]
    n_real: int
    n_fake: int
    extractor: str
    extractor_sha256: str
    resizing: str
    reference: str
    seed: int
    train: str | None = None
    baseline: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""

    @property
    def protocol(self) -> dict[str, Any]:
        """What two scores have to share to be compared."""
        names = ("metric", "extractor_sha256", "resizing", "reference", "train", "n_real", "n_fake")
        return {name: getattr(self, name) for name in names}

    @property
    def multiple(self) -> float | None:
        """The value as a multiple of the baseline, or None without one."""
        return self.value / self.baseline if self.baseline else None

    def compare(self, other: "Score") -> Literal["better", "worse", "undecided"]:
        """Say whether this score is better than the other, or undecided when their intervals overlap.

        Raises:
            InvalidRequest: they were measured by different protocols; says what differs. Or the other is no score.
        """
        if not isinstance(other, Score):
            raise InvalidRequest(f"A score cannot be compared with {shown(other)}; give another score.")
        self._check_protocol(other)
        if self.interval[0] <= other.interval[1] and other.interval[0] <= self.interval[1]:
            return "undecided"
        return "better" if (self.value < other.value) == (self.direction == "lower") else "worse"

    def __lt__(self, other: object) -> bool:
        return self._check_protocol(other) and self.value < other.value if isinstance(other, Score) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self._check_protocol(other) and self.value <= other.value if isinstance(other, Score) else NotImplemented

    def _check_protocol(self, other: "Score") -> Literal[True]:
        mine, its = self.protocol, other.protocol
        if different := [f"{name} {mine[name]} and {its[name]}" for name in mine if mine[name] != its[name]]:
            raise InvalidRequest(
                f"These scores cannot be compared, they differ in {'; '.join(different)}. Measure both the same way."
            )
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return the score as plain values, as it stands in a card and in report.json."""
        return {**asdict(self), "interval": list(self.interval), "details": dict(self.details)}
