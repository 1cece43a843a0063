"""LARS, the optimizer of large batches."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from densessl.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LARS(Optimizer):
    """SGD with momentum whose step on each weight is a fixed share of that weight's norm.

    For a weight p with gradient g: ``g <- g + weight_decay * p``, ``g <- trust_coefficient *
    |p| / |g| * g`` (left alone where a norm is 0), ``mu <- momentum * mu + g``, ``p <- p - lr *
    mu``. Biases and norms (``ndim <= 1``) get neither decay nor adaptation.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        momentum: Of the running sum mu.
        weight_decay: Of weights.
        trust_coefficient: Step as a share of the weight's norm, at learning rate 1.
        vector_lr_mult: Factor of the learning rate for parameters with ``ndim <= 1``.

    Source: 1708.03888, with the exclusions that SimCLR and BYOL use.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        vector_lr_mult: float = 1.0,
    ):
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                weight_decay=weight_decay,
                trust_coefficient=trust_coefficient,
                vector_lr_mult=vector_lr_mult,
            ),
        )

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Tensor | None:
        """One step; nothing in it waits for the device."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            weights = [p for p in params if p.ndim > 1]
            vectors = [p for p in params if p.ndim <= 1]
            self._move(weights, adapted(weights, group), group, group["lr"])
            lr = group["lr"] * group["vector_lr_mult"]
            self._move(vectors, [p.grad for p in vectors], group, lr)
        return loss

    def _move(self, params: list[Tensor], grads: list[Tensor], group: dict, lr: float) -> None:
        if not params:
            return
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        torch._foreach_add_(params, buffers, alpha=-lr)


def adapted(weights: list[Tensor], group: dict) -> list[Tensor]:
    """The decayed gradients of ``weights``, each scaled to its weight's norm."""
    if not weights:
        return []
    grads = torch._foreach_add([p.grad for p in weights], weights, alpha=group["weight_decay"])
    weight_norms = torch.stack(torch._foreach_norm(weights))
    grad_norms = torch.stack(torch._foreach_norm(grads))
    trust = group["trust_coefficient"] * weight_norms / grad_norms
    trust = trust.where((weight_norms > 0) & (grad_norms > 0), 1.0)
    torch._foreach_mul_(grads, list(trust.unbind()))
    return grads
