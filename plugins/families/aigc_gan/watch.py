"""What a training looks at to see whether the generator collapses: features of real and of generated images."""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from aigc_sdk.evaluation.gaussians import frechet_distance, moments

Features = NDArray[np.float32]

# Real images whose features are kept; of those, at least so many are compared at a validation, or this part of all.
_KEPT = 2048
_LEAST, _PART = 512, 8

# A collapse: generated images that are this much alike, relative to real ones; a discriminator that tells no more than
# this share right, or, while the distance has grown, than that; a distance that has grown so many times; labels that
# are hit this seldom, relative to real images. In the first steps of a sound training neither side knows anything yet;
# labels come later.
_VERY_ALIKE, _FIRST_STEPS = 0.4, 50
_ALIKE, _EARLY_STEPS = 0.65, 300
_LOST, _LOSING = 0.15, 0.4
_GROWN, _WORSE = 2.0, 3.0
_MISSED, _LABEL_STEPS = 0.3, 1500

# Other items of its label that each is compared with; distances below this part of the features are rounding; the least
# deviation that a feature is divided by, as a part of the largest; and what keeps a matrix regular.
_OTHERS = 8
_ROUNDING = 1e-5
_LEAST_DEVIATION = 1e-3
_TINY = 1e-12

# Channels of the two layers of random filters, and the places that each is averaged over.
_CHANNELS = (16, 32)
_PLACES = 2


