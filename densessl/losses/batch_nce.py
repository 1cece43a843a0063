"""InfoNCE inside a batch: each query finds its own key among the keys of all images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.losses.checks import check_temperature
from densessl.precision import full_precision


@full_precision
def batch_nce(
    query: Tensor, keys: Tensor, temperature: float, offset: int = 0, group: Tensor | None = None
) -> Tensor:
    """Mean over rows i of ``-log(exp(q_i.k_{offset+i}/t) / sum_j exp(q_i.k_j/t))``.

    Inputs are used as given: L2-normalise them first.

    Args:
        query: (N, C).
        keys: (M, C), of the global batch; M >= N + offset.
        temperature: The divisor of every logit.
        offset: Place of the first query's own key, rank * N.
        group: (M,) integers: the other keys of its own key's group are left out of a query's sum.
            None: each key is its own group.

    Returns:
        A scalar.

    Raises:
        ValueError: If the temperature is not above 0.

    Source: MoCo v3 (2104.02057), equation 1, without its factor of 2 t.
    """
    check_temperature(temperature)
    own = torch.arange(len(query), device=query.device) + offset
    logits = query @ keys.T / temperature
    if group is not None:
        copies = (group[own][:, None] == group).scatter(1, own[:, None], False)
        logits = logits.masked_fill(copies, -torch.inf)
    return F.cross_entropy(logits, own)
