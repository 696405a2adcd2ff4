"""The evidence lower bound and its two terms, in nats for each item."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def reconstruction(logits: Tensor, x: Tensor) -> Tensor:
    """Return -log p(x | z) of the Bernoulli likelihood, float32 (n,), summed over the pixels.

    Kingma & Welling 2013, appendix C.1. For pixels between 0 and 1 it is the mean over images drawn
    from them, as in dynamic binarisation.

    Args:
        logits: (n, channels, height, width).
        x: of the same shape, 0 to 1.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), x, reduction="none").flatten(1).sum(1)


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


def log_weight(logits: Tensor, x: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Return log p(x, z) - log q(z | x), float32 (n,): one term of the importance-weighted bound.

    Burda et al. 2015, eq. 8: the bound is the log of the mean of the exponentials of K of these.
    """
    log_prior = -0.5 * z.square() - _HALF_LOG_2PI
    log_posterior = -0.5 * (logvar + (z - mu).square() / logvar.exp()) - _HALF_LOG_2PI
    return (log_prior - log_posterior).sum(1) - reconstruction(logits, x)
