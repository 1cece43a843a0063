"""Linear classifiers on frozen features: convex, fitted to the end, without random numbers."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.precision import full_precision

PENALTY = 1e-2
"""Weight decay on standardised features, so that it fits any backbone's scale."""

_ITERATIONS = 200

_linear = full_precision(F.linear)


class Linear(NamedTuple):
    """A fitted classifier of raw features."""

    weight: Tensor  # (K, C)
    bias: Tensor  # (K,)

    def __call__(self, features: Tensor) -> Tensor:
        """(..., C) -> scores (..., K)."""
        return _linear(features, self.weight, self.bias)


@full_precision
@torch.enable_grad()
def fit_linear(
    features: Tensor,
    targets: Tensor,
    weights: Tensor,
    several: bool = False,
    penalty: float = PENALTY,
) -> Linear:
    """The minimum of ``sum w * cross_entropy / sum w + penalty / 2 * |W|^2``, by L-BFGS.

    Features are standardised channel by channel, by their mean and deviation here; channels that
    never change are left out. The problem is convex and starts at zero: no seed, no schedule. It is
    solved where the features are.

    Args:
        features: (N, C).
        targets: (N, K) shares of the classes, 0..1.
        weights: (N,) what each row counts; with ``several`` (N, K), what each entry counts.
        several: Classes do not exclude each other: sigmoid instead of softmax, and the sum of the
            classes' own objectives.
        penalty: Weight decay.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    scale = torch.where(std > 1e-6 * std.max(), 1 / std, 0.0)
    x, targets = (features - mean) * scale, targets.to(features)
    weights = weights.to(features) / weights.sum() * (targets.shape[1] if several else 1)
    weight = x.new_zeros(targets.shape[1], x.shape[1], requires_grad=True)
    bias = x.new_zeros(targets.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        scores = F.linear(x, weight, bias)
        if several:
            loss = F.binary_cross_entropy_with_logits(scores, targets, weights, reduction="sum")
        else:
            loss = (F.cross_entropy(scores, targets, reduction="none") * weights).sum()
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    weight, bias = weight.detach() * scale, bias.detach()
    return Linear(weight, bias - weight @ mean)


def linear_probe(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    num_classes: int,
    device: torch.device | None = None,
) -> Tensor:
    """Scores of a linear classifier.

    Args:
        bank: (N, C) features with labels.
        labels: (N,) class indices; or (N, K) where an image may show several: 1, 0 or, for what
            does not count, -1.
        queries: (M, C).
        num_classes: K.
        device: Where to compute; by default where ``bank`` is.

    Returns:
        (M, K) where ``queries`` are.
    """
    features = bank.to(device)
    if labels.dim() == 2:
        classifier = fit_linear(features, labels.clamp(min=0), labels >= 0, several=True)
    else:
        targets, ones = F.one_hot(labels, num_classes), torch.ones_like(labels)
        classifier = fit_linear(features, targets, ones)
    return classifier(queries.to(features.device)).to(queries.device)
