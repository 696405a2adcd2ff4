"""The encoder and decoder: residual convolutions at a half, a quarter, ... of the image's size."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The networks halve the image until its shorter side is at most this many pixels, at least once.
_SMALLEST = 8


class ResidualBlock(nn.Module):
    """x + convolution(silu(convolution(silu(x)))), which starts as the identity.

    Without normalisation, so that an item never depends on its neighbours.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to the same shape."""
        change: Tensor = self.second(F.silu(self.first(F.silu(x))))
        return x + change


class Pyramid:
    """The sizes and channels of the levels, from half of the image's size down to the smallest.

    Args:
        height, width: of the image, in pixels.
        base: channels at half the size; all smaller levels have twice as many.
    """

    def __init__(self, height: int, width: int, base: int) -> None:
        self.levels = max(1, math.ceil(math.log2(min(height, width) / _SMALLEST)))
        self.channels = [base, *[2 * base] * (self.levels - 1)]
        self.smallest = (math.ceil(height / 2**self.levels), math.ceil(width / 2**self.levels))
        self.padded = (self.smallest[0] * 2**self.levels, self.smallest[1] * 2**self.levels)


class Encoder(nn.Module):
    """q(z | x, y): the mean and log variance of the latent of an image.

    Args:
        shape: (height, width, channels) of the images.
        labels: number of classes, 0 for none.
        latent: dimensions of the latent.
        width: channels at half the size.
        blocks: residual blocks at the smallest size.
    """

    def __init__(self, shape: tuple[int, int, int], labels: int, latent: int, width: int, blocks: int) -> None:
        super().__init__()
        pyramid = Pyramid(shape[0], shape[1], width)
        self.padding = (0, pyramid.padded[1] - shape[1], 0, pyramid.padded[0] - shape[0])
        self.first = nn.Conv2d(shape[2], width, 5, stride=2, padding=2)
        self.label = nn.Linear(labels, width, bias=False) if labels else None
        layers: list[nn.Module] = []
        for above, channels in zip(pyramid.channels, pyramid.channels[1:], strict=False):
            layers += [ResidualBlock(above), nn.SiLU(), nn.Conv2d(above, channels, 3, stride=2, padding=1)]
        layers += [ResidualBlock(pyramid.channels[-1]) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Flatten())
        self.last = nn.Linear(pyramid.channels[-1] * math.prod(pyramid.smallest), 2 * latent)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and logvar, both (n, latent).

        Args:
            x: (n, channels, height, width), 0 to 1.
            y: one-hot labels (n, labels), or (n, 0).
        """
        hidden = self.first(F.pad(x, self.padding))
        if self.label is not None:
            hidden = hidden + self.label(y)[:, :, None, None]
        mu, logvar = self.last(self.layers(hidden)).chunk(2, dim=1)
        return mu, logvar


class Decoder(nn.Module):
    """p(x | z, y): the logits of the pixels. Takes the same arguments as Encoder."""

    def __init__(self, shape: tuple[int, int, int], labels: int, latent: int, width: int, blocks: int) -> None:
        super().__init__()
        pyramid = Pyramid(shape[0], shape[1], width)
        self.size = shape[:2]
        widest = pyramid.channels[-1]
        self.first = nn.Linear(latent + labels, width * math.prod(pyramid.smallest))
        self.unflatten = nn.Unflatten(1, (width, *pyramid.smallest))
        layers: list[nn.Module] = [nn.SiLU(), nn.Conv2d(width, widest, 3, padding=1)]
        layers += [ResidualBlock(widest) for _ in range(blocks)]
        for below, channels in zip(pyramid.channels[:0:-1], pyramid.channels[-2::-1], strict=True):
            layers += [nn.SiLU(), nn.ConvTranspose2d(below, channels, 4, stride=2, padding=1), ResidualBlock(channels)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.ConvTranspose2d(width, shape[2], 4, stride=2, padding=1))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Return logits (n, channels, height, width).

        Args:
            z: (n, latent).
            y: one-hot labels (n, labels), or (n, 0).
        """
        logits: Tensor = self.layers(self.unflatten(self.first(torch.cat([z, y], dim=1))))
        return logits[:, :, : self.size[0], : self.size[1]]


def one_hot(label: Tensor | None, labels: int, like: Tensor) -> Tensor:
    """Return float32 (n, labels), or (n, 0) when there are no labels; n and the device are those of `like`."""
    if label is None or not labels:
        return torch.zeros(like.shape[0], 0, device=like.device)
    return (label[:, None] == torch.arange(labels, device=like.device)[None, :]).float()
