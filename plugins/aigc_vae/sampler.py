"""What is exported: functions from seeds and controls to pixels."""

import torch
from torch import Tensor, nn

from aigc_sdk.training.random import Stream, draw_choice, draw_choices, normal
from aigc_vae.losses import Bernoulli, DiscretisedLogistic
from aigc_vae.networks import Decoder, Encoder, FlowPrior, NormalPrior, one_hot

# A pixel is kept where the mask is at least this.
_KEPT = 128


class _Sampler(nn.Module):
    """What all tasks share.

    Args:
        decoder: p(x | z, y).
        prior: from noise to z.
        latent: dimensions of z.
        label_frequencies: of the classes, () for none.
    """

    cumulative: Tensor

    def __init__(
        self, decoder: Decoder, prior: FlowPrior | NormalPrior, latent: int, label_frequencies: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.prior = prior
        self.latent = latent
        self.labels = len(label_frequencies)
        self.register_buffer("cumulative", torch.tensor(label_frequencies, dtype=torch.float64).cumsum(0).float())

    def draw_noise(self, seed: Tensor, temperature: Tensor) -> Tensor:
        """Return noise, float32 (n, latent), normal with the temperature as its standard deviation."""
        return normal(seed, self.latent, Stream.LATENT) * temperature[:, None]

    def draw_label(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return the one-hot label that was asked for, or the seed's own where it is -1."""
        if not self.labels:
            return one_hot(None, 0, seed)
        return one_hot(draw_choice(controls["label"], seed, self.cumulative), self.labels, seed)

    def means(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the means of the pixels, float32 (n, channels, height, width), 0 to 1."""
        return torch.sigmoid(self.decoder(z, y))


class Generate(_Sampler):
    """seed, temperature and, with labels, label -> an image."""

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        y = self.draw_label(seed, controls)
        return to_pixels(self.means(self.prior(self.draw_noise(seed, controls["temperature"]), y), y))


class Interpolate(_Sampler):
    """seed, seed_b, t, temperature and, with labels, label -> an image on the way from seed's to seed_b's.

    At t = 0 and t = 1 it is what Generate makes of seed and of seed_b. In between the noise is
    ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2), which is as normal as a and b are.
    """

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        seeds = (seed, controls["seed_b"])
        noise_a, noise_b = (self.draw_noise(s, controls["temperature"]) for s in seeds)
        y_a, y_b = (self.draw_label(s, controls) for s in seeds)
        weight_b = controls["t"][:, None]
        weight_a = 1 - weight_b
        norm = (weight_a * weight_a + weight_b * weight_b).sqrt()
        y = weight_a * y_a + weight_b * y_b
        return to_pixels(self.means(self.prior((weight_a * noise_a + weight_b * noise_b) / norm, y), y))


class Reconstruct(nn.Module):
    """seed, image, temperature -> the image as the model sees it: encoded and decoded.

    The label is the one that the encoder reads off the image: who has an image to look at need not say what it is.

    Args:
        encoder: q(z | x) and q(y | x).
        decoder: p(x | z, y).
        latent: dimensions of z.
        labels: number of classes, 0 for none.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, latent: int, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent
        self.labels = labels

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        mu, logvar, logits = self.encoder(from_pixels(controls["image"]))
        noise = normal(seed, self.latent, Stream.POSTERIOR) * controls["temperature"][:, None]
        label = logits.argmax(1) if self.labels else None
        return to_pixels(
            torch.sigmoid(self.decoder(mu + noise * (0.5 * logvar).exp(), one_hot(label, self.labels, mu)))
        )


def from_pixels(image: Tensor) -> Tensor:
    """Return uint8 (n, height, width, channels) as float32 (n, channels, height, width), 0 to 1."""
    return image.permute(0, 3, 1, 2).float() / 255


def to_pixels(means: Tensor) -> Tensor:
    """Return float32 (n, channels, height, width), 0 to 1, as uint8 (n, height, width, channels)."""
    return (means * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