class Filters(nn.Module):
    """Features of images from random filters that stay as they are, so that no other network has to be at hand.

    They see edges and blobs of some size, roughly where they are and how much they vary, which is enough to tell
    whether generated images are as varied as real ones; what a trained extractor sees, `sdk.evaluate` says.

    Args:
        channels: of the images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        sizes = (channels, *_CHANNELS)
        for i, (above, below) in enumerate(itertools.pairwise(sizes)):
            weight = torch.randn(below, above * 16, generator=random)
            weight = (weight - weight.mean(1, keepdim=True)) / (above * 16) ** 0.5
            # Not in the state dict: they are the same in every training.
            self.register_buffer(f"filter_{i}", weight.view(below, above, 4, 4), persistent=False)
        self.size = (_PLACES**2 + 1) * (channels + sum(_CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        """Return features, (n, size), of images, (n, channels, height, width)."""
        levels = [x.float()]
        # Always in full precision, so that what is gathered while training compares with what a validation makes.
        with torch.autocast(x.device.type, enabled=False):
            for i in range(len(_CHANNELS)):
                levels.append(F.relu(F.conv2d(levels[-1], getattr(self, f"filter_{i}"), stride=2, padding=1)))
        means = [F.adaptive_avg_pool2d(level, _PLACES).flatten(1) for level in levels]
        return torch.cat([*means, *(level.flatten(2).std(2, correction=0) for level in levels)], 1)


class Watch(nn.Module):
    """Real images to compare generated ones with, gathered while training passes over them.

    Args:
        channels: of the images.
        n: real images that there are.

    Attributes:
        compared: images that each validation generates.
    """

    features: Tensor
    labels: Tensor
    count: Tensor

    def __init__(self, channels: int, n: int) -> None:
        super().__init__()
        self.filters = Filters(channels)
        kept = min(n, _KEPT)
        self.register_buffer("features", torch.zeros(kept, self.filters.size))
        self.register_buffer("labels", torch.zeros(kept, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.compared = min(kept, max(_LEAST, n // _PART))

    def observe(self, x: Tensor, label: Tensor | None, step: int) -> None:
        """Keep the features of real images, (n, channels, height, width), while there is room; from step 0 on."""
        start = step * len(x)
        end = min(len(self.features), start + len(x))
        if start >= end:
            return
        self.features[start:end] = self.filters(x)[: end - start]
        if label is not None:
            self.labels[start:end] = label[: end - start]
        self.count.fill_(end)

    @property
    def is_uniform(self) -> bool:
        """Whether all real images that were kept are the same."""
        real = self.features[: int(self.count)]
        return bool((real - real[0]).abs().max() <= _ROUNDING * real.abs().max())

    def figures(self, generated: Tensor, classes: int) -> dict[str, float]:
        """Compare generated images with the real ones.

        Args:
            generated: features, (compared, size), of images with the labels of the first real ones.
            classes: number of labels, 0 for none.

        Returns:
            "frechet", the distance of the features (Heusel et al. 2017, eq. 6); "diversity", the mean distance between
            two generated images of one label as a multiple of that between two real ones, left out where no two real
            ones of a label differ; and with labels "labels_hit", the share of generated images that look most like
            those of the label that was asked for, and "labels_hit_real", the same of real images.
        """
        labels = self.labels[: int(self.count)].cpu().numpy()
        real, fake = (each.cpu().double().numpy() for each in (self.features[: int(self.count)], generated))
        varies = _mean_distance(real[: len(fake)], labels) > _ROUNDING * np.abs(real).max()
        # All features count alike, however large they are.
        centre, deviation = real.mean(0), real.std(0)
        scale = np.maximum(deviation, _LEAST_DEVIATION * (deviation.max() or 1.0))
        real, fake = (real - centre) / scale, (fake - centre) / scale
        figures = {"frechet": frechet_distance(moments(fake), moments(real))}
        if varies:
            figures["diversity"] = _mean_distance(fake, labels) / _mean_distance(real[: len(fake)], labels)
        if classes:
            found = _nearest_class(np.concatenate([fake, real]), real, labels)
            figures["labels_hit"] = float((found[: len(fake)] == labels[: len(fake)]).mean())
            figures["labels_hit_real"] = float((found[len(fake) :] == labels).mean())
        return figures


def collapse(figures: Mapping[str, float], step: int, least: float) -> dict[str, str]:
    """Return what the figures of a validation say of a collapse, by its kind, each with advice.

    Args:
        figures: those of `Watch.figures`, and "accuracy_generated" and "accuracy_real" where they were measured.
        step: how many were made.
        least: the least "frechet" of the validations before.
    """
    found = {}
    distance = figures["frechet"]
    if step >= _EARLY_STEPS and distance > _WORSE * least:
        found["worse"] = (
            f"The Frechet distance has grown to {distance / least:.1f} times the least before: one side has run away"
            " from the other. What is exported is the best. If this stays, stop, and use a smaller learning_rate or a"
            " larger r1."
        )
    diversity = figures.get("diversity", 1.0)
    if (step >= _FIRST_STEPS and diversity < _VERY_ALIKE) or (step >= _EARLY_STEPS and diversity < _ALIKE):
        found["alike"] = (
            f"The generated images are much alike: their distance is {100 * diversity:.0f} % of that of real ones. The"
            " generator has collapsed. If this stays, use a smaller learning_rate, a larger r1 or batch_size, or"
            " another seed; and look at the data, whether many images are the same."
        )
    on_fake, on_real = figures.get("accuracy_generated", 0.5), figures.get("accuracy_real", 0.5)
    if step >= _EARLY_STEPS and on_fake < (_LOSING if distance > _GROWN * least else _LOST):
        found["fooled"] = (
            f"The discriminator takes {100 * (1 - on_fake):.0f} % of the generated images for real, and so teaches the"
            " generator nothing. If this stays and frechet does not fall, use a larger discriminator_learning_rate,"
            " discriminator_steps or width, or a smaller r1."
        )
    if step >= _EARLY_STEPS and on_real < _LOST and on_fake > 1 - _LOST:
        found["by heart"] = (
            f"The discriminator takes {100 * (1 - on_real):.0f} % of the held-out real images for generated: it knows"
            " the training images by heart. Use more images, a larger r1, or diffaugment_share=1."
        )
    hit, real_hit = figures.get("labels_hit", 1.0), figures.get("labels_hit_real", 1.0)
    if step >= _LABEL_STEPS and hit < _MISSED * real_hit:
        found["labels"] = (
            f"Only {100 * hit:.0f} % of the generated images look like their label, of real ones {100 * real_hit:.0f}"
            " %: some labels may have collapsed. If this stays, train for longer or use a smaller learning_rate; and"
            " look at the data, whether the labels are right."
        )
    return found


def _mean_distance(features: Features, labels: NDArray[np.int64]) -> float:
    """Return the mean distance of items to some others of their label, 0 where there are none."""
    order = labels[: len(features)].argsort(kind="stable")
    features, labels = features[order], labels[order]
    distances = [
        np.linalg.norm(features[shift:] - features[:-shift], axis=1)[labels[shift:] == labels[:-shift]]
        for shift in range(1, min(len(features), _OTHERS + 1))
    ]
    return float(np.concatenate(distances).mean()) if any(map(len, distances)) else 0.0


def _nearest_class(queries: Features, real: Features, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the label of each query by linear discriminant analysis (Fisher 1936) of the real items."""
    present = np.unique(labels)
    means = np.stack([real[labels == each].mean(0) for each in present])
    within = real - means[np.searchsorted(present, labels)]
    covariance = within.T @ within / len(real)
    # Without any spread within the labels, the nearest mean counts.
    covariance += np.eye(len(covariance)) * max(1e-4 * np.trace(covariance) / len(covariance), _TINY)
    directions = np.linalg.solve(covariance, means.T)
    scores = queries @ directions - 0.5 * (means.T * directions).sum(0)
    found: NDArray[np.int64] = present[scores.argmax(1)]
    return found
