"""VICReg: variance, invariance and covariance of two views' embeddings."""

import torch.nn.functional as F
from torch import Tensor

from densessl.losses.checks import check_pair
from densessl.precision import full_precision

EPS = 1e-4


def _spread_and_redundancy(z: Tensor) -> tuple[Tensor, Tensor]:
    """Hinge of the channels' deviations below 1, and the mean off-diagonal covariance squared."""
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    variance = covariance.diagonal()
    spread = F.relu(1 - (variance + EPS).sqrt()).mean()
    return spread, (covariance.square().sum() - variance.square().sum()) / z.shape[1]


@full_precision
def vicreg(
    z1: Tensor, z2: Tensor, sim_weight: float = 25, var_weight: float = 25, cov_weight: float = 1
) -> Tensor:
    """``sim_weight * s + var_weight * (v1 + v2) / 2 + cov_weight * (c1 + c2)``.

    s is the mean squared error, v the mean over channels of ``max(0, 1 - sqrt(var + 1e-4))``, c
    the sum of squared off-diagonal covariances over D; both unbiased, over the rows given, which
    must be the global batch.

    Args:
        z1: (N, D) embeddings of the first views, N > 1.
        z2: (N, D) embeddings of the second views.
        sim_weight: Of the invariance.
        var_weight: Of the variance.
        cov_weight: Of the covariance.

    Returns:
        A scalar.

    Raises:
        ValueError: If the shapes differ or there are fewer than two rows.

    Source: VICReg (2105.04906), equations 1 to 6.
    """
    check_pair(z1, z2, rows=2)
    (v1, c1), (v2, c2) = _spread_and_redundancy(z1), _spread_and_redundancy(z2)
    return sim_weight * F.mse_loss(z1, z2) + var_weight * (v1 + v2) / 2 + cov_weight * (c1 + c2)
