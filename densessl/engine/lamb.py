"""LAMB: Adam for large batches."""

from collections.abc import Iterable

import torch
from torch import Tensor

from densessl.engine.layerwise import LayerwiseOptimizer, adapt
from densessl.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LAMB(LayerwiseOptimizer):
    """Adam whose step on each weight is as long as the weight itself, times the learning rate.

    For a weight p, with Adam's bias-corrected moments: ``u = m_hat / (sqrt(v_hat) + eps) +
    weight_decay * p``, ``p <- p - lr * |p| / |u| * u`` (factor 1 where p or m_hat is 0). Biases and
    norms (``ndim <= 1``) get Adam's step, without decay.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Shares of the running mean and mean square that are kept at each step.
        eps: Added to the square root.
        weight_decay: Of weights.

    Source: 1904.00962, algorithm 2 with phi the identity.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    def move(self, params: list[Tensor], group: dict, adapted: bool) -> None:
        (beta1, beta2), states = group["betas"], [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if not state:
                state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["step"] += 1  # a plain number: no device has to be asked for it
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        grads = [p.grad for p in params]
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)

        roots = torch._foreach_div(squares, [1 - beta2 ** state["step"] for state in states])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(means, [1 - beta1 ** state["step"] for state in states])
        torch._foreach_div_(updates, roots)
        if adapted:
            updates = adapt(updates, params, group["weight_decay"])
        torch._foreach_add_(params, updates, alpha=-group["lr"])
