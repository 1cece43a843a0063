"""NT-Xent: each view finds its twin among all other views of the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.losses.checks import check_pair, check_temperature
from densessl.precision import full_precision, l2_normalize


@full_precision
def nt_xent(
    z1: Tensor, z2: Tensor, temperature: float = 0.1, group: Tensor | None = None
) -> Tensor:
    """Mean over the 2N views of ``-log(exp(s_twin/t) / sum_{k != self} exp(s_k/t))``, s cosines.

    Args:
        z1: (N, C) embeddings of the first views; L2-normalised here.
        z2: (N, C) embeddings of the second views, row i the twin of row i of ``z1``.
        temperature: The divisor of every cosine.
        group: (N,) integers: pairs of one group are left out of each other's sums, as a view is
            of its own. None: each pair is its own group.

    Returns:
        A scalar; 0 for a single pair, which has no negatives.

    Raises:
        ValueError: If the shapes differ or the temperature is not above 0.

    Source: SimCLR (2002.05709), equation 1.
    """
    check_pair(z1, z2)
    check_temperature(temperature)
    z = l2_normalize(torch.cat([z1, z2]))
    logits = z @ z.T / temperature
    twin = torch.arange(len(z), device=z.device).roll(len(z1))
    group = torch.arange(len(z1), device=z.device) if group is None else group
    left_out = (group[:, None] == group).repeat(2, 2).scatter(1, twin[:, None], False)
    return F.cross_entropy(logits.masked_fill(left_out, -torch.inf), twin)
