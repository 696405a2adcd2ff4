"""Batches: in which order the data is seen, and how pixels and texts become what a family gets."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from aigc_music.events import transposed
from aigc_sdk.data import Dataset, MusicDataset, TextDataset
from aigc_sdk.data.music import moved_key
from aigc_sdk.training.family import Batch

Rows = NDArray[np.int64]

# An image is shifted by at most this part of its side.
_SHIFT = 1 / 8


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
    data: Dataset | TextDataset | MusicDataset,
    rows: Rows,
    size: int,
    device: torch.device,
    augment: tuple[str, ...] = (),
) -> Iterator[Batch]:
    """Yield batches of `size` in the order of the rows; the last may be smaller.

    Args:
        data: where the items and labels are.
        rows: int64 (n,).
        size: items in a batch.
        device: to put them on.
        augment: "flip", "shift": how to vary each image, by torch's random numbers; "transpose" for music.
    """
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        if isinstance(data, TextDataset):
            batch = {"codes": torch.from_numpy(padded([data.row_codes(row) for row in chosen.tolist()])).to(device)}
        elif isinstance(data, MusicDataset):
            batch = {name: part.to(device) for name, part in _pieces(data, chosen, "transpose" in augment).items()}
        else:
            batch = {"images": _images(data, chosen, device, augment)}
        if data.labels is not None:
            batch["labels"] = torch.from_numpy(data.labels[chosen]).to(device)
        yield batch


def _pieces(data: MusicDataset, rows: Rows, is_moved: bool) -> Batch:
    codes, keys = [data.row_codes(row) for row in rows.tolist()], data.keys[rows].tolist()
    if is_moved:
        for i, row in enumerate(rows.tolist()):
            moves = data.moves(row)
            move = moves[int(torch.randint(len(moves), ()))]
            codes[i], keys[i] = transposed(codes[i], move), moved_key(keys[i], move)
    return {
        "codes": torch.from_numpy(padded(codes)),
        "keys": torch.tensor(keys),
        "meters": torch.from_numpy(data.meters[rows]),
    }


def _images(data: Dataset, rows: Rows, device: torch.device, augment: tuple[str, ...]) -> torch.Tensor:
    """Return images float32 (n, channels, height, width), 0 to 1."""
    pixels = torch.from_numpy(data.pixels(rows)).to(device)
    if augment:
        pixels = vary(pixels, augment)
    pixels = pixels.permute(0, 3, 1, 2)
    # Into a new tensor, because to the convolutions a single channel at the end looks like channels last.
    return torch.empty(pixels.shape, device=device).copy_(pixels).div_(255)


def padded(texts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return codes of texts or of music as one array (n, longest), -1 after the end of each."""
    codes = np.full((len(texts), max(map(len, texts))), -1, np.int32)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = text
    return codes


def lane_steps(data: TextDataset, rows: Rows, size: int, span: int) -> int:
    """Return how many steps a pass over a stream takes, read in `size` places at once, `span` characters a step."""
    # A span less, so that a pass may begin anywhere in the first one.
    return int(data.starts[rows[-1] + 1] - data.starts[rows[0]] - span) // size // span


def lanes(
    data: TextDataset, rows: Rows, size: int, span: int, device: torch.device, *, seed: int, epoch: int, first: int
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


def batch_weight(batch: Batch) -> int:
    """Return how much a batch counts in a mean: its images, or the characters or events."""
    return len(batch["images"]) if "images" in batch else int((batch["codes"] >= 0).sum())


def vary(pixels: torch.Tensor, augment: tuple[str, ...]) -> torch.Tensor:
    """Return images (n, height, width, channels), each mirrored or not, and shifted by up to an eighth of its side.

    What a shift uncovers is filled by repeating the edge. The random numbers are drawn on the CPU, so that they
    are the same on every device.
    """
    n, height, width, _ = pixels.shape
    y, x = torch.arange(height).expand(n, height), torch.arange(width).expand(n, width)
    if "shift" in augment:
        y, x = (_shifted(place) for place in (y, x))
    if "flip" in augment:
        x = torch.where(torch.rand(n, 1) < 0.5, width - 1 - x, x)
    y, x, item = y.to(pixels.device), x.to(pixels.device), torch.arange(n, device=pixels.device)
    return pixels[item[:, None, None], y[:, :, None], x[:, None, :]]


def _shifted(places: torch.Tensor) -> torch.Tensor:
    """Return the places (n, side) that each item's pixels are taken from."""
    n, side = places.shape
    most = max(1, round(side * _SHIFT))
    return (places + torch.randint(-most, most + 1, (n, 1))).clamp(0, side - 1)
