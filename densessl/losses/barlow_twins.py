"""Barlow Twins: the channels of two views correlate with themselves and with no other."""

from torch import Tensor

from densessl.losses.checks import check_pair
from densessl.precision import full_precision

EPS = 1e-5


def _standardize(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / (z.var(0, correction=0) + EPS).sqrt()


@full_precision
def barlow_twins(z1: Tensor, z2: Tensor, lambd: float = 0.0051) -> Tensor:
    """``sum_i (1 - C_ii)^2 + lambd * sum_{i != j} C_ij^2`` with C the cross-correlation matrix.

    Channels are standardised over the rows given (biased variance, eps 1e-5), so these must be
    the global batch.

    Args:
        z1: (N, D) embeddings of the first views.
        z2: (N, D) embeddings of the second views.
        lambd: Weight of the redundancy term.

    Returns:
        A scalar.

    Raises:
        ValueError: If the shapes differ or there are fewer than two rows.

    Source: Barlow Twins (2103.03230), equations 1 and 2.
    """
    check_pair(z1, z2, rows=2)
    correlation = _standardize(z1).T @ _standardize(z2) / len(z1)
    diagonal = correlation.diagonal()
    redundancy = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + lambd * redundancy
