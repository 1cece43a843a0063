"""What predictions are worth: accuracy, average precision, intersection over union.

Pure functions on tensors; shares in 0..1, NaN where nothing can be said.
"""

import torch
from torch import Tensor

IGNORED = 255


def top1(scores: Tensor, labels: Tensor) -> float:
    """Share of the rows of ``scores`` (N, K) whose highest entry is at ``labels`` (N,)."""
    return (scores.argmax(1) == labels).double().mean().item()


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Area under the precision-recall steps: ``sum_n (R_n - R_{n-1}) P_n`` over all thresholds.

    All points count and nothing is interpolated; equal scores are one threshold. This is neither
    VOC07's 11-point rule nor VOC10's envelope, both of which give slightly more.

    Args:
        scores: (N,).
        positive: (N,) bool.

    Returns:
        The area; NaN without a positive.
    """
    if not positive.any():
        return torch.nan
    order = scores.argsort(descending=True)
    scores, hits = scores[order], positive[order].double().cumsum(0)
    last_of_equals = torch.ones_like(positive)
    last_of_equals[:-1] = scores[1:] != scores[:-1]
    thresholds = last_of_equals.nonzero()[:, 0]
    precision, recall = hits[thresholds] / (thresholds + 1), hits[thresholds] / hits[-1]
    return (precision * recall.diff(prepend=recall.new_zeros(1))).sum().item()


def average_precisions(scores: Tensor, labels: Tensor) -> list[float]:
    """Average precision of each class.

    Args:
        scores: (N, K).
        labels: (N, K): 1 is shown, 0 is not, -1 does not count for this class.
    """
    counts = labels >= 0
    return [
        average_precision(scores[counts[:, c], c], labels[counts[:, c], c] == 1)
        for c in range(labels.shape[1])
    ]


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean of ``average_precisions`` over the classes that occur."""
    return torch.tensor(average_precisions(scores, labels)).nanmean().item()


def confusion_matrix(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """How often each class is taken for which: (K, K) int64, rows are the truth.

    Args:
        predicted: Class indices, any shape.
        truth: Class indices of the same shape; ``IGNORED`` does not count.
        num_classes: K.
    """
    known = truth != IGNORED
    pairs = truth[known].long() * num_classes + predicted[known].long()
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def intersection_over_union(confusion: Tensor) -> Tensor:
    """IoU of each class, (K,) float64, from a whole set's matrix; NaN for one that is nowhere."""
    confusion = confusion.double()
    hits = confusion.diagonal()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


def mean_iou(confusion: Tensor) -> float:
    """Mean IoU over the classes that occur in truth or prediction."""
    return intersection_over_union(confusion).nanmean().item()
