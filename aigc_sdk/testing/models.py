"""The rules for a model: a file of the contract, or a generator of a plugin."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidRequest, UnknownName
from aigc_sdk.generation import make_contents
from aigc_sdk.generator import Generator, check_items
from aigc_sdk.kinds import kind_of
from aigc_sdk.likeness import Made
from aigc_sdk.request import Request, build_request
from aigc_sdk.testing.checks import Check, require
from aigc_sdk.testing.feeds import beside, example_feeds, feeds_of

Array = NDArray[Any]


@dataclass(frozen=True)
class ModelCase:
    """A model to check.

    Attributes:
        generator: the model, loaded.
        path: its file, None for a generator of a plugin.
        tolerance: by how much an item may differ between runs of another number of items: 0 but for eager torch,
            which may round differently.
    """

    generator: Generator
    path: Path | None = None
    tolerance: float = 0

    def items(self, seeds: Array, feeds: dict[str, Array]) -> list[Made]:
        """Run the model and return its items, each as long as it says."""
        return check_items(self.generator.card, self.generator.run(seeds, feeds), len(seeds))

    def defaults(self, n: int) -> tuple[Array, dict[str, Array]]:
        """Return seeds, and controls as a caller gets them who gives those alone that have no default."""
        seeds, feeds = example_feeds(self.generator.card.controls, n, seed=7)
        for control in self.generator.card.controls:
            if control.default is not None:
                kind = kind_of(control)
                one = kind.stack(control, [kind.decode(control, control.default, control.name)])
                feeds[control.name] = np.repeat(one, n, axis=0)
        return seeds, feeds

    def request(self, n: int, **controls: Any) -> Request:
        """Return a request for n items that gives these controls, and those without a default."""
        card = self.generator.card
        needed = [control for control in card.controls if control.default is None]
        given = {name: values[0] for name, values in example_feeds(needed, 1, seed=7)[1].items()}
        limits: dict[str, Any] = {"seeds": None, "batch_size": None, "deadline_s": None}
        return build_request(card, n, seed=7, controls=given | controls, **limits)


def check_file_keeps_the_rules(case: ModelCase) -> None:
    """The file holds standard operators alone, a valid card, and inputs and outputs as the card declares."""
    from aigc_sdk.runtime.safety import check_model

    assert case.path is not None
    check_model(case.path.read_bytes(), case.path.name)


def check_card_lies_beside_the_file(case: ModelCase) -> None:
    """The card inside the file lies beside it as NAME.card.json, for runtimes that show no metadata."""
    assert case.path is not None
    beside = case.path.with_suffix(".card.json")
    require(beside.exists(), f"the file {beside.name}", "none")
    same = beside.read_text(encoding="utf-8") == case.generator.card.to_json()
    require(same, f"the card of {case.path.name} in {beside.name}", "another")


def check_golden_items_are_made(case: ModelCase) -> None:
    """The golden items of the card are what the file makes here."""
    from aigc_sdk.runtime import OnnxGenerator

    assert isinstance(case.generator, OnnxGenerator)
    likeness = case.generator.check_golden()
    require(likeness.passed, "the golden items", likeness.measured)


def check_content_is_as_declared(case: ModelCase) -> None:
    """Content has the dtype and shape of the card's output for any number of items, and no NaN."""
    for n in (1, 7, 64):
        for i, item in enumerate(case.items(*case.defaults(n))):
            require(bool(np.isfinite(item.content).all()), "finite content", f"NaN or infinity in item {i} of {n}")


def check_edges_of_controls_run(case: ModelCase) -> None:
    """Every control may be fed the ends of its range, and its default."""
    for control in case.generator.card.controls:
        seeds, feeds = case.defaults(2)
        case.items(seeds, {**feeds, control.name: kind_of(control).edges(control)})


