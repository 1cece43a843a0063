"""Weighted nearest neighbours."""

import torch
from torch import Tensor

from densessl.precision import full_precision, l2_normalize

_CHUNK = 256  # queries compared with the bank at a time


def knn_classify(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | None = None,
) -> Tensor:
    """Each class's share of the votes of the k nearest, which count ``exp(cosine / temperature)``.

    Args:
        bank: (N, C) features with labels.
        labels: (N,) class indices; or (N, K), what an entry's vote counts for each class, such as
            1 for those that an image shows; what is below 0 counts nothing.
        queries: (M, C).
        num_classes: K.
        k: How many neighbours vote; at most N do.
        temperature: Smaller lets near ones count for more.
        device: Where to compare, a chunk of queries at a time; by default where ``bank`` is. All
            else stays where ``queries`` and ``labels`` are, which is one device.

    Returns:
        (M, K), each row's weights divided by their sum.

    Source: InstDisc (1805.01978), section 3.4.
    """
    bank, k = l2_normalize(bank).to(device), min(k, len(bank))
    scores = []
    for chunk in l2_normalize(queries).split(_CHUNK):
        found = _nearest(chunk.to(bank.device), bank, k)
        similarity, nearest = (each.to(chunk.device) for each in found)
        weights = (similarity / temperature).softmax(1)
        votes = labels[nearest]
        if labels.dim() == 1:
            empty = weights.new_zeros(len(chunk), num_classes)
            scores.append(empty.scatter_add(1, votes, weights))
        else:
            scores.append(torch.einsum("mk,mkc->mc", weights, votes.clamp(min=0).to(weights)))
    return torch.cat(scores)


@full_precision
def _nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and rows of ``bank``, both (M, k), of unit vectors on one device."""
    return (queries @ bank.T).topk(k)
