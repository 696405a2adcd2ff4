"""Batches: in which order the data is seen."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aigc_sdk.modality import Dataset, find_modality
from aigc_sdk.training.family import Batch, FamilyConfig

Rows = NDArray[np.int64]


def epoch_rows(rows: Rows, seed: int, epoch: int, n: int, classes: Rows | None = None) -> Rows:
    """Return the rows of one epoch in order; they follow from the seed and the epoch's number alone.

    Args:
        rows: int64 (m,), the rows to choose from.
        seed: of the training.
        epoch: its number.
        n: how many; without classes at most m, and none comes twice.
        classes: int64 (m,), the class of each row. Then every class comes equally often, to one, and a row of a
            class comes again only after all others of it.

    Returns:
        int64 (n,).

    Example:
        >>> rows, classes = np.arange(10), np.array([0] * 8 + [1] * 2)
        >>> np.bincount(classes[epoch_rows(rows, 0, 1, 8, classes)])
        array([4, 4])
    """
    random = np.random.default_rng([seed, epoch])
    if classes is None:
        return random.permutation(rows)[:n]
    present = np.unique(classes)
    quotas = n // len(present) + (random.permutation(len(present)) < n % len(present))
    drawn = [_cycle(rows[classes == each], int(quota), random) for each, quota in zip(present, quotas, strict=True)]
    return random.permutation(np.concatenate(drawn))


def _cycle(rows: Rows, n: int, random: np.random.Generator) -> Rows:
    rounds = [random.permutation(rows) for _ in range(-(-n // len(rows)))]
    return np.concatenate([rows[:0], *rounds])[:n]


def batches(
    data: Dataset,
    rows: Rows,
    size: int,
    device: torch.device,
    modality: str,
    options: FamilyConfig | None = None,
    *,
    varied: bool = False,
) -> Iterator[Batch]:
    """Yield batches of `size` in the order of the rows; the last may be smaller.

    Args:
        data: where the items and labels are.
        rows: int64 (n,).
        size: items in a batch.
        device: to put them on.
        modality: what the items are.
        options: of the family.
        varied: vary items as the options say, by torch's random numbers.
    """
    training = find_modality(modality).training
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        batch = training.batch(data, chosen, device, options, varied=varied)
        if data.labels is not None:
            batch["labels"] = torch.from_numpy(data.labels[chosen]).to(device)
        yield batch


def lane_steps(data: Any, rows: Rows, size: int, span: int) -> int:
    """Return how many steps a pass over a stream takes, read in `size` places at once, `span` characters a step."""
    # A span less, so that a pass may begin anywhere in the first one.
    return int(data.starts[rows[-1] + 1] - data.starts[rows[0]] - span) // size // span


def lanes(
    data: Any, rows: Rows, size: int, span: int, device: torch.device, *, seed: int, epoch: int, first: int
) -> Iterator[Batch]:
    """Yield the steps of a pass over a stream, read in `size` places at once, each going on where it stopped.

    Args:
        data: the stream.
        rows: int64 (n,), the pieces to read, one after the other.
        size: places.
        span: characters that a step reads in each of them.
        device: to put them on.
        seed: of the training; where the pass begins follows from it and the pass.
        epoch: the number of the pass.
        first: the step to begin with.

    Yields:
        "codes", int32 (size, span), and "begins", bool (size,): whether it is the first step of the pass.
    """
    steps = lane_steps(data, rows, size, span)
    shift = int(np.random.default_rng([seed, epoch]).integers(span))
    begin = int(data.starts[rows[0]]) + shift
    codes = data.codes[begin : begin + size * steps * span].reshape(size, steps, span)
    for step in range(first, steps):
        begins = torch.full((size,), step == 0, device=device)
        yield {"codes": torch.from_numpy(codes[:, step].copy()).to(device), "begins": begins}


def padded(texts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return codes of texts or of music as one array (n, longest), -1 after the end of each."""
    codes = np.full((len(texts), max(map(len, texts))), -1, np.int32)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = text
    return codes
