"""What the optimizers of large batches share: a step on each weight that follows its norm."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer


class LayerwiseOptimizer(Optimizer):
    """Base of LARS and LAMB: weights are adapted, biases and norms (``ndim <= 1``) are not.

    Nothing in a step waits for the device. Operations are one for all parameters, but where each
    weight has a factor of its own (``scale_to_norms``) CUDA runs one kernel a weight.
    """

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Tensor | None:
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for adapted in (True, False):
                chosen = [p for p in params if (p.ndim > 1) == adapted]
                if chosen:
                    self.move(chosen, group, adapted)
        return loss

    @abstractmethod
    def move(self, params: list[Tensor], group: dict, adapted: bool) -> None:
        """The step on ``params`` of ``group``: weights if ``adapted``, else biases and norms."""


def scale_to_norms(updates: list[Tensor], weights: list[Tensor], coefficient: float = 1.0) -> None:
    """``u <- coefficient * |w| / |u| * u`` in place; left alone where either norm is 0."""
    weight_norms, norms = (
        torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, updates)
    )
    ratios = coefficient * weight_norms / norms
    ratios = ratios.where((weight_norms > 0) & (norms > 0), 1.0)
    torch._foreach_mul_(updates, list(ratios.unbind()))
