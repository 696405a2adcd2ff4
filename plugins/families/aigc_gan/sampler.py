"""What is exported: functions from seeds and controls to pixels."""

import torch
from torch import Tensor, nn

from aigc_gan.networks import Generator, StyleGenerator
from aigc_sdk.training.random import Stream, draw_choice, normal
from aigc_sdk.training.sampling import between, cumulative, one_hot, to_pixels


class _Sampler(nn.Module):
    """What all tasks share.

    Args:
        generator: makes images of noise and labels.
        latent: dimensions of the noise.
        label_frequencies: of the classes, () for none.
    """

    cumulative: Tensor

    def __init__(self, generator: Generator, latent: int, label_frequencies: tuple[float, ...]) -> None:
        super().__init__()
        self.generator = generator
        self.latent = latent
        self.labels = len(label_frequencies)
        self.register_buffer("cumulative", cumulative(label_frequencies))

    def draw(self, seed: Tensor, controls: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the seed's noise, normal float32 (n, latent), and the one-hot label that is asked for, or its own."""
        label = draw_choice(controls["label"], seed, self.cumulative) if self.labels else None
        return normal(seed, self.latent, Stream.LATENT), one_hot(label, self.labels, seed)

    def pixels(self, z: Tensor, y: Tensor, truncation: Tensor) -> Tensor:
        """Return uint8 (n, height, width, channels); truncation is float32 (n,)."""
        return to_pixels(self.generator.truncated(z, y, truncation))


class Generate(_Sampler):
    """seed, truncation and, with labels, label -> an image."""

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        return self.pixels(*self.draw(seed, controls), controls["truncation"])


class GenerateMixed(_Sampler):
    """seed, seed_b, mix_layer, truncation and, with labels, label -> an image.

    Its coarse layers, those before mix_layer, take the style of seed, the finer ones that of seed_b (Karras et al.
    2018, section 3.1).
    """

    generator: StyleGenerator

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        z, y = self.draw(seed, controls)
        z_b = normal(controls["seed_b"], self.latent, Stream.LATENT)
        styles = (self.generator.styles(noise, y) for noise in (z, z_b))
        a, b = (self.generator.typical(each, y, controls["truncation"])[:, None] for each in styles)
        before = self.generator.before(controls["mix_layer"][:, None])
        return to_pixels(self.generator.synthesise(torch.where(before[..., None], a, b)))


class Interpolate(_Sampler):
    """seed, seed_b, t, truncation and, with labels, label -> an image on the way from seed's to seed_b's.

    At t = 0 and t = 1 it is what is made of seed and of seed_b alone.
    """

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        a, b = (self.draw(each, controls) for each in (seed, controls["seed_b"]))
        return self.pixels(*between(a, b, controls["t"]), controls["truncation"])
