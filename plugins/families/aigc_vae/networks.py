"""The encoder, the prior of the latent, and the decoder.

Encoder and decoder are residual convolutions at a half, a quarter, ... of the image's size.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aigc_sdk.training.sampling import premultiplied

# The networks halve the image until its shorter side is at most this many pixels, at least once.
_SMALLEST = 8

# Hidden units that the time passes through on its way into the velocity field.
_TIME_WIDTH = 32

# Of the moments of the latents: how far they follow one batch in the long run, and the least deviation.
_MOMENTS_WEIGHT = 0.005
_LEAST_DEVIATION = 1e-3


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
    """q(z | x) and q(y | x): the mean and log variance of the latent of an image, and the logits of its label.

    The label is read off the image (Kingma et al. 2014, the model M2), so that an image alone can be encoded.

    Args:
        shape: (height, width, channels) of the images.
        labels: number of classes, 0 for none.
        latent: dimensions of the latent.
        width: channels at half the size.
        blocks: residual blocks at the smallest size.
        premultiplies: whether colours are multiplied by the alpha first.
    """

    def __init__(
        self, shape: tuple[int, ...], labels: int, latent: int, width: int, blocks: int, *, premultiplies: bool = False
    ) -> None:
        super().__init__()
        self.premultiplies = premultiplies
        pyramid = Pyramid(shape[0], shape[1], width)
        self.padding = (0, pyramid.padded[1] - shape[1], 0, pyramid.padded[0] - shape[0])
        self.first = nn.Conv2d(shape[2], width, 5, stride=2, padding=2)
        layers: list[nn.Module] = []
        for above, channels in zip(pyramid.channels, pyramid.channels[1:], strict=False):
            layers += [ResidualBlock(above), nn.SiLU(), nn.Conv2d(above, channels, 3, stride=2, padding=1)]
        layers += [ResidualBlock(pyramid.channels[-1]) for _ in range(blocks)]
        # Fewer channels before the dense layer, which would have as many weights as all the others.
        layers += [nn.SiLU(), nn.Conv2d(pyramid.channels[-1], width // 2, 1), nn.SiLU(), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.sizes = (latent, latent, labels)
        self.last = nn.Linear(width // 2 * math.prod(pyramid.smallest), sum(self.sizes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mu and logvar, both (n, latent), and the logits of the labels (n, labels).

        Args:
            x: (n, channels, height, width), 0 to 1.
        """
        if self.premultiplies:
            x = premultiplied(x)
        mu, logvar, logits = self.last(self.layers(self.first(F.pad(x, self.padding)))).split(self.sizes, dim=1)
        return mu, logvar, logits


class Decoder(nn.Module):
    """p(x | z, y): the logits of the pixels. Takes the same arguments as Encoder."""

    def __init__(self, shape: tuple[int, ...], labels: int, latent: int, width: int, blocks: int) -> None:
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


class NormalPrior(nn.Module):
    """p(z) = N(0, 1), as in the plain VAE: the latent is the noise itself."""

    def forward(self, noise: Tensor, y: Tensor) -> Tensor:  # whatever the label is
        """Return `noise`, (n, latent), as it is."""
        return noise


class FlowPrior(nn.Module):
    """p(z | y) learned by flow matching (Lipman et al. 2023): noise that moves along a velocity field becomes z.

    The latents that the encoder makes of the training images are not spread like N(0, 1); a decoder that is fed from
    N(0, 1) gets latents that it never learned, and blurs. Here the prior is what the encoder makes.

    Args:
        latent: dimensions of z.
        labels: number of classes, 0 for none.
        width: hidden units of each layer of the velocity field.
        layers: hidden layers of it.
        steps: steps from noise to latent; each asks the field twice.
    """

    mean: Tensor
    deviation: Tensor
    batches: Tensor

    def __init__(self, latent: int, labels: int, width: int, layers: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.first = nn.Linear(latent + labels, width)
        self.time = nn.Sequential(nn.Linear(1, _TIME_WIDTH), nn.SiLU(), nn.Linear(_TIME_WIDTH, width))
        hidden = [layer for _ in range(layers - 1) for layer in (nn.Linear(width, width), nn.SiLU())]
        self.rest = nn.Sequential(nn.SiLU(), *hidden, nn.Linear(width, latent))
        # The moments of the latents, so that the field moves between distributions of the same mean and spread.
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("deviation", torch.ones(latent))
        self.register_buffer("batches", torch.zeros(()))

    def observe(self, z: Tensor) -> None:
        """Let the moments follow the latents of a batch, (n, latent)."""
        weight = (1 / (1 + self.batches)).clamp(min=_MOMENTS_WEIGHT)
        self.mean.lerp_(z.mean(0), weight)
        spread = (z - self.mean).square().mean(0).sqrt()
        self.deviation.lerp_(spread, weight).clamp_(min=_LEAST_DEVIATION)
        self.batches.add_(1)

    def standardise(self, z: Tensor) -> Tensor:
        """Return z with mean 0 and deviation 1 in every dimension."""
        return (z - self.mean) / self.deviation

    def velocity(self, x: Tensor, time: Tensor, y: Tensor) -> Tensor:
        """Return dx/dt, (n, latent), of standardised latents.

        Args:
            x: (n, latent), noise at t = 0, latents at t = 1.
            time: what `self.time` makes of t, (n, width) or (1, width).
            y: one-hot labels (n, labels), or (n, 0).
        """
        change: Tensor = self.rest(self.first(torch.cat([x, y], dim=1)) + time)
        return change

    def forward(self, noise: Tensor, y: Tensor) -> Tensor:
        """Return the latents, (n, latent), that the noise moves to: the field integrated by the midpoint rule."""
        x, length = noise, 1 / self.steps
        # Both times of all steps at once: a graph of a third fewer nodes.
        times = self.time(torch.arange(2 * self.steps, device=x.device)[:, None] * (0.5 * length)).split(1)
        for start, middle in zip(times[::2], times[1::2], strict=True):
            half = x + 0.5 * length * self.velocity(x, start, y)
            x = x + length * self.velocity(half, middle, y)
        return x * self.deviation + self.mean
