"""Verification: the exported file against eager torch, and each item against itself among others."""

import itertools
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from aigc_sdk.card import Control
from aigc_sdk.errors import ExportFailed
from aigc_sdk.exporter import Check
from aigc_sdk.generator import Generator
from aigc_sdk.testing import example_feeds

Array = NDArray[Any]

# Item counts to compare at; the sampler is traced with none of them, and 17 divides nothing.
SIZES = (1, 3, 64, 17)
_REQUESTS = 4

# At most this share of the values of images may differ from eager torch, each by one level.
EAGER_SHARE = 1e-4


def compare_with_eager(eager: Generator, exported: Generator, least_values: int = 2**17) -> Check:
    """Compare the content of both at several sizes.

    Args:
        eager: the sampler in torch.
        exported: the file.
        least_values: how many values of content to compare in all, at least.

    Raises:
        ExportFailed: they differ by more than rounding.
    """
    controls = exported.card.controls
    values = different = largest = 0
    # A few requests of each size, then large ones: eager torch takes nearly as long for one item as for 64.
    for seed, size in enumerate(itertools.chain(SIZES * _REQUESTS, itertools.repeat(max(SIZES)))):
        if seed >= len(SIZES) * _REQUESTS and values >= least_values:
            break
        seeds, feeds = example_feeds(controls, size, seed)
        wanted, got = (model.run(seeds, feeds)["content"] for model in (eager, exported))
        if wanted.shape != got.shape or wanted.dtype != got.dtype:
            raise ExportFailed(
                f"At N = {size} the exported file makes {got.dtype} {got.shape},"
                f" eager torch {wanted.dtype} {wanted.shape}. The sampler may have fixed the number of items."
            )
        gap = np.abs(got.astype(np.int64) - wanted.astype(np.int64))
        different += int((gap > 0).sum())
        largest = max(largest, int(gap.max()))
        values += gap.size
    measured = f"{different} of {values} values differ, by at most {largest} (N = {', '.join(map(str, SIZES))})"
    if largest > 1 or different > values * EAGER_SHARE:
        raise ExportFailed(
            f"The exported file differs from eager torch: {measured}; allowed are {EAGER_SHARE:.0e} of them, by 1."
        )
    return Check("same as eager torch", measured)


def check_independence(model: bytes, controls: tuple[Control, ...]) -> Check:
    """Compare every item of 64 with the same one among 7 and alone, on one thread and on two.

    Args:
        model: the exported file.
        controls: of the model.

    Raises:
        ExportFailed: an item depends on its neighbours, or on the number of threads.
    """
    seeds, feeds = example_feeds(controls, 64, 5)
    whole = None
    for threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        def run(start: int, size: int, session: Any = session) -> Array:
            rows = slice(start, start + size)
            content: Array = session.run(["content"], {"seed": seeds[rows], **{k: v[rows] for k, v in feeds.items()}})[
                0
            ]
            return content

        whole = run(0, 64) if whole is None else whole
        if not np.array_equal(other := run(0, 64), whole):
            raise ExportFailed(f"{threads} threads make other items than one: {_difference(other, whole)}.")
        for size in (1, 7):
            for start in (*range(0, 64 - size, size), 64 - size):
                if not np.array_equal(other := run(start, size), same := whole[start : start + size]):
                    raise ExportFailed(
                        f"Item {start} of 64 is another one among {size}: {_difference(other, same)}."
                        " An item depends on its neighbours."
                    )
    return Check("independent items", "64 items identical among 64, among 7 and alone, on one thread and on two")


def _difference(content: Array, wanted: Array) -> str:
    gap = np.abs(content.astype(np.int64) - wanted.astype(np.int64))
    return f"{(gap > 0).sum()} of {gap.size} values differ, by at most {gap.max()}"
