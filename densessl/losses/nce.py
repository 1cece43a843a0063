"""Losses against a memory bank: noise-contrastive estimation and the exact softmax."""

import math

import torch.nn.functional as F
from torch import Tensor

from densessl.precision import full_precision


def _against_own(f: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """(N, C), (N, m, C) -> (N, m) logits, each row against negatives of its own."""
    return (negatives @ f.unsqueeze(2)).squeeze(2) / temperature


@full_precision
def nce(
    f: Tensor,
    v: Tensor,
    negatives: Tensor,
    log_z: Tensor,
    num_samples: int,
    temperature: float = 0.07,
) -> Tensor:
    """Is this the data or noise? ``-log h(i,v) - sum_m log(1 - h(i,v'))``, mean over the rows.

    ``P(i|v) = exp(v.f/t) / Z``, ``P_n = 1/n``, ``h = P / (P + m P_n)``. Inputs are used as given.

    Args:
        f: (N, C), has gradient.
        v: (N, C) the bank's entries of the same images.
        negatives: (N, m, C) entries drawn uniformly.
        log_z: Scalar, logarithm of the constant Z, see ``nce_partition``.
        num_samples: n, entries of the bank.
        temperature: The divisor t of every logit.

    Returns:
        A scalar.

    Source: InstDisc (1805.01978), equations 5 to 7.
    """
    log_noise = math.log(negatives.shape[1] / num_samples)
    data = (f * v).sum(1) / temperature - log_z - log_noise
    noise = _against_own(f, negatives, temperature) - log_z - log_noise
    return (F.softplus(-data) + F.softplus(noise).sum(1)).mean()


@full_precision
def nce_partition(
    f: Tensor, negatives: Tensor, num_samples: int, temperature: float = 0.07
) -> Tensor:
    """The estimate ``Z = n * mean exp(v'.f/t)`` over all rows and their drawn entries; a scalar.

    Args:
        f: (N, C).
        negatives: (N, m, C) entries drawn uniformly.
        num_samples: n, entries of the bank.
        temperature: The divisor t.

    Source: InstDisc (1805.01978), equation 8.
    """
    return num_samples * _against_own(f, negatives, temperature).exp().mean()


@full_precision
def instance_softmax(f: Tensor, bank: Tensor, index: Tensor, temperature: float = 0.07) -> Tensor:
    """``-log(exp(v_i.f/t) / sum_j exp(v_j.f/t))`` over the whole bank, mean over the rows.

    Args:
        f: (N, C), has gradient.
        bank: (n, C).
        index: (N,) int64, each row's own entry.
        temperature: The divisor t.

    Source: InstDisc (1805.01978), equation 2.
    """
    return F.cross_entropy(f @ bank.T / temperature, index)


@full_precision
def pirl_nce(
    f: Tensor, v: Tensor, negatives: Tensor, own: Tensor, temperature: float = 0.07
) -> Tensor:
    """``-log h(f.v) - sum over negatives of log(1 - h(f.v'))``, mean over the rows.

    ``h(s) = exp(s/t) / (exp(s/t) + sum over negatives of exp(f.v'/t))``.

    Args:
        f: (N, C), has gradient.
        v: (N, C) the bank's entries of the same images.
        negatives: (K, C) entries of the bank, shared by all rows.
        own: (N, K) bool, where a negative is the row's own image; it does not count.
        temperature: The divisor t.

    Returns:
        A scalar.

    Source: PIRL (1912.01991), equations 4 and 5.
    """
    logits = (f @ negatives.T / temperature).masked_fill(own, -math.inf)
    log_sum = logits.logsumexp(1)
    positive = (f * v).sum(1) / temperature
    return (
        F.softplus(log_sum - positive) + F.softplus(logits - log_sum.unsqueeze(1)).sum(1)
    ).mean()
