"""The loss of a network that predicts the next token."""

from torch import Tensor
from torch.nn import functional as F


def negative_log_likelihood(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return -log p of each token, in nats, float32 (n, t).

    Args:
        logits: (n, t, tokens).
        tokens: int64 (n, t).
    """
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
