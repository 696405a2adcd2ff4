"""Generators and discriminators.

A generator makes images of noise z, (n, latent), and one-hot labels y, (n, labels) or (n, 0): float32
(n, channels, height, width), 0 to 1. A discriminator makes logits, float32 (n,), of images and labels.
"""

import itertools
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

Shape = tuple[int, ...]  # (height, width, channels)

# The networks begin where the image's shorter side, halved again and again, is at most this many pixels.
_FIRST_SIDE = 8

# No level has more channels than so many times those of the largest.
_WIDEST = 4

_SLOPE = 0.2  # of leaky rectifiers

# The classic small network's hidden units.
_MLP_UNITS = (128, 256, 512, 1024)

# Keep the gradients of roots finite.
_TINY = 1e-8

# Of style: dense layers from noise to style, how fast the mean style follows the batches, how often styles are mixed.
_MAPPING_LAYERS = 4
_MEAN_WEIGHT = 0.005
_MIXING = 0.5


class Pyramid:
    """The sizes and channels of the levels, from the smallest to the image.

    Args:
        height, width: of the image, in pixels.
        base: channels of the largest level; each smaller one has twice as many, up to four times.
    """

    def __init__(self, height: int, width: int, base: int) -> None:
        self.levels = max(1, math.ceil(math.log2(min(height, width) / _FIRST_SIDE)))
        self.channels = [base * min(_WIDEST, 2**level) for level in range(self.levels, -1, -1)]
        self.smallest = (math.ceil(height / 2**self.levels), math.ceil(width / 2**self.levels))
        right, below = self.smallest[1] * 2**self.levels - width, self.smallest[0] * 2**self.levels - height
        self.padding = (0, right, 0, below)
        self.size = (height, width)


