"""The loss of methods without negatives."""

from torch import Tensor

from densessl.losses.checks import check_pair
from densessl.precision import full_precision, l2_normalize


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Mean over rows of ``-cos(p, z)``. The caller detaches the side that is the target.

    Args:
        p: (N, C) predictions.
        z: (N, C) targets.

    Returns:
        A scalar in [-1, 1].

    Raises:
        ValueError: If the shapes differ.

    Source: SimSiam (2011.10566), equation 1; BYOL's (2006.07733, equation 2) is 2 + 2 of it.
    """
    check_pair(p, z)
    return -(l2_normalize(p) * l2_normalize(z)).sum(1).mean()
