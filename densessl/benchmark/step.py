"""A training step against its floor: what the bare backbone costs on the same views."""

import time
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
from torch import nn

from densessl.benchmark.measure import (
    in_turn,
    peak_mb,
    profiled,
    summary,
    synchronize,
    time_interleaved,
)
from densessl.benchmark.parts import time_parts
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


Work = tuple[Callable[[Config, torch.device], Callable[[], object]], Config]

_built: dict[str, Callable[[], object]] = {}  # in each process what it does in its turn


def cost_of_steps(
    works: dict[str, Work], rounds: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Seconds and MB of each of ``works`` in each round, in a process of its own for each.

    On a CPU they take turns; on a GPU one comes after the other, so that each has all of its
    memory. The MB are the worst so far, see ``peak_mb``.

    Args:
        works: By name what makes a step from a config and a device, and the config.
        rounds: Of those that count, after one that does not.
        device: Where.
    """
    plain = {name: (make, cfg.to_dict()) for name, (make, cfg) in works.items()}
    seen: dict[str, list[tuple[float, float]]] = {}
    for group in [[name] for name in works] if device.type == "cuda" else [list(works)]:
        seen |= in_turn(_cost, group, rounds, plain, device)
    return seen


def _cost(name: str, works: dict, device: torch.device) -> tuple[float, float]:
    if name not in _built:
        make, config = works[name]
        import_modules_from_strings(**config.get("custom_imports", dict(imports=[])))
        _built[name] = make(Config(config), device)
    synchronize(device)
    start = time.perf_counter()
    _built[name]()
    synchronize(device)
    return time.perf_counter() - start, peak_mb(device)


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
    contestants = {"step": (TrainingStep, cfg), "floor": (Floor, cfg)}
    costs = cost_of_steps(contestants, max(warmup, 1), device)
    memory = {name: max(peak for _, peak in values) for name, values in costs.items()}
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
    parts = {}
    if not cfg.get("compile"):  # hooks would break the graphs
        optimizer = step.wrapper.optimizer
        parts["parts"] = time_parts(step, step.method, optimizer, device, repeats)
    return dict(
        method=type(step.method).__name__,
        precision=step.wrapper.precision,
        compiled=bool(cfg.get("compile")),
        images=images,
        view=list(step.batch.views[0].shape[1:]),
        seconds=times,
        pairs_per_s={name: images / times[name]["median"] for name in contestants},
        peak_mb=memory,
        of_floor=dict(
            seconds=times["step"]["median"] / times["floor"]["median"],
            pairs_per_s=times["floor"]["median"] / times["step"]["median"],
            peak_mb=memory["step"] / memory["floor"],
        ),
        **parts,
    )
