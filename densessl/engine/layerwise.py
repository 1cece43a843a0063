"""What the optimizers of large batches share: a step on each weight that follows its norm."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer


class LayerwiseOptimizer(Optimizer):
    """Base of LARS and LAMB: weights are adapted, biases and norms (``ndim <= 1``) are not.

    Nothing in a step waits for the device. Operations are one for all parameters, but where each
    weight has a factor of its own (``adapt``) CUDA runs one kernel a weight.
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


def adapt(
    updates: list[Tensor], weights: list[Tensor], weight_decay: float, coefficient: float = 1.0
) -> list[Tensor]:
    """``v = u + weight_decay * w``, then ``coefficient * |w| / |v| * v``, as new tensors.

    Where ``w`` or ``u`` is 0 it stays ``v``: the decay of weights that no gradient reaches, as in
    the warm-up of a dense branch, would otherwise be scaled to a step as long as any.
    """
    decayed = torch._foreach_add(updates, weights, alpha=weight_decay)
    before, norms, weight_norms = (
        torch.stack(torch._foreach_norm(tensors)) for tensors in (updates, decayed, weights)
    )
    moved = (weight_norms > 0) & (before > 0) & (norms > 0)
    ratios = (coefficient * weight_norms / norms).where(moved, 1.0)
    torch._foreach_mul_(decayed, list(ratios.unbind()))
    return decayed
