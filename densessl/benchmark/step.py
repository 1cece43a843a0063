"""A training step against its floor: what the bare backbone costs on the same views."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
from torch import nn

from densessl.benchmark.measure import in_turn, peak_mb, profiled, summary, time_interleaved
from densessl.benchmark.setup import (
    Prepared,
    build_backbone,
    build_method,
    build_optimizer,
    images_per_step,
    synthetic_batch,
)
from densessl.engine.hooks import follow_steps
from densessl.engine.optim import resolve_precision
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


class Floor:
    """``floor_step`` of ``cfg`` on such views, by itself; arguments as of ``TrainingStep``."""

    def __init__(self, cfg: Config, device: torch.device, keep_memory: bool = True):
        if keep_memory:
            keep_freed_memory()
        augment = build_method(cfg, torch.device("cpu")).data_preprocessor.to(device)
        batch = augment(augment.cast_data(synthetic_batch(cfg)), True)["batch"]
        self.parts = batch.chunk(cfg.optim_wrapper.get("accumulative_counts", 1))
        self.backbone = build_backbone(cfg, device)
        precision = resolve_precision(cfg.optim_wrapper.get("precision", "auto"), device.type)
        self.dtype = torch.bfloat16 if precision == "bf16" else None

    def __call__(self) -> None:
        floor_step(self.backbone, self.parts, self.dtype)


CONTESTANTS = {"step": TrainingStep, "floor": Floor}

_built: dict[str, TrainingStep | Floor] = {}  # in each process what it does in its turn


def _peak(name: str, config: dict, device: torch.device) -> float:
    if name not in _built:
        import_modules_from_strings(**config.get("custom_imports", dict(imports=[])))
        _built[name] = CONTESTANTS[name](Config(config), device)
    _built[name]()
    return peak_mb(device)


def benchmark_step(
    cfg: Config,
    device: torch.device,
    repeats: int = 10,
    warmup: int = 3,
    trace: str | None = None,
) -> dict[str, Any]:
    """Times ``Method.train_step``, the device's augmentation before it, and the floor, in turn.

    The memory of step and floor is seen beforehand, in a process of its own for each: on a CPU it
    is the whole process's, as any other program's peak would be given.

    Args:
        cfg: See ``recipe``.
        device: Where.
        repeats: Timed rounds.
        warmup: Rounds before.
        trace: Where to write a profile of one step.
    """
    rounds = max(warmup, 1)
    memory = {  # one after the other, so that each has all of a GPU
        name: max(in_turn(_peak, [name], rounds, cfg.to_dict(), device)[name])
        for name in CONTESTANTS
    }
    step, floor = TrainingStep(cfg, device), Floor(cfg, device)
    calls = {
        "step": step,
        "augmentation": lambda: step.augment(step.raw, True),
        "floor": floor,
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
        pairs_per_s={name: images / times[name]["median"] for name in CONTESTANTS},
        peak_mb=memory,
        of_floor=dict(
            seconds=times["step"]["median"] / times["floor"]["median"],
            pairs_per_s=times["floor"]["median"] / times["step"]["median"],
            peak_mb=memory["step"] / memory["floor"],
        ),
    )