class ConditionalNorm(nn.Module):
    """Batch normalisation with a scale and a shift for each label (de Vries et al. 2017; Miyato & Koyama 2018)."""

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        # Without labels, and between them, all items share one.
        self.scale = nn.Parameter(torch.ones(max(1, labels), channels))
        self.shift = nn.Parameter(torch.zeros(max(1, labels), channels))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map (n, channels, height, width) to the same shape."""
        if y.shape[1]:
            scale, shift = y @ self.scale, y @ self.shift
        else:
            scale, shift = self.scale, self.shift
        if self.training:
            normed: Tensor = self.norm(x)
        else:
            # In one go, and so that no exporter draws the norm into the weights of the layer before, which may be
            # numbers of float16 that would be none any more.
            mean, variance = cast(Tensor, self.norm.running_mean), cast(Tensor, self.norm.running_var)
            scale = scale * (variance + self.norm.eps).rsqrt()
            shift, normed = shift - mean * scale, x
        return normed * scale[:, :, None, None] + shift[:, :, None, None]


def to_unit(x: Tensor) -> Tensor:
    """Return what tanh makes of x, brought from -1 to 1 to 0 to 1."""
    return 0.5 + 0.5 * torch.tanh(x)


class Generator(nn.Module):
    """What all generators share.

    Args:
        shape: (height, width, channels) of the images.
        labels: number of classes, 0 for none.
        latent: dimensions of z.
        width: channels of the largest level.
    """

    def truncated(self, z: Tensor, y: Tensor, truncation: Tensor) -> Tensor:
        """Return images of noise that is brought nearer to its mean; truncation, (n,), is 1 for noise as it is."""
        images: Tensor = self(z * truncation[:, None], y)
        return images


class DcganGenerator(Generator):
    """Transposed convolutions, each to twice the size (Radford et al. 2015), with one plain one after the first."""

    def __init__(self, shape: Shape, labels: int, latent: int, width: int) -> None:
        super().__init__()
        pyramid = Pyramid(shape[0], shape[1], width)
        channels = pyramid.channels
        self.size = pyramid.size
        self.first = nn.Linear(latent, channels[0] * math.prod(pyramid.smallest), bias=False)
        self.unflatten = nn.Unflatten(1, (channels[0], *pyramid.smallest))
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(below, above, 4, stride=2, padding=1, bias=False)
            for below, above in itertools.pairwise(channels[:-1])
        ]
        plain = channels[min(1, len(channels) - 2)]
        layers.insert(1, nn.Conv2d(plain, plain, 3, padding=1, bias=False))
        self.layers = nn.ModuleList(layers)
        widths = [channels[0], *(layer.out_channels for layer in layers)]
        self.norms = nn.ModuleList([ConditionalNorm(each, labels) for each in widths])
        self.last = nn.ConvTranspose2d(channels[-2], shape[2], 4, stride=2, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """See the module."""
        x = F.relu(self.norms[0](self.unflatten(self.first(z)), y))
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            x = F.relu(norm(layer(x), y))
        return to_unit(_cropped(self.last(x), self.size))


class _UpBlock(nn.Module):
    """A residual block to twice the size (Miyato et al. 2018)."""

    def __init__(self, below: int, above: int, labels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ConditionalNorm(below, labels), ConditionalNorm(above, labels)])
        self.first = nn.Conv2d(below, above, 3, padding=1, bias=False)
        self.second = nn.Conv2d(above, above, 3, padding=1)
        self.shortcut = nn.Conv2d(below, above, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        change = self.first(_doubled(F.relu(self.norms[0](x, y))))
        change = self.second(F.relu(self.norms[1](change, y)))
        # A convolution over single pixels and doubling may change places; this way round takes a quarter of the time.
        grown: Tensor = _doubled(self.shortcut(x)) + change
        return grown


class ResnetGenerator(Generator):
    """Residual blocks, each to twice the size (Miyato et al. 2018)."""

    def __init__(self, shape: Shape, labels: int, latent: int, width: int) -> None:
        super().__init__()
        pyramid = Pyramid(shape[0], shape[1], width)
        channels = pyramid.channels
        self.size = pyramid.size
        self.first = nn.Linear(latent, channels[0] * math.prod(pyramid.smallest))
        self.unflatten = nn.Unflatten(1, (channels[0], *pyramid.smallest))
        self.blocks = nn.ModuleList([_UpBlock(below, above, labels) for below, above in itertools.pairwise(channels)])
        self.norm = ConditionalNorm(channels[-1], labels)
        self.last = nn.Conv2d(channels[-1], shape[2], 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """See the module."""
        x = self.unflatten(self.first(z))
        for block in self.blocks:
            x = block(x, y)
        return to_unit(_cropped(self.last(F.relu(self.norm(x, y))), self.size))


class _StyledConvolution(nn.Module):
    """A convolution whose inputs are scaled by a style, and whose outputs are brought to unit variance.

    Karras et al. 2020 ("Analyzing and Improving the Image Quality of StyleGAN"), eq. 1 to 3, the style applied to what
    goes in and comes out instead of to the weights, which is the same and takes one convolution for all items.
    """

    def __init__(self, below: int, above: int, style: int, *, kernel: int = 3, demodulate: bool = True) -> None:
        super().__init__()
        self.style = nn.Linear(style, below)
        nn.init.ones_(self.style.bias)
        self.weight = nn.Parameter(torch.randn(above, below, kernel, kernel) / math.sqrt(below * kernel**2))
        self.bias = nn.Parameter(torch.zeros(above))
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale = self.style(style)
        x = F.conv2d(x * scale[:, :, None, None], self.weight, padding=self.weight.shape[-1] // 2)
        if self.demodulate:
            norm = (scale.square() @ self.weight.square().sum((2, 3)).T + _TINY).rsqrt()
            x = x * norm[:, :, None, None]
        return x + self.bias[:, None, None]


class StyleGenerator(Generator):
    """A mapping network from noise to style, and convolutions that the style steers (Karras et al. 2018, 2020).

    There is no noise for single pixels: all that an image shows follows from its styles.

    Attributes:
        layers: how many layers take a style, from the coarsest to the pixels.
    """

    mean_style: Tensor

    def __init__(self, shape: Shape, labels: int, latent: int, width: int) -> None:
        super().__init__()
        pyramid = Pyramid(shape[0], shape[1], width)
        channels = pyramid.channels
        self.size = pyramid.size
        mapping: list[nn.Module] = []
        for i in range(_MAPPING_LAYERS):
            layer = nn.Linear(latent + (0 if i else labels), latent)
            # Torch's own first weights let the noise fade from layer to layer, and only the label would be left.
            nn.init.kaiming_normal_(layer.weight, _SLOPE)
            nn.init.zeros_(layer.bias)
            mapping += [layer, nn.LeakyReLU(_SLOPE)]
        self.mapping = nn.Sequential(*mapping)
        self.constant = nn.Parameter(torch.randn(1, channels[0], *pyramid.smallest))
        # A convolution for the smallest level, two for each larger one, and one to the pixels.
        pairs = [(channels[0], channels[0], False)]
        for below, above in itertools.pairwise(channels):
            pairs += [(below, above, True), (above, above, False)]
        self.doubles = [doubles for _, _, doubles in pairs]
        self.convolutions = nn.ModuleList([_StyledConvolution(below, above, latent) for below, above, _ in pairs])
        self.last = _StyledConvolution(channels[-1], shape[2], latent, kernel=1, demodulate=False)
        self.layers = len(pairs) + 1
        self.register_buffer("mean_style", torch.zeros(max(1, labels), latent))

    def styles(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the style of each item, (n, latent)."""
        z = z * (z.square().mean(1, keepdim=True) + _TINY).rsqrt()
        style: Tensor = self.mapping(torch.cat([z, y], 1))
        return style

    def synthesise(self, styles: Tensor) -> Tensor:
        """Return images of the styles of the layers, (n, layers, latent)."""
        x = self.constant.expand(styles.shape[0], -1, -1, -1)
        each = styles.unbind(1)
        for convolution, doubles, style in zip(self.convolutions, self.doubles, each, strict=False):
            # The factor keeps the variance that the rectifier halves.
            x = F.leaky_relu(convolution(_doubled(x) if doubles else x, style), _SLOPE) * math.sqrt(2)
        return to_unit(_cropped(self.last(x, each[-1]), self.size))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """See the module; while it is trained, layers from a random one on take the style of another z."""
        styles = self.styles(z, y)
        each = styles[:, None].expand(-1, self.layers, -1)
        if self.training:
            self.observe(styles.detach().float(), y)
            other = self.styles(torch.randn_like(z), y)[:, None]
            first = torch.randint(1, self.layers, (len(z), 1), device=z.device)
            first = torch.where(torch.rand(len(z), 1, device=z.device) < _MIXING, first, self.layers)
            each = torch.where(self.before(first)[..., None], each, other)
        return self.synthesise(each)

    def observe(self, styles: Tensor, y: Tensor) -> None:
        """Let the mean style of each label follow those of a batch."""
        groups = y if y.shape[1] else torch.ones_like(styles[:, :1])
        counts = groups.sum(0)[:, None]
        means = groups.T @ styles / counts.clamp(min=1)
        self.mean_style.lerp_(torch.where(counts > 0, means, self.mean_style), _MEAN_WEIGHT)

    def truncated(self, z: Tensor, y: Tensor, truncation: Tensor) -> Tensor:
        """Return images whose styles are brought nearer to the mean one of their label."""
        styles = self.typical(self.styles(z, y), y, truncation)
        return self.synthesise(styles[:, None].expand(-1, self.layers, -1))

    def typical(self, styles: Tensor, y: Tensor, truncation: Tensor) -> Tensor:
        """Return styles brought nearer to the mean one of their label (Karras et al. 2018, appendix B)."""
        mean = y @ self.mean_style if y.shape[1] else self.mean_style
        return mean + (styles - mean) * truncation[:, None]

    def before(self, layer: Tensor) -> Tensor:
        """Return which layers come before that one, bool (n, layers), of int64 (n, 1)."""
        return torch.arange(self.layers, device=layer.device)[None] < layer


