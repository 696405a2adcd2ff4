"""What is exported: functions from seeds and controls to pixels."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aigc_sdk.training.random import Stream, draw_choice, draw_choices, normal
from aigc_sdk.training.sampling import between, cumulative, from_pixels, one_hot, to_pixels
from aigc_vae.losses import Bernoulli, DiscretisedLogistic
from aigc_vae.networks import Decoder, Encoder, FlowPrior, NormalPrior

# Inpaint: a pixel is kept where the mask is at least this; images to choose among; rounds of refining all of them, and
# then of what was chosen. Rounds before the choice are worth more than many more images
# (benchmarks/inpaint.py shows what comes out).
_KEPT = 128
_CANDIDATES = 16
# Of 256 levels fewer: where two candidates are nearly as likely, rounding decides how much of each is in the mean, and
# in images of many levels that is seen (16 made more values differ from eager torch than may).
_CANDIDATES_OF_LEVELS = 4
_AT_ONCE = 4
_ROUNDS_OF_ALL = 2
_ROUNDS = 2


@dataclass(frozen=True)
class Parts:
    """The modules of a VAE, of which each sampler takes what it needs."""

    encoder: Encoder
    decoder: Decoder
    prior: FlowPrior | NormalPrior
    likelihood: Bernoulli | DiscretisedLogistic


class _Sampler(nn.Module):
    """What all tasks share.

    Args:
        parts: the modules of the VAE.
        latent: dimensions of z.
        label_frequencies: of the classes, () for none.
    """

    cumulative: Tensor

    def __init__(self, parts: Parts, latent: int, label_frequencies: tuple[float, ...]) -> None:
        super().__init__()
        self.decoder = parts.decoder
        self.latent = latent
        self.labels = len(label_frequencies)
        self.register_buffer("cumulative", cumulative(label_frequencies))

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

    def __init__(self, parts: Parts, latent: int, label_frequencies: tuple[float, ...]) -> None:
        super().__init__(parts, latent, label_frequencies)
        self.prior = parts.prior

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        y = self.draw_label(seed, controls)
        return to_pixels(self.means(self.prior(self.draw_noise(seed, controls["temperature"]), y), y))


class Interpolate(_Sampler):
    """seed, seed_b, t, temperature and, with labels, label -> an image on the way from seed's to seed_b's.

    At t = 0 and t = 1 it is what Generate makes of seed and of seed_b.
    """

    def __init__(self, parts: Parts, latent: int, label_frequencies: tuple[float, ...]) -> None:
        super().__init__(parts, latent, label_frequencies)
        self.prior = parts.prior

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        a, b = (
            (self.draw_noise(each, controls["temperature"]), self.draw_label(each, controls))
            for each in (seed, controls["seed_b"])
        )
        noise, y = between(a, b, controls["t"])
        return to_pixels(self.means(self.prior(noise, y), y))


class Reconstruct(_Sampler):
    """seed, image, temperature -> the image as the model sees it: encoded and decoded.

    The label is what the encoder reads off the image, a probability for each class: who has an image need not say
    what it shows.
    """

    def __init__(self, parts: Parts, latent: int, label_frequencies: tuple[float, ...]) -> None:
        super().__init__(parts, latent, label_frequencies)
        self.encoder = parts.encoder

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        mu, logvar, logits = self.encoder(from_pixels(controls["image"]))
        noise = normal(seed, self.latent, Stream.POSTERIOR) * controls["temperature"][:, None]
        y = logits.softmax(1) if self.labels else one_hot(None, 0, mu)
        return to_pixels(self.means(mu + noise * (0.5 * logvar).exp(), y))


class Inpaint(_Sampler):
    """seed, image, mask, temperature and, with labels, label -> the image where the mask keeps it, filled elsewhere.

    The seed makes several images. Each is refined by encoding the kept pixels together with what was decoded in place
    of the others, and decoding that again (Rezende et al. 2014, appendix F). Then those that are likeliest to show the
    kept pixels are chosen: the mean of their latents, weighted by that likelihood (nearly always one of them). It is
    refined further.

    Weights and probabilities instead of the one best: a choice would turn the last bit of a runtime's arithmetic into
    another image.
    """

    def __init__(self, parts: Parts, latent: int, label_frequencies: tuple[float, ...]) -> None:
        super().__init__(parts, latent, label_frequencies)
        self.encoder = parts.encoder
        self.prior = parts.prior
        self.likelihood = parts.likelihood
        self.n_candidates = _CANDIDATES_OF_LEVELS if isinstance(parts.likelihood, DiscretisedLogistic) else _CANDIDATES

    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> Tensor:
        """Return uint8 (n, height, width, channels)."""
        image, kept = controls["image"], controls["mask"] >= _KEPT
        x, known = from_pixels(image), kept.permute(0, 3, 1, 2).float()
        label = controls.get("label", seed)  # without labels of no effect

        # A few candidates of each item at once, which takes a part of the memory; each item's rows are together.
        each = tuple(part.repeat_interleave(_AT_ONCE, 0) for part in (x, known, label))
        n, found = seed.shape[0], []
        all_z, all_y = self.candidates(seed, controls)
        for start in range(0, self.n_candidates, _AT_ONCE):
            z, y = (part[:, start : start + _AT_ONCE].flatten(0, 1) for part in (all_z, all_y))
            z, y = self.refined(z, y, *each, rounds=_ROUNDS_OF_ALL)
            nats = self.likelihood(self.decoder(z, y), each[0]) * each[1]
            nats = nats.flatten(1).double().sum(1, keepdim=True)
            found.append([part.view(n, _AT_ONCE, part.shape[1]) for part in (z, y, nats)])
        z, y, nats = (torch.cat(parts, 1) for parts in zip(*found, strict=True))

        # Summed along the last axis: along another one onnxruntime adds in another order when there is one item alone.
        weights = (-nats).transpose(1, 2).softmax(2).float()
        z, y = ((weights * part.transpose(1, 2)).sum(2) for part in (z, y))
        z, y = self.refined(z, y, x, known, label, rounds=_ROUNDS)
        return torch.where(kept, image, to_pixels(self.means(z, y)))

    def candidates(self, seed: Tensor, controls: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return z (n, candidates, latent) from the prior, and y (n, candidates, labels)."""
        noise = (
            normal(seed, self.n_candidates * self.latent, Stream.CANDIDATE_LATENT) * controls["temperature"][:, None]
        )
        noise = noise.view(-1, self.latent)
        y = one_hot(None, 0, noise)
        if self.labels:
            drawn = draw_choices(seed, self.n_candidates, self.cumulative, Stream.CANDIDATE_LABEL)
            label = controls["label"][:, None]
            y = one_hot(torch.where(label < 0, drawn, label).flatten(), self.labels, noise)
        n = seed.shape[0]
        return self.prior(noise, y).view(n, self.n_candidates, self.latent), y.view(n, self.n_candidates, self.labels)

    def refined(
        self, z: Tensor, y: Tensor, x: Tensor, known: Tensor, label: Tensor, *, rounds: int
    ) -> tuple[Tensor, Tensor]:
        """Return z and y after so many rounds; y is read off the image where no label was asked for."""
        for _ in range(rounds):
            z, _, logits = self.encoder(known * x + (1 - known) * self.means(z, y))
            if self.labels:
                y = torch.where(label[:, None] < 0, logits.softmax(1), one_hot(label, self.labels, x))
        return z, y
