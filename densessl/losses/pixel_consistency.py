"""PixPro's loss between cells of two views that show the same place."""

import torch
from torch import Tensor

from densessl.precision import full_precision, l2_normalize


@full_precision
def pixel_consistency(y: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
    """``-cos(y_i, x_j)`` averaged over the pairs of an image, then over the images.

    An image without a pair contributes 0 and counts in the mean. L2-normalises inside. Gradient
    goes to both sides: give the teacher's without.

    Args:
        y: (B, C, Q) cells of the student, after propagation.
        x: (B, C, K) cells of the teacher.
        pairs: (B, Q, K) bool, see ``match_by_distance``.

    Returns:
        A scalar in [-1, 1].

    Source: PixPro (2011.10043), equation 4 (one direction).
    """
    cosine_BQK = torch.bmm(l2_normalize(y).transpose(1, 2), l2_normalize(x))
    count = pairs.sum(dim=(1, 2)).clamp(min=1)
    return -((cosine_BQK * pairs).sum(dim=(1, 2)) / count).mean()
