"""The evidence lower bound and its two terms, in nats for each item."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aigc_sdk.training.sampling import premultiplied
from aigc_vae.networks import FlowPrior

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

# Half the distance between two of 256 levels from 0 to 1.
_HALF_LEVEL = 0.5 / 255

# Logarithms of the scale of a logistic distribution, where 1 is from black to white: at first 12 levels; at least 0.1.
_FIRST_LOG_SCALE = math.log(12 / 255)
_LEAST_LOG_SCALE = math.log(0.1 / 255)


class Bernoulli(nn.Module):
    """p(x | z) of pixels that are black or white (Kingma & Welling 2013, appendix C.1)."""

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return -log p(x | z) of each value, float32 (n, channels, height, width), in nats.

        For values between 0 and 1 it is the mean over images drawn from them, as in dynamic binarisation.

        Args:
            logits: (n, channels, height, width).
            x: of the same shape, 0 to 1.
        """
        logits = logits.float()
        # Exported, torch's own cross entropy takes the logarithm of a sigmoid, which is 0 far out.
        return F.softplus(logits) - x * logits


class DiscretisedLogistic(nn.Module):
    """p(x | z) of 256 levels: what a logistic distribution puts around each (Kingma et al. 2016, appendix C.1).

    The darkest level has all below it, the brightest all above (Salimans et al. 2017, eq. 2), so that the 256
    probabilities sum to 1. The distribution's mean is the sigmoid of the logits; its scale is learned for each channel,
    which weighs the images against the KL term (Rybkin et al. 2021): the better they are told, the more they weigh.

    Args:
        channels: of the images.
        premultiplies: whether colours are multiplied by the alpha before they are compared (`premultiplied`).
    """

    def __init__(self, channels: int, *, premultiplies: bool = False) -> None:
        super().__init__()
        self.premultiplies = premultiplies
        self.log_scale = nn.Parameter(torch.full((channels, 1, 1), _FIRST_LOG_SCALE))

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return -log p(x | z) of each value, float32 (n, channels, height, width), in nats.

        Args:
            logits: (n, channels, height, width).
            x: of the same shape, multiples of 1/255 from 0 to 1.
        """
        mean = torch.sigmoid(logits.float())
        if self.premultiplies:
            mean, x = premultiplied(mean), premultiplied(x)
        scale = self.log_scale.clamp(min=_LEAST_LOG_SCALE).exp()
        centred = x - mean
        upper, lower = (centred + _HALF_LEVEL) / scale, (centred - _HALF_LEVEL) / scale
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose logarithm loses no digits.
        # log(sigmoid(a)) is -softplus(-a), which stays finite far out when exported too.
        below, above = -F.softplus(-upper), -F.softplus(lower)
        inside = below + above + torch.log(-torch.expm1(-2 * _HALF_LEVEL / scale))
        return -torch.where(x < _HALF_LEVEL, below, torch.where(x > 1 - _HALF_LEVEL, above, inside))


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mu, exp(logvar)) || N(0, 1)), float32 (n,), summed over (n, latent).

    Kingma & Welling 2013, appendix B.
    """
    mu, logvar = mu.float(), logvar.float()
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)


def sample_latent(mu: Tensor, logvar: Tensor) -> Tensor:
    """Draw z ~ N(mu, exp(logvar)) as a function that gradients pass through (Kingma & Welling 2013, eq. 10)."""
    mu, logvar = mu.float(), logvar.float()
    return mu + torch.randn_like(mu) * (0.5 * logvar).exp()


def flow_matching(prior: FlowPrior, z: Tensor, y: Tensor, copies: int) -> Tensor:
    """Return the flow-matching loss, float32 (n,): the squared error of the velocity, summed over (n, latent).

    Lipman et al. 2023, eq. 23 with sigma_min = 0: on the straight way x_t = (1 - t) x_0 + t x_1 from noise to a
    latent the velocity is x_1 - x_0.

    Args:
        prior: whose velocity field learns.
        z: (n, latent), drawn from the encoder and detached from it.
        y: one-hot labels (n, labels), or (n, 0).
        copies: times and noises drawn for each latent.
    """
    end = prior.standardise(z.float()).repeat(copies, 1)
    start, t = torch.randn_like(end), torch.rand(len(end), 1, device=end.device)
    velocity = prior.velocity(start + t * (end - start), prior.time(t), y.repeat(copies, 1)).float()
    return (velocity - (end - start)).square().sum(1).view(copies, -1).mean(0)


def log_weight(distortion: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Return log p(x, z) - log q(z | x), float32 (n,): one term of the importance-weighted bound.

    Burda et al. 2015, eq. 8: the bound is the log of the mean of the exponentials of K of these.

    Args:
        distortion: -log p(x | z), (n,).
        z: (n, latent), drawn from the encoder; its prior is N(0, 1).
        mu: (n, latent).
        logvar: (n, latent).
    """
    log_prior = -0.5 * z.square() - _HALF_LOG_2PI
    log_posterior = -0.5 * (logvar + (z - mu).square() / logvar.exp()) - _HALF_LOG_2PI
    return (log_prior - log_posterior).sum(1) - distortion
