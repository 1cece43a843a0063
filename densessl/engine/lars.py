"""LARS: SGD for large batches."""

from collections.abc import Iterable

import torch
from torch import Tensor

from densessl.engine.layerwise import LayerwiseOptimizer, adapt
from densessl.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LARS(LayerwiseOptimizer):
    """SGD with momentum whose step on each weight is a fixed share of that weight's norm.

    For a weight p with gradient g: ``g <- g + weight_decay * p``, ``g <- trust_coefficient *
    |p| / |g| * g`` (left alone where p or its gradient is 0), ``mu <- momentum * mu + g``,
    ``p <- p - lr * mu``. Biases and norms (``ndim <= 1``) get neither decay nor adaptation.

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

    def move(self, params: list[Tensor], group: dict, adapted: bool) -> None:
        updates, lr = [p.grad for p in params], group["lr"]
        if adapted:
            updates = adapt(updates, params, group["weight_decay"], group["trust_coefficient"])
        else:
            lr = lr * group["vector_lr_mult"]
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(params, buffers, alpha=-lr)
