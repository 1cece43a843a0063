"""A training step against its floor: what the bare backbone costs on the same views."""

from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from densessl.benchmark.measure import PeakMemory, profiled, summary, time_interleaved
from densessl.benchmark.setup import (
    Prepared,
    build_backbone,
    build_method,
    build_optimizer,
    images_per_step,
    synthetic_batch,
)
from densessl.engine.hooks import follow_steps
from densessl.memory import keep_freed_memory
from densessl.structures import ViewBatch


def floor_step(backbone: nn.Module, batches: list[ViewBatch], dtype: torch.dtype | None) -> None:
    """Forward and backward of the first view, forward of the last; no head, loss or optimizer."""
    backbone.zero_grad()
    for batch in batches:
        device = batch.views[0].device.type
        with torch.autocast(device, dtype, enabled=dtype is not None):
            maps = backbone(batch.views[0])
        sum(part.float().sum() for part in maps).backward()
        with torch.no_grad(), torch.autocast(device, dtype, enabled=dtype is not None):
            backbone(batch.views[-1])


class TrainingStep:
    """``Method.train_step`` of ``cfg`` on views that are on the device, float and channels-last.

    Args:
        cfg: See ``recipe``.
        device: Where.
        keep_memory: Whether the process keeps freed memory from here on, as in ``pretrain``.
    """

    def __init__(self, cfg: Config, device: torch.device, keep_memory: bool = True):
        if keep_memory:
            keep_freed_memory()
        self.method = build_method(cfg, device)
        self.wrapper = build_optimizer(cfg, self.method)
        follow_steps(self.method, self.wrapper.optimizer)
        self.augment = self.method.data_preprocessor
        self.raw = self.augment.cast_data(synthetic_batch(cfg))
        self.batch = self.augment(self.raw, True)["batch"]
        self.method.data_preprocessor = Prepared().to(device)

    def __call__(self) -> None:
        self.method.train_step(self.batch, self.wrapper)


def benchmark_step(
    cfg: Config,
    device: torch.device,
    repeats: int = 10,
    warmup: int = 3,
    trace: str | None = None,
) -> dict[str, Any]:
    """Times ``Method.train_step``, the device's augmentation before it, and the floor, in turn.

    Memory is looked at before the floor is built: on a CPU it is the whole process's, as any other
    program's peak would be given.

    Args:
        cfg: See ``recipe``.
        device: Where.
        repeats: Timed rounds.
        warmup: Rounds before.
        trace: Where to write a profile of one step.
    """
    step = TrainingStep(cfg, device)
    with PeakMemory(device) as memory:
        for _ in range(max(warmup, 1)):
            step()
    backbone = build_backbone(cfg, device)
    parts = step.batch.chunk(step.wrapper.accumulative_counts)
    dtype = torch.bfloat16 if step.wrapper.precision == "bf16" else None
    calls = {
        "step": step,
        "augmentation": lambda: step.augment(step.raw, True),
        "floor": lambda: floor_step(backbone, parts, dtype),
    }
    seconds = time_interleaved(calls, device, repeats, warmup)
    with profiled(trace, device):
        step()
    times = {name: summary(values) for name, values in seconds.items()}
    images = images_per_step(cfg)
    return dict(
        method=type(step.method).__name__,
        precision=step.wrapper.precision,
        compiled=bool(cfg.get("compile")),
        images=images,
        view=list(step.batch.views[0].shape[1:]),
        seconds=times,
        pairs_per_s=images / times["step"]["median"],
        of_floor=times["step"]["median"] / times["floor"]["median"],
        peak_mb=memory.peak,
    )
