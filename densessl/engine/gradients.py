"""Gradient norms in the log, layer by layer."""

import re

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from densessl.engine.hooks import method_of
from densessl.registry import HOOKS


def layer_of(name: str) -> str:
    """The layer a backbone's parameter belongs to: ``model.blocks.3.attn...`` -> ``blocks.3``."""
    return re.match(r"(?:model\.)?(\w+(?:\.\d+)?)", name).group(1)


def gradient_norms(backbone: nn.Module) -> dict[str, Tensor]:
    """Norm of the gradient of each layer that has one."""
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in backbone.named_parameters():
        if parameter.grad is not None:
            layers.setdefault(layer_of(name), []).append(parameter.grad)
    return {name: torch.stack(torch._foreach_norm(grads)).norm() for name, grads in layers.items()}


@HOOKS.register_module()
class GradientNormHook(Hook):
    """Logs the gradient norm of each layer of the backbone, before any clipping.

    In vision transformers a spike begins in the first layer and spoils the accuracy without
    spoiling the loss (MoCo v3, section 4.2).

    Args:
        interval: Optimizer steps between measurements.
    """

    def __init__(self, interval: int = 10):
        self.interval = interval
        self.norms: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        self._method = method_of(runner)
        runner.optim_wrapper.observers.append(self._observe)

    def _observe(self) -> None:
        if self._method.step % self.interval == 0:
            self.norms = gradient_norms(self._method.backbone)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for name, norm in self.norms.items():
            runner.message_hub.update_scalar(f"train/grad/{name}", norm)
        self.norms = {}

    def after_train(self, runner: Runner) -> None:
        runner.optim_wrapper.observers.remove(self._observe)