def check_items_do_not_depend_on_others(case: ModelCase) -> None:
    """Row i of all that is made depends on row i of the inputs alone: it is the same among 64, among 7 and alone.

    What is fed is cut to the longest of those beside it, so that neither may its padding matter.
    """
    controls = case.generator.card.controls
    seeds, feeds = example_feeds(controls, 64, seed=5)
    whole = case.items(seeds, feeds)
    for start, size in ((0, 7), (57, 7), (0, 1), (31, 1), (63, 1)):
        rows = slice(start, start + size)
        for i, item in enumerate(case.items(seeds[rows], feeds_of(controls, feeds, rows)), start):
            gap = _gap_of(item, whole[i])
            require(gap <= case.tolerance, f"item {i} as it is among 64", f"another one among {size}, {gap:g} off")
    rows = slice(0, 8)
    for length in beside(controls):
        for i, item in enumerate(case.items(seeds[rows], feeds_of(controls, feeds, rows, length))):
            gap = _gap_of(item, whole[i])
            found = f"another one beside an item that is fed {length}, {gap:g} off"
            require(gap <= case.tolerance, f"item {i} as it is among 64", found)


def check_seed_decides(case: ModelCase) -> None:
    """The same seed and controls give the same bytes; other seeds give others, unless a control has to be given."""
    seeds, feeds = case.defaults(16)
    first, again = (case.items(seeds, feeds) for _ in range(2))
    differing = [i for i in range(16) if _bytes(first[i]) != _bytes(again[i])]
    require(not differing, "the same items of the same seeds", f"others at {differing}")
    if all(control.default is not None for control in case.generator.card.controls):
        require(len({item.content.tobytes() for item in first}) > 1, "other items of other seeds", "one for 16 seeds")


def check_choice_may_be_left_to_the_seed(case: ModelCase) -> None:
    """A choice of -1 is one that is drawn from the item's seed: the item is that of one of the choices."""
    # Where something has to be given as well, what is drawn may depend on it and change while the item is made.
    controls = case.generator.card.controls
    for control in controls:
        if control.kind != "choice" or any(each.default is None for each in controls):
            continue
        seeds, feeds = case.defaults(8)
        # A second seed may draw a choice of its own; here all seeds of an item are one.
        feeds |= {each.name: seeds for each in controls if each.kind == "seed"}
        drawn, *chosen = (
            case.items(seeds, {**feeds, control.name: np.full(8, choice, np.int64)})
            for choice in range(-1, len(control.choices))
        )
        for i, item in enumerate(drawn):
            found = any(_bytes(item) == _bytes(items[i]) for items in chosen)
            require(found, f"item {i} with {control.name} = -1 to be that of one of its choices", "another")


def check_shorter_request_is_a_prefix(case: ModelCase) -> None:
    """A request for 3 items makes the first 3 of a request for 10, and item 0 carries the request's seed."""
    short, long = (make_contents(case.generator, case.request(n)) for n in (3, 10))
    require(short[0].seed == 7, "seed 7 for item 0", short[0].seed)
    for i, item in enumerate(short):
        gap = _gap(item.data, long[i].data)
        require(gap <= case.tolerance, f"item {i} of 10", f"another one in a request for 3, {gap:g} off")


def check_values_out_of_range_are_refused(case: ModelCase) -> None:
    """A value of a control that its range does not hold is an error of ours, before anything runs."""
    for control in case.generator.card.controls:
        for value in kind_of(control).wrong(control):
            try:
                case.request(1, **{control.name: value})
            except (InvalidRequest, UnknownName):
                continue
            require(False, f"{control.name} = {value!r} to be refused; {control.allowed}", "that it is taken")


def _gap(a: Array, b: Array) -> float:
    """Return the largest difference of two items; infinity if they have not one shape."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a.astype(np.float64) - b).max(initial=0))


def _gap_of(a: Made, b: Made) -> float:
    """Return the largest difference of two items, in their contents or their parts."""
    return max(_gap(a.content, b.content), *(_gap(part, b.parts[name]) for name, part in a.parts.items()), 0)


def _bytes(item: Made) -> tuple[bytes, ...]:
    return (item.content.tobytes(), *(part.tobytes() for part in item.parts.values()))


# What every model keeps to, and what a file keeps to besides.
GENERATOR_CHECKS: tuple[Check, ...] = (
    check_content_is_as_declared,
    check_edges_of_controls_run,
    check_items_do_not_depend_on_others,
    check_seed_decides,
    check_choice_may_be_left_to_the_seed,
    check_shorter_request_is_a_prefix,
    check_values_out_of_range_are_refused,
)
FILE_CHECKS: tuple[Check, ...] = (
    check_file_keeps_the_rules,
    check_card_lies_beside_the_file,
    check_golden_items_are_made,
)
