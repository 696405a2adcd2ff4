"""Differentiable augmentation (Zhao et al. 2020): the discriminator sees real and generated images varied alike.

Gradients pass through it to the generator, which learns the images as they are, not as they are varied.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Parts of a side: how far an image is moved, and the side of the square that is cut out.
_SHIFT = 1 / 8
_CUTOUT = 1 / 2


def diffaugment(x: Tensor, policy: Sequence[str], share: Tensor) -> Tensor:
    """Return images, some of them varied, each in its own way.

    Args:
        x: (n, channels, height, width), 0 to 1; with four channels the colours are multiplied by the alpha.
        policy: some of "color", "translation" and "cutout".
        share: how many of the images are varied, 0 to 1, ().
    """
    # On an accelerator, looking whether the share is 0 would wait for it.
    if not policy or (x.device.type == "cpu" and not share):
        return x
    varied = x
    for name in policy:
        varied = _VARIATIONS[name](varied)
    chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < share
    return torch.where(chosen, varied, x)


def _color(x: Tensor) -> Tensor:
    """Change brightness by up to a quarter of the range, saturation by a factor of 0 to 2, contrast by 0.5 to 1.5."""
    color, alpha = (x[:, :3], x[:, 3:]) if x.shape[1] == 4 else (x, x.new_ones(()))
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, device=x.device, dtype=x.dtype)
    color = color + (brightness - 0.5) / 2 * alpha
    grey = color.mean(1, keepdim=True)
    color = torch.lerp(grey, color, 2 * saturation)
    middle = color.mean((1, 2, 3), keepdim=True)
    color = torch.lerp(middle * alpha, color, contrast + 0.5)
    return torch.cat([color, alpha], 1) if x.shape[1] == 4 else color


def _translation(x: Tensor) -> Tensor:
    """Move by up to an eighth of each side; what comes in is 0."""
    n, _, height, width = x.shape
    rows, down = _moved(n, height, x.device)
    columns, right = _moved(n, width, x.device)
    padded = F.pad(x, (right, right, down, down)).permute(0, 2, 3, 1)
    item = torch.arange(n, device=x.device)
    return padded[item[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _moved(n: int, side: int, device: torch.device) -> tuple[Tensor, int]:
    """Return the places (n, side), in what is padded by so much on both ends, that each item is taken from."""
    most = max(1, round(side * _SHIFT))
    return torch.arange(side, device=device) + torch.randint(0, 2 * most + 1, (n, 1), device=device), most


def _cutout(x: Tensor) -> Tensor:
    """Set a rectangle of half of each side to 0, its centre anywhere in the image."""
    n, _, height, width = x.shape
    rows, columns = (_cut(n, side, x.device) for side in (height, width))
    cut = rows[:, None, :, None] & columns[:, None, None, :]
    return x * (~cut).to(x.dtype)


def _cut(n: int, side: int, device: torch.device) -> Tensor:
    """Return which of the places are cut out, bool (n, side)."""
    size = round(side * _CUTOUT)
    start = torch.randint(0, side + 1, (n, 1), device=device) - size // 2
    places = torch.arange(side, device=device)
    return (places >= start) & (places < start + size)


_VARIATIONS = {"color": _color, "translation": _translation, "cutout": _cutout}