class MlpGenerator(Generator):
    """Dense layers of 128, 256, 512 and 1024 units and tanh, for very small images."""

    def __init__(self, shape: Shape, labels: int, latent: int, width: int) -> None:
        super().__init__()
        sizes = [latent, *_MLP_UNITS]
        self.layers = nn.ModuleList([nn.Linear(below, above, bias=False) for below, above in itertools.pairwise(sizes)])
        self.norms = nn.ModuleList([ConditionalNorm(units, labels) for units in _MLP_UNITS])
        self.last = nn.Linear(sizes[-1], math.prod(shape))
        self.unflatten = nn.Unflatten(1, (shape[2], *shape[:2]))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """See the module."""
        x = z
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)[:, :, None, None], y)[:, :, 0, 0], _SLOPE)
        return to_unit(self.unflatten(self.last(x)))


class _Head(nn.Module):
    """The end of every discriminator: a logit of the features, and their product with what the label stands for.

    The projection discriminator of Miyato & Koyama 2018, eq. 3; the product is divided by the root of the number of
    features, so that it starts as large as the logit whatever the width.
    """

    def __init__(self, features: int, labels: int, *, normalised: bool) -> None:
        super().__init__()
        self.logit = _weighted(nn.Linear(features, 1), normalised=normalised)
        self.projection = _weighted(nn.Linear(labels, features, bias=False), normalised=normalised) if labels else None

    def forward(self, features: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = self.logit(features)[:, 0].float()
        if self.projection is not None:
            meant = self.projection(y).float()
            logits = logits + (features.float() * meant).sum(1) / math.sqrt(features.shape[1])
        return logits


class DcganDiscriminator(nn.Module):
    """Strided convolutions, each to half the size, without batch normalisation, which the R1 penalty does not bear.

    Before the last convolution comes how much the items of the batch differ (Karras et al. 2017, section 3): a
    generator that makes one image again and again is seen through.

    Args:
        shape: (height, width, channels) of the images.
        labels: number of classes, 0 for none.
        width: channels of the largest level.
        normalised: whether weights are divided by their largest singular value.
    """

    def __init__(self, shape: Shape, labels: int, width: int, *, normalised: bool) -> None:
        super().__init__()
        pyramid = Pyramid(shape[0], shape[1], width)
        channels = pyramid.channels[::-1]
        self.padding = pyramid.padding
        widest = channels[-1]
        sizes = [shape[2], *channels[1:]]
        self.layers = nn.ModuleList(
            [
                _weighted(nn.Conv2d(above, below, 4, stride=2, padding=1), normalised=normalised)
                for above, below in itertools.pairwise(sizes)
            ]
        )
        self.last = _weighted(nn.Conv2d(widest + 1, widest, 3, padding=1), normalised=normalised)
        features = nn.Linear(widest * math.prod(pyramid.smallest), widest)
        self.features = _weighted(features, normalised=normalised)
        self.head = _Head(widest, labels, normalised=normalised)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See the module."""
        x = F.pad(2 * x - 1, self.padding)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), _SLOPE)
        x = F.leaky_relu(self.last(torch.cat([x, _spread(x)], 1)), _SLOPE)
        logits: Tensor = self.head(F.leaky_relu(self.features(x.flatten(1)), _SLOPE), y)
        return logits


class _DownBlock(nn.Module):
    """A residual block to half the size (Miyato et al. 2018)."""

    def __init__(self, above: int, below: int, *, normalised: bool) -> None:
        super().__init__()
        self.first = _weighted(nn.Conv2d(above, below, 3, padding=1), normalised=normalised)
        self.second = _weighted(nn.Conv2d(below, below, 3, padding=1), normalised=normalised)
        self.shortcut = _weighted(nn.Conv2d(above, below, 1), normalised=normalised)

    def forward(self, x: Tensor) -> Tensor:
        change = F.avg_pool2d(self.second(F.leaky_relu(self.first(F.leaky_relu(x, _SLOPE)), _SLOPE)), 2)
        shortcut: Tensor = self.shortcut(F.avg_pool2d(x, 2))
        return shortcut + change


class ResnetDiscriminator(nn.Module):
    """Residual blocks, each to half the size (Miyato et al. 2018). Takes the same arguments as DcganDiscriminator."""

    def __init__(self, shape: Shape, labels: int, width: int, *, normalised: bool) -> None:
        super().__init__()
        pyramid = Pyramid(shape[0], shape[1], width)
        channels = pyramid.channels[::-1]
        self.normalised = normalised
        self.padding = pyramid.padding
        self.first = _weighted(nn.Conv2d(shape[2], channels[0], 3, padding=1), normalised=normalised)
        self.blocks = nn.Sequential(
            *(_DownBlock(above, below, normalised=normalised) for above, below in itertools.pairwise(channels))
        )
        widest = channels[-1]
        self.last = _weighted(nn.Conv2d(widest + 1, widest, 3, padding=1), normalised=normalised)
        self.head = _Head(widest, labels, normalised=normalised)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See the module."""
        x = F.leaky_relu(self.blocks(self.first(F.pad(2 * x - 1, self.padding))), _SLOPE)
        x = F.leaky_relu(self.last(torch.cat([x, _spread(x)], 1)), _SLOPE)
        # Normalised weights make small features, whose sum gives logits of some size; of others the sum explodes.
        logits: Tensor = self.head(x.sum((2, 3)) if self.normalised else x.mean((2, 3)), y)
        return logits


class MlpDiscriminator(nn.Module):
    """Dense layers of 512 and 256 units. Takes the same arguments as DcganDiscriminator."""

    def __init__(self, shape: Shape, labels: int, width: int, *, normalised: bool) -> None:
        super().__init__()
        sizes = [math.prod(shape), *_MLP_UNITS[2:0:-1]]
        self.layers = nn.ModuleList(
            [_weighted(nn.Linear(above, below), normalised=normalised) for above, below in itertools.pairwise(sizes)]
        )
        self.head = _Head(sizes[-1], labels, normalised=normalised)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See the module."""
        x = (2 * x - 1).flatten(1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), _SLOPE)
        logits: Tensor = self.head(x, y)
        return logits


def _weighted(layer: nn.Module, *, normalised: bool) -> nn.Module:
    """Return the layer with its weight divided by its largest singular value, if so (Miyato et al. 2018, eq. 8)."""
    return spectral_norm(layer) if normalised else layer


def _cropped(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x[:, :, : size[0], : size[1]]


def _doubled(x: Tensor) -> Tensor:
    """Return each pixel as four."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _spread(x: Tensor) -> Tensor:
    """Return how far the items of the batch are from their mean, (n, 1, height, width), the same for all."""
    variance = x.float().var(0, correction=0)
    # At 0, where all items are the same, the root itself has no gradient.
    spread = (variance + _TINY).sqrt().mean()
    return spread.to(x.dtype).expand(x.shape[0], 1, *x.shape[2:])
