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
from aigc_sdk.generator import Generator, check_content, start_state
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.testing import example_feeds

Array = NDArray[Any]

# Item counts to compare at; the sampler is traced with none of them, and 17 divides nothing.
SIZES = (1, 3, 64, 17)
_REQUESTS = 4

# At most this share of the values of images may differ from eager torch, each by one level.
EAGER_SHARE = 1e-4

# At most this share of texts may differ: where a number is rounded otherwise, all that follows is another text.
EAGER_TEXTS = 1e-3
_LEAST_TEXTS = 1000


def compare_with_eager(eager: Generator, exported: Generator, least_values: int = 2**17) -> Check:
    """Compare the content of both at several sizes.

    Args:
        eager: the sampler in torch.
        exported: the file.
        least_values: how many values of images to compare in all, at least.

    Raises:
        ExportFailed: they differ by more than rounding.
    """
    if exported.card.output.length:
        return _compare_texts(eager, exported)
    values = different = largest = 0
    for is_varied, wanted, got in _both(eager, exported):
        gap = np.abs(got.astype(np.int64) - wanted.astype(np.int64))
        different += int((gap > 0).sum())
        largest = max(largest, int(gap.max()))
        values += gap.size
        if is_varied and values >= least_values:
            break
    measured = f"{different} of {values} values differ, by at most {largest} (N = {', '.join(map(str, SIZES))})"
    if largest > 1 or different > values * EAGER_SHARE:
        raise ExportFailed(
            f"The exported file differs from eager torch: {measured}; allowed are {EAGER_SHARE:.0e} of them, by 1."
        )
    return Check("same as eager torch", measured)


def _compare_texts(eager: Generator, exported: Generator) -> Check:
    texts = different = 0
    for is_varied, wanted, got in _both(eager, exported):
        different += int((wanted != got).reshape(len(got), -1).any(1).sum())
        texts += len(got)
        if is_varied and texts >= _LEAST_TEXTS:
            break
    measured = f"{different} of {texts} {_kind(exported)} differ (N = {', '.join(map(str, SIZES))})"
    if different > texts * EAGER_TEXTS:
        raise ExportFailed(
            f"The exported file differs from eager torch: {measured}; allowed are {EAGER_TEXTS:.0e} of them."
        )
    return Check("same as eager torch", measured)


def _kind(model: Generator) -> str:
    return "texts" if model.card.modality == "text" else "pieces"


def _both(eager: Generator, exported: Generator) -> Iterator[tuple[bool, Array, Array]]:
    """Yield, without end, whether all sizes were tried, and content of eager torch and of the file of one request."""
    # A few requests of each size, then large ones: eager torch takes nearly as long for one item as for 64.
    for seed, size in enumerate(itertools.chain(SIZES * _REQUESTS, itertools.repeat(max(SIZES)))):
        seeds, feeds = example_feeds(exported.card.controls, size, seed)
        wanted, got = (model.run(seeds, feeds)["content"] for model in (eager, exported))
        if wanted.shape != got.shape or wanted.dtype != got.dtype:
            raise ExportFailed(
                f"At N = {size} the exported file makes {got.dtype} {got.shape},"
                f" eager torch {wanted.dtype} {wanted.shape}. The sampler may have fixed the number of items."
            )
        yield seed + 1 >= len(SIZES) * _REQUESTS, wanted, got


def check_independence(model: bytes, card: ModelCard) -> Check:
    """Compare every item of 64 with the same one among 7 and alone, on one thread and on two.

    Args:
        model: the exported file.
        card: of the model.

    Raises:
        ExportFailed: an item depends on its neighbours, or on the number of threads.
    """
    seeds, feeds = example_feeds(card.controls, 64, 5)
    whole: list[Array] = []
    for threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(start: int, size: int, session: Any = session, names: list[str] = names) -> list[Array]:
            rows = slice(start, start + size)
            fed = {"seed": seeds[rows], **{k: v[rows] for k, v in feeds.items()}, **start_state(card, size)}
            return check_content(card, dict(zip(names, session.run(names, fed), strict=True)), size)

        whole = whole or run(0, 64)
        for other, same in zip(run(0, 64), whole, strict=True):
            if not np.array_equal(other, same):
                raise ExportFailed(f"{threads} threads make other items than one: {_difference(other, same)}.")
        for size in (1, 7):
            for start in (*range(0, 64 - size, size), 64 - size):
                for i, other in enumerate(run(start, size), start):
                    if not np.array_equal(other, whole[i]):
                        raise ExportFailed(
                            f"Item {i} of 64 is another one among {size}: {_difference(other, whole[i])}."
                            " An item depends on its neighbours."
                        )
    return Check("independent items", "64 items identical among 64, among 7 and alone, on one thread and on two")


def check_streaming(exported: OnnxGenerator) -> Check:
    """Compare the texts that a model makes in several calls with those that it makes in one.

    Raises:
        ExportFailed: one differs.
    """
    card = exported.card
    seeds, feeds = example_feeds(card.controls, 32, 6)
    whole = check_content(card, exported.run(seeds, feeds), 32)
    for sizes in ((1,), (3, 7), (40,)):
        state, left = start_state(card, 32), feeds["max_length"]
        parts: list[list[Array]] = [[] for _ in range(32)]
        for size in itertools.cycle(sizes):
            steps = np.clip(left, 0, size)
            outputs = exported.go_on(seeds, {**feeds, "max_length": steps}, state)
            for made, part in zip(parts, check_content(card, outputs, 32), strict=True):
                made.append(part)
            state = {name: outputs[f"{name}.next"] for name in state}
            left = left - steps
            if not left.any() or outputs["finished"].all():
                break
        if any(not np.array_equal(np.concatenate(made), text) for made, text in zip(parts, whole, strict=True)):
            raise ExportFailed(f"Items made {' and '.join(map(str, sizes))} steps at a time are others.")
    return Check("streaming", "32 items made 1, 3 and 7, and 40 steps at a time are those made at once")


def _difference(content: Array, wanted: Array) -> str:
    if content.shape != wanted.shape:
        return f"it is {content.shape}, not {wanted.shape}"
    gap = np.abs(content.astype(np.int64) - wanted.astype(np.int64))
    return f"{(gap > 0).sum()} of {gap.size} values differ, by at most {gap.max()}"
