"""The EMA twin of a student."""

from copy import deepcopy

import torch
from torch import nn


class Teacher(nn.Module):
    """Copies of some of the student's modules that follow it as an exponential moving average.

    The copies need no gradient, stay in train mode and keep BatchNorm statistics of their own:
    the average runs over parameters only.

    Args:
        momentum: The old value's share that is kept at each optimizer step, e.g. 0.999.
        **modules: The student's modules, under the names that the copies get here and that the
            student has them under.
    """

    def __init__(self, momentum: float, **modules: nn.Module):
        super().__init__()
        self.momentum = momentum
        for name, module in modules.items():
            self.add_module(name, deepcopy(module).requires_grad_(False))

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """``teacher <- m * teacher + (1 - m) * student``; once per optimizer step."""
        pairs = [
            (own, followed)
            for name, copy in self.named_children()
            for own, followed in zip(
                copy.parameters(), getattr(student, name).parameters(), strict=True
            )
        ]
        own, followed = map(list, zip(*pairs, strict=True))
        torch._foreach_lerp_(own, followed, 1 - self.momentum)
