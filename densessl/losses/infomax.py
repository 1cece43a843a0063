"""Mutual information of images and the locations of their maps, by several estimators.

``location_scores`` sets each image beside its own locations and those of all others; what is left
of an estimator is a line. All of them are losses: the estimate with its sign turned, up to a
constant.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.precision import full_precision


@full_precision
def location_scores(g: Tensor, l: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:  # noqa: E741
    """Products of images with locations; inputs are used as given, not normalised.

    Args:
        g: (N, C), one vector an image.
        l: (M, C, L) vectors of L locations of each image of the global batch; M >= N + first.
        first: Place of the first row's own image among these, rank * N.

    Returns:
        (N, L) products with the locations of the own image, and (N, M - 1, L) with all others.
    """
    scores_NML = torch.einsum("nc,mcl->nml", g, l)
    row = torch.arange(len(g), device=g.device)
    own = row + first
    others = (own[:, None] + torch.arange(1, len(l), device=g.device)) % len(l)
    return scores_NML[row, own], scores_NML[row[:, None], others]


@full_precision
def jsd(positives: Tensor, negatives: Tensor) -> Tensor:
    """``mean softplus(-T) over positives + mean softplus(T) over negatives``; a scalar.

    It is also what a discriminator of real (positive) and false scores minimises.

    Args:
        positives: Scores of any shape.
        negatives: Scores of any shape.

    Source: Deep InfoMax (1808.06670), equation 4.
    """
    return F.softplus(-positives).mean() + F.softplus(negatives).mean()


@full_precision
def donsker_varadhan(positives: Tensor, negatives: Tensor) -> Tensor:
    """``log mean exp(T) over negatives - mean T over positives``; a scalar.

    The logarithm is of one mean over everything given, which must be the global batch.

    Args:
        positives: Scores of any shape.
        negatives: Scores of any shape.

    Source: Deep InfoMax (1808.06670), equation 2.
    """
    return negatives.flatten().logsumexp(0) - math.log(negatives.numel()) - positives.mean()


@full_precision
def location_nce(positives: Tensor, negatives: Tensor) -> Tensor:
    """Mean over positives of ``-log(exp(T) / (exp(T) + sum over its row's negatives of exp))``.

    Args:
        positives: (N, L); one does not count in the denominator of another.
        negatives: (N, ...), each row's own.

    Returns:
        A scalar.

    Source: Deep InfoMax (1808.06670), equation 5.
    """
    below = negatives.flatten(1).logsumexp(1, keepdim=True)
    return F.softplus(below - positives).mean()


@full_precision
def amdim_nce(
    f: Tensor, locations: Tensor, first: int = 0, penalty: float = 0.05, clip: float = 20.0
) -> Tensor:
    """``location_nce`` of clipped scores, and a penalty on the scores before they are clipped.

    ``s = f.l / sqrt(C)``; the loss is that of ``clip * tanh(s / clip)`` plus ``penalty * mean s^2``
    over all scores, own and others'.

    Args:
        f: (N, C), one vector an image.
        locations: (M, C, L), see ``location_scores``.
        first: See there.
        penalty: Weight of the mean square.
        clip: Bound of a score.

    Returns:
        A scalar.

    Source: AMDIM (1906.00910), section 3.3 and its regularisation.
    """
    positives, negatives = location_scores(f / math.sqrt(f.shape[1]), locations, first)
    scores = torch.cat([positives.unsqueeze(1), negatives], dim=1)
    clipped = clip * torch.tanh(scores / clip)
    return location_nce(clipped[:, 0], clipped[:, 1:]) + penalty * scores.square().mean()
