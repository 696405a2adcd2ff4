"""The losses of both sides, and the penalties on the discriminator's gradient."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Keeps the gradient of a root finite.
_TINY = 1e-12

# What the discriminator makes of images: logits (n,).
Critic = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of a loss; each takes logits, float32 (n,), and returns a scalar.

    Attributes:
        discriminator: of the logits of real and of generated images.
        generator: of the logits of generated images.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def _non_saturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return (F.softplus(-real) + F.softplus(fake)).mean()


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return (F.relu(1 - real) + F.relu(1 + fake)).mean()


LOSSES = {
    # -log D(x) - log(1 - D(G(z))), and -log D(G(z)) in the place of log(1 - D(G(z))), whose gradient vanishes where the
    # discriminator is sure (Goodfellow et al. 2014, eq. 1 and section 3); D = sigmoid(logit).
    "non-saturating": AdversarialLoss(_non_saturating_discriminator, lambda fake: F.softplus(-fake).mean()),
    # Lim & Ye 2017, "Geometric GAN"; Miyato et al. 2018, eq. 16 and 17.
    "hinge": AdversarialLoss(_hinge_discriminator, lambda fake: -fake.mean()),
    # Arjovsky et al. 2017, eq. 2 and algorithm 1.
    "wgan-gp": AdversarialLoss(lambda real, fake: (fake - real).mean(), lambda fake: -fake.mean()),
}


def r1_penalty(critic: Critic, real: Tensor) -> Tensor:
    """Return the squared norm of the gradient at real images, the mean over the batch, a scalar.

    Mescheder et al. 2018, eq. 9, without the factor gamma / 2.

    Args:
        critic: what is penalised.
        real: (n, channels, height, width).
    """
    return _gradient(critic, real).square().sum(1).mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """Return how far the gradient's norm is from 1 between real and generated images, a scalar.

    Gulrajani et al. 2017, eq. 3, without the factor lambda: the mean of (|gradient| - 1)^2 at points drawn uniformly
    on the straight lines between pairs.

    Args:
        critic: what is penalised.
        real: (n, channels, height, width).
        fake: of the same shape.
    """
    place = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real, fake, place)
    # The root's own gradient at 0 is infinite.
    norm = (_gradient(critic, between).square().sum(1) + _TINY).sqrt()
    return (norm - 1).square().mean()


def _gradient(critic: Critic, x: Tensor) -> Tensor:
    """Return the gradient of the sum of the logits with respect to each image, (n, channels * height * width)."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1)
