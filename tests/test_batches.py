"""Batches: the order of an epoch, equal classes, and varied images."""

import numpy as np
import pytest
import torch

from aigc_image.data import load_data
from aigc_image.training import vary
from aigc_sdk.training.batches import batches, epoch_rows

ROWS = np.arange(100, 200)


def test_epoch_rows_are_a_permutation_that_follows_from_seed_and_epoch():
    order = epoch_rows(ROWS, 3, 1, 100)
    assert sorted(order) == sorted(ROWS)
    assert np.array_equal(order, epoch_rows(ROWS, 3, 1, 100))
    assert np.array_equal(order[:7], epoch_rows(ROWS, 3, 1, 7))
    for seed, epoch in ((3, 2), (4, 1)):
        assert not np.array_equal(order, epoch_rows(ROWS, seed, epoch, 100))


@pytest.mark.parametrize("n", [4, 50, 99, 300])
def test_epoch_rows_balanced_have_every_class_equally_often(n):
    classes = np.array([0] * 90 + [2] * 9 + [7])  # some classes have nothing to train on
    order = epoch_rows(ROWS, 0, 1, n, classes)
    assert len(order) == n
    counts = np.bincount(classes[order - 100], minlength=8)
    assert set(np.flatnonzero(counts)) == {0, 2, 7}
    assert counts[[0, 2, 7]].max() - counts[[0, 2, 7]].min() <= 1
    # A row comes again only after all others of its class.
    for each in (0, 2, 7):
        times = np.bincount(order)[ROWS[classes == each]]
        assert times.max() - times.min() <= 1
    assert np.array_equal(order, epoch_rows(ROWS, 0, 1, n, classes))
    assert not np.array_equal(order, epoch_rows(ROWS, 0, 2, n, classes))


def test_batches_are_pixels_from_zero_to_one_with_their_labels(stripes):
    data = load_data(stripes)
    found = list(batches(data, np.array([5, 3, 299]), 2, torch.device("cpu"), "image"))
    assert [batch["images"].shape for batch in found] == [(2, 1, 8, 8), (1, 1, 8, 8)]
    assert torch.equal(found[1]["images"][0, 0], torch.from_numpy(stripes[0][299]) / 255)
    assert torch.equal(torch.cat([batch["labels"] for batch in found]), torch.from_numpy(stripes[1][[5, 3, 299]]))


def shifted(image, y, x):
    """Return the image moved by y, x with its edges repeated."""
    height, width = image.shape[:2]
    rows, columns = np.clip(np.arange(height) + y, 0, height - 1), np.clip(np.arange(width) + x, 0, width - 1)
    return image[rows][:, columns]


@pytest.mark.parametrize("augment", [("flip",), ("shift",), ("shift", "flip")])
def test_vary_makes_only_and_all_that_was_asked_for(augment):
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    ys, xs = (range(-2, 3), range(-3, 4)) if "shift" in augment else ([0], [0])
    possible = {shifted(image, y, x).tobytes(): (y, x, False) for y in ys for x in xs}
    if "flip" in augment:
        possible |= {
            np.ascontiguousarray(shifted(image, y, x)[:, ::-1]).tobytes(): (y, x, True) for y in ys for x in xs
        }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = vary(torch.from_numpy(np.stack([image] * 1000)), augment).numpy()
        torch.manual_seed(0)
        again = vary(torch.from_numpy(np.stack([image] * 1000)), augment).numpy()
    assert np.array_equal(made, again)
    assert {possible[each.tobytes()] for each in made} == set(possible.values())


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
def test_vary_tiny_images_keeps_their_shape(shape):
    images = torch.arange(2 * shape[0] * shape[1], dtype=torch.uint8).reshape(2, *shape, 1)
    assert vary(images, ("flip", "shift")).shape == images.shape
