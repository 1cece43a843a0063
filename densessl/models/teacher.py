"""The EMA twin of a student."""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """Copies of some of the student's modules that follow it as an exponential moving average.

    The copies need no gradient, stay in train mode and keep BatchNorm statistics of their own:
    the average runs over parameters only.

    Args:
        momentum: The old value's share that is kept at each optimizer step, e.g. 0.999.
        end_momentum: The share at the end of training, approached along half a cosine; None
            keeps it constant.
        **modules: The student's modules, under the names that the copies get here and that the
            student has them under.
    """

    def __init__(self, momentum: float, end_momentum: float | None = None, **modules: nn.Module):
        super().__init__()
        self.momentum = momentum
        self.end_momentum = momentum if end_momentum is None else end_momentum
        for name, module in modules.items():
            self.add_module(name, deepcopy(module).requires_grad_(False))

    def restart(self, student: nn.Module) -> None:
        """Makes the copies equal to the student's modules again, statistics included."""
        for name, copied in self.named_children():
            copied.load_state_dict(getattr(student, name).state_dict())

    def momentum_at(self, progress: float) -> float:
        """The share kept when ``progress`` of the optimizer steps, 0..1, lie behind."""
        way = (1 + math.cos(math.pi * progress)) / 2
        return self.end_momentum - (self.end_momentum - self.momentum) * way

    @torch.no_grad()
    def update(self, student: nn.Module, progress: float = 0.0) -> None:
        """``teacher <- m * teacher + (1 - m) * student``; once per optimizer step.

        Args:
            student: Has the modules that the teacher follows.
            progress: Share of training before this step, for the schedule of m.
        """
        own, followed = self._pairs(student)
        torch._foreach_lerp_(own, followed, 1 - self.momentum_at(progress))

    @torch.no_grad()
    def distance(self, student: nn.Module) -> Tensor:
        """``|teacher - student| / |student|`` over all parameters; a scalar, a health figure."""
        own, followed = self._pairs(student)
        apart, size = (
            torch.stack(torch._foreach_norm(tensors)).norm()
            for tensors in (torch._foreach_sub(own, followed), followed)
        )
        return apart / size

    def _pairs(self, student: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        pairs = [
            (own, followed)
            for name, copy in self.named_children()
            for own, followed in zip(
                copy.parameters(), getattr(student, name).parameters(), strict=True
            )
        ]
        own, followed = map(list, zip(*pairs, strict=True))
        return own, followed
