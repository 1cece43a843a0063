"""From JPEG files to optimizer steps: a real training, timed by its own log."""

import tempfile
from typing import Any

import torch
from mmengine.config import Config

from densessl.benchmark.measure import PeakMemory, summary
from densessl.benchmark.setup import images_per_step
from densessl.checkpoint import load_checkpoint
from densessl.engine.pretrain import pretrain


def benchmark_end_to_end(
    cfg: Config, device: torch.device, steps: int = 50, warmup: int = 10
) -> dict[str, Any]:
    """Trains ``warmup + steps`` optimizer steps into a folder that is then removed.

    A GPU works on while the host waits for data, so the share waited is there the most that it can
    be.

    Args:
        cfg: See ``recipe``.
        device: Where training happens: the default device.
        steps: Steps that count.
        warmup: Steps before those.
    """
    with tempfile.TemporaryDirectory() as folder, PeakMemory(device) as memory:
        cfg.train_cfg.max_steps = warmup + steps
        # Each line of the log would reset the peak that a GPU remembers.
        cfg.default_hooks.logger.interval = warmup + steps + 1
        checkpoint = pretrain(cfg, work_dir=folder)
        scalars = load_checkpoint(checkpoint)["message_hub"]["log_scalars"]
    history = {
        name: scalars[f"train/{name}"].data[0][warmup:].tolist() for name in ("time", "data_time")
    }
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
