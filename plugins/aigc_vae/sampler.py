"""What is exported: functions from seeds and controls to pixels."""

import torch
from torch import Tensor, nn

from aigc_sdk.training.random import Stream, draw_choice, normal
from aigc_vae.networks import Decoder, one_hot


class _Sampler(nn.Module):
    """What both tasks share.

    Args:
        decoder: p(x | z, y).
        latent: dimensions of z.
        label_frequencies: of the classes, () for none.
    """

    cumulative: Tensor

    def __init__(self, decoder: Decoder, latent: int, label_frequencies: tuple[float, ...]) -> None:
        super().__init__()
        self.decoder = decoder
        self.latent = latent
        self.labels = len(label_frequencies)
        self.register_buffer("cumulative", torch.tensor(label_frequencies, dtype=torch.float64).cumsum(0).float())

    def draw_latent(self, seed: Tensor, temperature: Tensor) -> Tensor:
        """Return z, float32 (n, latent), normal with the temperature as its standard deviation."""
        return normal(seed, self.latent, Stream.LATENT) * temperature[:, None]

    def draw_label(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return the one-hot label that was asked for, or the seed's own where it is -1."""
        if not self.labels:
            return one_hot(None, 0, seed)
        return one_hot(draw_choice(controls["label"], seed, self.cumulative), self.labels, seed)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the means of the pixels, uint8 (n, height, width, channels)."""
        means = torch.sigmoid(self.decoder(z, y))
        return (means * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class Generate(_Sampler):
    """seed, temperature and, with labels, label -> an image."""

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        return self.decode(self.draw_latent(seed, controls["temperature"]), self.draw_label(seed, controls))


class Interpolate(_Sampler):
    """seed, seed_b, t, temperature and, with labels, label -> an image on the way from seed's to seed_b's.

    At t = 0 and t = 1 it is what Generate makes of seed and of seed_b. In between the latent is
    ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2), which is as normal as a and b are.
    """

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        seeds = (seed, controls["seed_b"])
        z_a, z_b = (self.draw_latent(s, controls["temperature"]) for s in seeds)
        y_a, y_b = (self.draw_label(s, controls) for s in seeds)
        weight_b = controls["t"][:, None]
        weight_a = 1 - weight_b
        norm = (weight_a * weight_a + weight_b * weight_b).sqrt()
        return self.decode((weight_a * z_a + weight_b * z_b) / norm, weight_a * y_a + weight_b * y_b)
