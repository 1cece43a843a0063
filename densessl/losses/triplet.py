"""The triplet loss, and the choice of each anchor's hardest negative in a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.losses.checks import check_pair
from densessl.precision import full_precision, l2_normalize


@full_precision
def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.3) -> Tensor:
    """Mean over rows of ``max(0, |a - p| - |a - n| + margin)``, Euclidean.

    Inputs are used as given: L2-normalise them first.

    Args:
        anchor: (N, C).
        positive: (N, C).
        negative: (N, C).
        margin: How much further off than the positive a negative should be.

    Returns:
        A scalar.

    Source: 1503.03832, with distances that are not squared, as in 1703.07737.
    """
    return F.triplet_margin_loss(anchor, positive, negative, margin, eps=0.0)


@full_precision
def batch_hard_triplet(
    z1: Tensor, z2: Tensor, margin: float = 0.3, group: Tensor | None = None
) -> Tensor:
    """``triplet`` of all 2N views: the twin as positive, the nearest other view as negative.

    Args:
        z1: (N, C) embeddings of the first views, N > 1; L2-normalised here.
        z2: (N, C) embeddings of the second views.
        margin: See ``triplet``.
        group: (N,) integers, at least two different ones: pairs of one group are no negatives of
            each other. None: each pair is its own group.

    Returns:
        A scalar.

    Raises:
        ValueError: If the shapes differ or there are fewer than two pairs.

    Source: 1703.07737, equation 5; an image has two views, so its hardest positive is its only.
    """
    check_pair(z1, z2, rows=2)
    z = l2_normalize(torch.cat([z1, z2]))
    with torch.no_grad():
        group = torch.arange(len(z1), device=z.device) if group is None else group
        same = (group[:, None] == group).repeat(2, 2)
        hardest = (z @ z.T).masked_fill(same, -torch.inf).argmax(1)
    return triplet(z, z.roll(len(z1), 0), z[hardest], margin)
