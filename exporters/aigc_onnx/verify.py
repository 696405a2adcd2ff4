"""Verification: the exported file against eager torch, and each item against itself among others."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from aigc_sdk.card import ModelCard
from aigc_sdk.errors import ExportFailed
from aigc_sdk.exporter import Check
from aigc_sdk.generator import Generator, check_items, output_names, start_state
from aigc_sdk.likeness import Gap, Made, same_rows
from aigc_sdk.modality import find_modality
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.testing.feeds import beside, example_feeds, feeds_of

Array = NDArray[Any]

# Item counts to compare at; the sampler is traced with none of them, and 17 divides nothing.
SIZES = (1, 3, 64, 17)
_REQUESTS = 4

# At most this share of the values of images may differ from eager torch, each by one level.
EAGER_SHARE = 1e-4

# At most this share of texts may differ: where a number is rounded otherwise, all that follows is another text.
EAGER_TEXTS = 1e-3
_LEAST_ITEMS = 1000


def compare_with_eager(eager: Generator, exported: Generator, least_values: int = 2**17) -> Check:
    """Compare what both make at several sizes: contents and all other outputs.

    Args:
        eager: the sampler in torch.
        exported: the file.
        least_values: how many values of contents of one size to compare in all, at least.

    Raises:
        ExportFailed: they differ by more than rounding.
    """
    if exported.card.output.length:
        return _compare_items(eager, exported)
    total = Gap()
    for is_varied, wanted, got in _both(eager, exported):
        total += sum((Gap.of(got[name], wanted[name]) for name in wanted), Gap())
        if is_varied and total.values >= least_values:
            break
    by = "" if exported.card.output.dtype.startswith("float") else f", by at most {total.largest:.0f}"
    measured = f"{total.differing} of {total.values} values differ{by} (N = {', '.join(map(str, SIZES))})"
    if total.largest > 1 or total.differing > total.values * EAGER_SHARE:
        raise ExportFailed(
            f"The exported file differs from eager torch: {measured}; allowed are {EAGER_SHARE:.0e} of them, by 1, and"
            " of floats those that differ by rounding."
        )
    return Check("same as eager torch", measured)


def _compare_items(eager: Generator, exported: Generator) -> Check:
    items = different = 0
    for is_varied, wanted, got in _both(eager, exported):
        same = np.all([same_rows(got[name], wanted[name]) for name in wanted], axis=0)
        different += int((~same).sum())
        items += len(same)
        if is_varied and items >= _LEAST_ITEMS:
            break
    plural = find_modality(exported.card.modality).plural
    measured = f"{different} of {items} {plural} differ (N = {', '.join(map(str, SIZES))})"
    if different > items * EAGER_TEXTS:
        raise ExportFailed(
            f"The exported file differs from eager torch: {measured}; allowed are {EAGER_TEXTS:.0e} of them."
        )
    return Check("same as eager torch", measured)


def _both(eager: Generator, exported: Generator) -> Iterator[tuple[bool, dict[str, Array], dict[str, Array]]]:
    """Yield, without end, whether all sizes were tried, and what eager torch and the file make of one request."""
    # A few requests of each size, then large ones: eager torch takes nearly as long for one item as for 64.
    for seed, size in enumerate(itertools.chain(SIZES * _REQUESTS, itertools.repeat(max(SIZES)))):
        seeds, feeds = example_feeds(exported.card.controls, size, seed)
        made = [model.run(seeds, feeds) for model in (eager, exported)]
        wanted, got = ({name: outputs[name] for name in output_names(exported.card)} for outputs in made)
        for name in wanted:
            (a, b) = ((each[name].dtype, each[name].shape) for each in (got, wanted))
            if a != b:
                raise ExportFailed(
                    f"At N = {size} the exported file makes {name} {a[0]} {a[1]}, eager torch {b[0]} {b[1]}."
                    " The sampler may have fixed the number of items."
                )
        yield seed + 1 >= len(SIZES) * _REQUESTS, wanted, got


def check_independence(model: bytes, card: ModelCard) -> Check:
    """Compare every item of 64 with the same one among 7 and alone, on one thread and on two.

    Texts and pieces that are fed are cut to the longest of those beside them, as in a request for these items alone.

    Args:
        model: the exported file.
        card: of the model.

    Raises:
        ExportFailed: an item depends on its neighbours, or on the number of threads.
    """
    seeds, feeds = example_feeds(card.controls, 64, 5)
    whole: list[Made] = []
    for threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(
            start: int, size: int, longest: int = 0, session: Any = session, names: list[str] = names
        ) -> list[Made]:
            rows = slice(start, start + size)
            fed = {"seed": seeds[rows], **feeds_of(card.controls, feeds, rows, longest), **start_state(card, size)}
            return check_items(card, dict(zip(names, session.run(names, fed), strict=True)), size)

        whole = whole or run(0, 64)
        for other, same in zip(run(0, 64), whole, strict=True):
            if differs := _difference(other, same):
                raise ExportFailed(f"{threads} threads make other items than one: {differs}.")
        parts = [(start, size, 0) for size in (1, 7) for start in (*range(0, 64 - size, size), 64 - size)]
        parts += [(0, 8, length) for length in beside(card.controls)]
        for start, size, longest in parts:
            for i, other in enumerate(run(start, size, longest), start):
                if differs := _difference(other, whole[i]):
                    among = f"among {size}" + (f", beside one that is fed {longest}" if longest else "")
                    raise ExportFailed(
                        f"Item {i} of 64 is another one {among}: {differs}. An item depends on its neighbours, or on"
                        " how far what is fed is padded."
                    )
    return Check("independent items", "64 items identical among 64, among 7 and alone, on one thread and on two")


def check_streaming(exported: OnnxGenerator) -> Check:
    """Compare the texts that a model makes in several calls with those that it makes in one.

    Raises:
        ExportFailed: one differs.
    """
    card = exported.card
    seeds, feeds = example_feeds(card.controls, 32, 6)
    whole = check_items(card, exported.run(seeds, feeds), 32)
    for sizes in ((1,), (3, 7), (40,)):
        state, left = start_state(card, 32), feeds["max_length"]
        pieces: list[list[Made]] = [[] for _ in range(32)]
        for size in itertools.cycle(sizes):
            steps = np.clip(left, 0, size)
            outputs = exported.go_on(seeds, {**feeds, "max_length": steps}, state)
            for made, before in zip(check_items(card, outputs, 32), pieces, strict=True):
                before.append(made)
            state = {name: outputs[f"{name}.next"] for name in state}
            left = left - steps
            if not left.any() or outputs["finished"].all():
                break
        joined = [Made(np.concatenate([each.content for each in made]), made[-1].parts) for made in pieces]
        if any(map(_difference, joined, whole)):
            raise ExportFailed(f"Items made {' and '.join(map(str, sizes))} steps at a time are others.")
    return Check("streaming", "32 items made 1, 3 and 7, and 40 steps at a time are those made at once")


def _difference(made: Made, wanted: Made) -> str:
    """Return what differs between two items, in words; nothing where they are identical."""
    others = [name for name, part in wanted.parts.items() if not np.array_equal(made.parts[name], part)]
    if made.content.shape != wanted.content.shape:
        return f"it is {made.content.shape}, not {wanted.content.shape}"
    if np.array_equal(made.content, wanted.content):
        return f"its {' and '.join(others)} differ" if others else ""
    different = made.content != wanted.content
    gap = np.abs(made.content.astype(np.float64) - wanted.content).max()
    return f"{different.sum()} of {different.size} values differ, by at most {gap:g}"
