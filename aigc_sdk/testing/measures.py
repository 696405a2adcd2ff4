"""The rules for a measure: a file of the contract that takes content and gives numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.modality import find_modality, trimmed
from aigc_sdk.testing.checks import Check, require

if TYPE_CHECKING:
    from aigc_sdk.runtime import OnnxMeasure


@dataclass(frozen=True)
class MeasureCase:
    """A measure to check, and its file."""

    measure: OnnxMeasure
    path: Path

    def contents(self, n: int) -> NDArray[Any]:
        """Return n contents that the measure takes, small and different ones."""
        taken = self.measure.card.input
        assert taken is not None
        return find_modality(self.measure.card.modality).examples.contents(taken, n, np.random.default_rng(7))


def check_measure_file_keeps_the_rules(case: MeasureCase) -> None:
    """The file holds standard operators alone, a valid card, and the input and output that the card declares."""
    from aigc_sdk.runtime.safety import check_model

    check_model(case.path.read_bytes(), case.path.name)


def check_measure_card_lies_beside_the_file(case: MeasureCase) -> None:
    """The card inside the file lies beside it as NAME.card.json, for runtimes that show no metadata."""
    beside = case.path.with_suffix(".card.json")
    require(beside.exists(), f"the file {beside.name}", "none")
    same = beside.read_text(encoding="utf-8") == case.measure.card.to_json()
    require(same, f"the card of {case.path.name} in {beside.name}", "another")


def check_golden_values_are_measured(case: MeasureCase) -> None:
    """The golden values of the card are what the file measures here of the golden content."""
    likeness = case.measure.check_golden()
    require(likeness.passed, "the golden values", likeness.measured)


def check_values_do_not_depend_on_others(case: MeasureCase) -> None:
    """Values are finite, as the card declares, and row i is of item i alone: the same among 64, among 7 and alone."""
    from aigc_sdk.runtime.onnx_measure import within_tolerance

    contents, taken = case.contents(64), case.measure.card.input
    whole = case.measure.run(contents)
    for start, size in ((0, 7), (57, 7), (0, 1), (31, 1), (63, 1)):
        some = contents[start : start + size]
        part = case.measure.run(
            trimmed(some, find_modality(case.measure.card.modality).filler) if taken and taken.length else some
        )
        same = within_tolerance(part, whole[start : start + size])
        require(same, f"the values of item {start} as they are among 64", f"others among {size}")


def check_other_contents_have_other_values(case: MeasureCase) -> None:
    """Items that differ are measured differently, so that there is something to compare."""
    values = case.measure.run(case.contents(8))
    require(len(np.unique(values, axis=0)) > 1, "other values of other items", "the same for 8 of them")


MEASURE_CHECKS: tuple[Check, ...] = (
    check_measure_file_keeps_the_rules,
    check_measure_card_lies_beside_the_file,
    check_golden_values_are_measured,
    check_values_do_not_depend_on_others,
    check_other_contents_have_other_values,
)
