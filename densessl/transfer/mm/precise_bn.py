"""BatchNorm statistics recomputed before each evaluation."""

from itertools import islice
from math import ceil

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from densessl.registry import HOOKS


@HOOKS.register_module()
class PreciseBNHook(Hook):
    """Before validation, replaces BatchNorm's running statistics by a plain average over batches.

    The running average follows the last few batches, computed with weights that have changed
    since. Detectors fine-tuned with BatchNorm are evaluated after this correction in MoCo's and
    DenseCL's protocol (200 batches).

    Args:
        num_batches: Most batches to average over; never more than one pass over the training data.
    """

    priority = "HIGH"

    def __init__(self, num_batches: int = 200):
        self.num_batches = num_batches
        self._training = False

    def before_train(self, runner: Runner) -> None:
        """From here on there are training batches."""
        self._training = True

    def before_val(self, runner: Runner) -> None:
        """Runs before every validation during training; elsewhere there are no batches."""
        if not self._training:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # A validation must not change what training draws next.
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices), runner.optim_wrapper.optim_context(model):
            update_bn_statistics(model, islice(self._batches(runner), self.num_batches))

    def _batches(self, runner: Runner):
        """The same first batches of the training data each time, from a loader of its own.

        A second iterator over the training loader would reset the one that training holds.
        """
        config = runner.cfg.train_dataloader.copy()
        config["dataset"] = runner.train_dataloader.dataset
        config["persistent_workers"] = False
        # Built anew: an infinite sampler goes on where its last iterator stopped, or is used up.
        loader = runner.build_dataloader(config, seed=runner.seed)
        return islice(loader, ceil(len(loader.dataset) / config["batch_size"]))


@torch.no_grad()
def update_bn_statistics(model: nn.Module, batches) -> int:
    """Sets the statistics of every BatchNorm that trains to their average over ``batches``.

    Args:
        model: An mmengine model: ``data_preprocessor`` and ``forward(..., mode="loss")``.
        batches: Training batches as a loader gives them.

    Returns:
        How many batches were seen.
    """
    was_training = model.training
    model.train()
    layers = [
        m
        for m in model.modules()
        if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
    ]
    kept = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]
    seen = 0
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's cumulative average
        for batch in batches if layers else ():
            data = model.data_preprocessor(batch, True)
            model(**data, mode="loss")
            seen += 1
        if layers and not seen:
            raise RuntimeError("PreciseBN was given no batches; BatchNorm has no statistics now")
    finally:
        for layer, (momentum, count) in zip(layers, kept, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(count)
        model.train(was_training)
    return seen
