"""From JPEG files to optimizer steps: a real training, timed by its own log."""

import tempfile
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from densessl.benchmark.measure import PeakMemory, profiled, summary, synchronize
from densessl.benchmark.setup import images_per_step
from densessl.checkpoint import load_checkpoint
from densessl.engine.pretrain import pretrain
from densessl.errors import UserError
from densessl.registry import HOOKS


@HOOKS.register_module()
class WaitForDeviceHook(Hook):
    """Waits for the device after the warm-up and after the last timed step, in that step's time.

    So the time of the steps between is the time of their work, not of handing it to the device.

    Args:
        warmup: Optimizer steps of the warm-up.
        untimed: Steps that come after the timed ones.
    """

    priority = "ABOVE_NORMAL"  # before mmengine's timer

    def __init__(self, warmup: int, untimed: int):
        self.warmup, self.untimed = warmup, untimed

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 in (self.warmup, runner.max_iters - self.untimed):
            synchronize(outputs["loss"].device)


@HOOKS.register_module()
class TraceHook(Hook):
    """Profiles the last step of a training, from the wait for its data on.

    Args:
        path: Where to write the trace.
    """

    priority = "LOWEST"  # after mmengine's timer, which would count the profiler's start

    def __init__(self, path: str):
        self.path = path
        self._profile = ExitStack()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 2 == runner.max_iters:
            self._profile.enter_context(profiled(self.path, outputs["loss"].device))
        elif runner.iter + 1 == runner.max_iters:
            self._profile.close()


def benchmark_end_to_end(
    cfg: Config, device: torch.device, steps: int = 50, warmup: int = 10, trace: str | None = None
) -> dict[str, Any]:
    """Trains ``warmup + steps`` optimizer steps into a folder that is then removed.

    A GPU works on while the host waits for data, so the share waited is there the most that it can
    be.

    Args:
        cfg: See ``recipe``.
        device: Where training happens: the default device.
        steps: Steps that count.
        warmup: Steps before those.
        trace: Where to write a profile of one step more, after those.

    Raises:
        UserError: If training ends within the warm-up.
    """
    untimed = int(trace is not None)
    with tempfile.TemporaryDirectory() as folder, PeakMemory(device) as memory:
        cfg.train_cfg.max_steps = warmup + steps + untimed
        cfg.default_hooks.logger = None  # each line would reset the peak that a GPU remembers
        ours = [dict(type="WaitForDeviceHook", warmup=warmup, untimed=untimed)]
        if trace:
            ours.append(dict(type="TraceHook", path=trace))
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), *ours]
        checkpoint = pretrain(cfg, work_dir=folder)
        scalars = load_checkpoint(checkpoint)["message_hub"]["log_scalars"]
    history = {
        name: scalars[f"train/{name}"].data[0][warmup:].tolist()[: -untimed or None]
        for name in ("time", "data_time")
    }
    if not history["time"]:
        raise UserError(
            f"The training ended within the warm-up of {warmup} steps: there is nothing to time.",
            "give a smaller --warmup, more images, or a larger train_cfg.max_epochs",
        )
    total, waited = (sum(values) for values in history.values())
    images = images_per_step(cfg)
    return dict(
        workers=cfg.train_dataloader.get("num_workers", 0),
        images=images,
        steps=len(history["time"]),
        images_per_s=images * len(history["time"]) / total,
        data_wait=waited / total,
        seconds={name: summary(values) for name, values in history.items()},
        peak_mb=memory.peak,
    )
