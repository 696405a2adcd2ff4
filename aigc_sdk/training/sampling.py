"""What samplers of images share: labels as numbers, noise between two seeds, and pixels."""

import torch
from torch import Tensor


def one_hot(label: Tensor | None, labels: int, like: Tensor) -> Tensor:
    """Return float32 (n, labels), or (n, 0) when there are no labels; n and the device are those of `like`.

    Example:
        >>> one_hot(torch.tensor([1, 0]), 3, torch.zeros(2)).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if label is None or not labels:
        return torch.zeros(like.shape[0], 0, device=like.device)
    return (label[:, None] == torch.arange(labels, device=like.device)[None, :]).float()


def cumulative(frequencies: tuple[float, ...]) -> Tensor:
    """Return the cumulative frequencies of the classes, float32 (labels,), for `draw_choice`."""
    return torch.tensor(frequencies, dtype=torch.float64).cumsum(0).float()


def between(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """Return noise and labels on the way from a (t = 0) to b (t = 1).

    The noise is ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2), which is as normal as a and b are; the labels are mixed.

    Args:
        a: normal noise, float32 (n, latent), and one-hot labels, (n, labels).
        b: the same.
        t: float32 (n,), 0 to 1.
    """
    weight_b = t[:, None]
    weight_a = 1 - weight_b
    norm = (weight_a * weight_a + weight_b * weight_b).sqrt()
    return (weight_a * a[0] + weight_b * b[0]) / norm, weight_a * a[1] + weight_b * b[1]


def from_pixels(image: Tensor) -> Tensor:
    """Return uint8 (n, height, width, channels) as float32 (n, channels, height, width), 0 to 1."""
    return image.permute(0, 3, 1, 2).float() / 255


def to_pixels(values: Tensor) -> Tensor:
    """Return float32 (n, channels, height, width), 0 to 1, as uint8 (n, height, width, channels)."""
    return (values * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def premultiplied(values: Tensor) -> Tensor:
    """Return images (n, channels, height, width), 0 to 1, with the colours multiplied by the alpha, where there is one.

    What colour a transparent pixel has is then of no matter.
    """
    return torch.cat([values[:, :3] * values[:, 3:], values[:, 3:]], 1) if values.shape[1] == 4 else values
